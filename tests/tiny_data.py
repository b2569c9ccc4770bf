"""A table of small video files, each of one colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clips import write_clip

CAPTIONS = ("red", "green", "blue", "black", "white", "yellow", "pink", "cyan")
_COLOURS = (
    (220, 0, 0),
    (0, 220, 0),
    (0, 0, 220),
    (9, 9, 9),
    (240, 240, 240),
    (220, 220, 0),
    (240, 150, 180),
    (0, 9, 9),
)


def write_videos(folder: Path, *, frames: int = 8) -> list[Path]:
    """clip0.mp4 … clip7.mp4, H.264, 48 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, colour in enumerate(_COLOURS):
        pictures = [np.full((48, 48, 3), colour, np.uint8) for _ in range(frames)]
        paths.append(write_clip(folder / f"clip{number}.mp4", pictures))
    return paths


def write_table(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    """Rows of video, caption, split."""
    lines = [",".join(row) for row in [("video", "caption", "split"), *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_data(folder: Path) -> Path:
    """The videos with a table: five for training, three for testing."""
    paths = write_videos(folder)
    rows = [
        (path.name, f"a {caption} clip", "train" if number < 5 else "test")
        for number, (path, caption) in enumerate(zip(paths, CAPTIONS, strict=True))
    ]
    return write_table(folder / "colours.csv", rows)
