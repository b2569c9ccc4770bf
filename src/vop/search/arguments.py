"""The arguments of the methods of `Library`: their types, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack

import numpy as np

from vop.errors import UsageError
from vop.search.filters import Filters
from vop.search.queries import Example, Sentence
from vop.search.results import Moment
from vop.storage.address import Address, Location, location
from vop.utils.names import existing_path
from vop.video.clip import Clip

if TYPE_CHECKING:
    from torch import Tensor

PathLike: TypeAlias = "str | os.PathLike[str]"
Place: TypeAlias = "PathLike | Address"
Sentences: TypeAlias = "str | Sentence | Sequence[str | tuple[str, float] | Sentence]"
QueryPart: TypeAlias = "str | Sentence | Path | Example | Moment"
Query: TypeAlias = (
    "Sentences | Path | Example | Moment | Sequence[QueryPart | tuple[QueryPart, float]] | np.ndarray | Tensor"
)


class FilterValues(TypedDict, total=False):
    """The filters of `Library.search` and `Library.browse`."""

    folder: PathLike | None
    name: str | None
    min_seconds: float | None
    max_seconds: float | None
    after: str | None
    before: str | None
    where: str | Sequence[str]
    near: str | None
    tag: str | Sequence[str]
    favourites: bool


def filters_of(**given: Unpack[FilterValues]) -> Filters | None:
    """Return the filters; None if every video may be found."""
    values: dict[str, Any] = {**given, "folder": _folder(given.get("folder"))}
    for name in ("where", "tag"):
        several = values.get(name, ())
        values[name] = (several,) if isinstance(several, str) else tuple(several)
    filters = Filters(**values)
    return None if filters == Filters() else filters


def _folder(folder: PathLike | None) -> str | None:
    if folder is None or isinstance(folder, str):
        return folder
    return str(existing_path(Path(folder)).resolve())


def locations(paths: Place | Iterable[Place]) -> list[Location]:
    """Return one path, or several, as paths and addresses."""
    if isinstance(paths, str | os.PathLike | Address):
        return [location(paths)]
    return [location(path) for path in paths]


def moments_of(query: object) -> list[Moment]:
    """Return the moments of a query, which a search for similar ones leaves out."""
    if isinstance(query, Moment):
        return [query]
    if not isinstance(query, list | tuple):
        return []
    return [
        part for item in query for part in (item if isinstance(item, tuple) else [item]) if isinstance(part, Moment)
    ]


def clipped(file: Path | Example, start_seconds: float | None = None, end_seconds: float | None = None) -> Example:
    """Return an example of a file, or of a clip of it."""
    if start_seconds is None and end_seconds is None:
        return file if isinstance(file, Example) else Example(file)
    if isinstance(file, Example):
        raise UsageError("an Example has a clip of its own: give a Path with start_seconds and end_seconds")
    return Example(file, "video", Clip(start_seconds or 0.0, end_seconds))


def silently() -> None:
    """Do nothing, while another process writes."""
