"""Write moments as a CSV table, with the owner's metadata as columns, or as the JSON of `vop search`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from vop.export.moments import ExportableMoment
from vop.utils.text import in_json, in_spreadsheet

_FIRST = ("rank", "path", "start_seconds", "end_seconds", "score")
_COLUMNS = "columns"
_NESTED = {  # fields with values of their own, or none
    "line": ("text", "start_seconds", "end_seconds", "source"),
    "place": ("latitude", "longitude"),
}


def csv_table(moments: Sequence[ExportableMoment]) -> str:
    """Return a table with a row for each moment, best first."""
    rows = [{"rank": rank, **_flat(moment.to_dict())} for rank, moment in enumerate(moments, start=1)]
    names = dict.fromkeys([*_FIRST, *(name for row in rows for name in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def json_results(moments: Sequence[ExportableMoment]) -> str:
    """Return the document that `vop search --json` prints."""
    results = [moment.to_dict() for moment in moments]
    return in_json(json.dumps({"results": results}, indent=2, ensure_ascii=False)) + "\n"


def _flat(moment: dict[str, Any]) -> dict[str, Any]:
    """Return a moment without nested values. A column of the owner that is called like a field gets a prefix."""
    columns = moment.pop(_COLUMNS, {})
    found: dict[str, Any] = {}
    for name, value in moment.items():
        if name in _NESTED:
            found |= {f"{name}.{inner}": (value or {}).get(inner) for inner in _NESTED[name]}
        else:
            found[name] = value
    taken = {*found, "rank"}
    return found | {f"{_COLUMNS}.{name}" if name in taken else name: value for name, value in columns.items()}


def _cell(value: Any) -> object:
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    if isinstance(value, str):  # a path that is not valid UTF-8 cannot be written as it is
        value = value.encode(errors="backslashreplace").decode()
    return "" if value is None else in_spreadsheet(value)
