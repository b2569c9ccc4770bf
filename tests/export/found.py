"""Moments as a search finds them, without a library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vop.errors import VideoError
from vop.search.results import Moment


def a_moment(path: Path | str, start: float, end: float, *, seconds: float = 0.96, **columns: str) -> Moment:
    return Moment(
        segment=f"{'0' * 32}-{start}",
        video="0" * 32,
        path=str(path),
        start_seconds=start,
        end_seconds=end,
        score=0.25,
        duration_seconds=seconds,
        date="2024-07-01T12:00:00+00:00",
        plays_in_browsers=True,
        columns=columns,
    )


@contextmanager
def original(moment: Moment) -> Iterator[Path]:
    path = Path(moment.path)
    if not path.exists():
        raise VideoError(path, "the file does not exist")
    yield path
