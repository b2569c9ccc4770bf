"""Exports a clip, and reads what the exported file shows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from clips import naive_choice
from vop.video.clip_export import export_clip


def make(path: Path, start: float, end: float) -> Path:
    out = path.with_name("moment.mp4")
    export_clip(path, out, start_seconds=start, end_seconds=end)
    return out


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        return container.duration / 1e6


def appearances(path: Path) -> tuple[list[Fraction], list[int]]:
    """When each frame of a file appears, and which of `grey_frames` it is."""
    with av.open(str(path)) as container:
        frames = [
            (frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    return [time for time, _ in frames], [round(pixels.mean() / 10) for _, pixels in frames]


def shown(path: Path, count: int) -> list[int]:
    """Which frames are on display in the middle of `count` equal intervals."""
    times, found = appearances(path)
    end = Fraction(duration(path))
    return [found[place] for place in naive_choice(times, end, count, start=Fraction(0))]
