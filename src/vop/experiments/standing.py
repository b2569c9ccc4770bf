"""Merge results of `vop compare` and rows of others into one standing comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vop.config import validated
from vop.errors import VopError
from vop.evaluation.metrics import METRIC_NAMES
from vop.experiments.plan import FREE
from vop.experiments.results import COMPARE, ArmResult, ExperimentResults, Metrics, SeedResult
from vop.experiments.standing_schema import SCHEMA, Row, Standing
from vop.experiments.tables import rate_choice
from vop.heads import MEAN
from vop.utils.files import read_file
from vop.utils.parsing import parse_json

MAX_BYTES = 64_000_000  # of a file


def merge(paths: Iterable[str | Path]) -> Standing:
    """Return one document with the rows of all files, sorted, without repetitions.

    Args:
        paths: files that `vop compare` wrote (`DATA-compare.json`, several of them in a list, the output of `--json`),
            and documents of this schema. The ablations among the results are left out.

    Raises:
        VopError: a file cannot be read, has a wrong row (the error names file, row and field) or no rows; or two rows
            have the same method, settings, recipe, gallery and source, and different values.
    """
    known: dict[str, tuple[str, Row]] = {}
    for path in paths:
        for place, row in _read(Path(path)):
            earlier, same = known.setdefault(_identity(row), (place, row))
            if same.to_dict() != row.to_dict():
                raise VopError(
                    f"{place}: {row.name} has other values than the same method in {earlier}, with equal settings, "
                    "recipe, gallery and source: leave one of them out"
                )
    return Standing(schema=SCHEMA, rows=sorted((row for _, row in known.values()), key=_order))


def _identity(row: Row) -> str:
    results = {"runs", "mean", "spread", "parameters", "percent_of_backbone", "cost", "date", "notes"}
    facts = row.model_dump(exclude=results)
    facts["recipe"].pop("learning_rate")
    return json.dumps(facts, sort_keys=True)


def _order(row: Row) -> tuple[str, str, str, float, str, str]:
    facts = json.dumps(row.to_dict(), sort_keys=True)
    return row.benchmark, row.split, row.backbone, -row.average.t2v.r1, row.name, facts


def _read(path: Path) -> list[tuple[str, Row]]:
    """Return the rows of a file, each with its place for errors."""
    content = read_file(path, at_most=MAX_BYTES, error=VopError)
    try:
        document = parse_json(content, parse_constant=_no_number)
    except ValueError as error:
        raise VopError(f"{path}: this is not readable as JSON: {error}") from None
    if isinstance(document, dict) and "schema" in document:
        rows = _rows_of_document(path, document)
    else:
        rows = _rows_of_results(path, document)
    if not rows:
        raise VopError(f"{path}: 0 rows; give the results of a comparison, or a document with rows")
    return rows


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _rows_of_document(path: Path, document: dict[str, Any]) -> list[tuple[str, Row]]:
    if document["schema"] != SCHEMA:
        raise VopError(
            f"{path}: schema is {document['schema']!r}; this version of vop reads {SCHEMA!r}: write that, or install "
            "the version of vop that knows yours"
        )
    rows = document.get("rows")
    frame = {**document, "rows": []} if isinstance(rows, list) else document
    validated(Standing, frame, source=str(path), error=VopError)
    assert isinstance(rows, list), "rows that are not a list are refused"
    # one by one, so that an error can name the row
    return [_placed(f"{path}: row {n}{_named(row)}", row) for n, row in enumerate(rows, 1)]


def _placed(place: str, values: object) -> tuple[str, Row]:
    return place, validated(Row, values, source=place, error=VopError)


def _named(row: object) -> str:
    method = row.get("method") if isinstance(row, dict) else None
    return f" ({method})" if isinstance(method, str) else ""


def _rows_of_results(path: Path, document: object) -> list[tuple[str, Row]]:
    studies = document.get("studies", [document]) if isinstance(document, dict) else document
    if not isinstance(studies, list) or not all(isinstance(one, dict) and "arms" in one for one in studies):
        raise VopError(
            f"{path}: these are neither results of `vop compare` nor rows; rows need "
            f'{{"schema": "{SCHEMA}", "rows": […]}}'
        )
    several = [ExperimentResults.from_dict(one, source=str(path)) for one in studies]
    return [
        _placed(f"{path}: {arm.name} on {one.data}", _values(one, arm))
        for one in several
        if one.kind == COMPARE
        for arm in one.arms
    ]


def _values(results: ExperimentResults, arm: ArmResult) -> dict[str, Any]:
    """Return the values of an arm's row."""
    trains = arm.parameters.true_count > 0
    settings = {name: value for name, value in arm.settings.items() if name != "num_frames"}
    if arm.head not in ("", MEAN):
        settings["head"] = arm.head
    minutes = [trial.minutes for trial in arm.trials]
    machines = dict.fromkeys(run.machine for run in arm.runs if run.machine)
    return {
        "benchmark": results.data,
        "split": results.split,
        "backbone": results.backbone,
        "gallery": {
            "videos": results.gallery.videos,
            "texts": results.gallery.texts,
            "tie_rule": results.gallery.tie_rule,
            "fingerprint": results.gallery.fingerprint or None,
        },
        "method": arm.method,
        "name": arm.name,
        "settings": settings,
        "recipe": _recipe(results, arm, trains=trains),
        "runs": [_run(run) for run in arm.runs],
        "mean": None if arm.runs else _both(arm.mean.t2v, arm.mean.v2t, arm.mean.extras),
        "parameters": arm.parameters.true_count,
        "percent_of_backbone": arm.parameters.true_percent,
        "cost": {
            "minutes": arm.mean.minutes,
            "search_minutes": sum(minutes) if minutes and None not in minutes else None,
            "machine": "; ".join(machines) or None,
            "peak_memory_bytes": arm.mean.peak_memory_bytes,
        },
        "source": {
            "kind": "vop",
            "version": ", ".join(results.vop_versions) or "unknown",
            "command": results.command or None,
        },
        "date": results.written[:10],
        "notes": list(results.notes),
    }


def _recipe(results: ExperimentResults, arm: ArmResult, *, trains: bool) -> dict[str, Any]:
    recipe = dict(results.recipe)
    facts = {name: recipe.pop(name, None) for name in ("epochs", "batch_size", "captions_per_video", "precision")}
    frames = arm.settings.get("num_frames", recipe.pop("num_frames", None))
    selection = ", ".join(dict.fromkeys(run.selection for run in arm.runs if run.selection))
    always = {"num_frames": frames, "precision": facts["precision"], "selection": selection or None}
    if not trains:
        return always
    other = {name: value for name, value in recipe.items() if name not in (*FREE, "num_frames")}
    rate = {"learning_rate": arm.learning_rate, "rate_choice": rate_choice(results) or None}
    return {**facts, **always, **rate, "other": other}


def _run(run: SeedResult) -> dict[str, Any]:
    return {"seed": run.seed, "epoch": run.epoch, "minutes": run.minutes, **_both(run.t2v, run.v2t, run.extras)}


def _both(t2v: Metrics, v2t: Metrics, extras: Mapping[str, int | float]) -> dict[str, Any]:
    scores = {"t2v": t2v, "v2t": v2t}
    ways = {way: {key: one.value(key) for key in METRIC_NAMES} for way, one in scores.items()}
    return {**ways, "extras": dict(extras)}
