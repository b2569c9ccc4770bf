"""The built-in benchmark: its videos are rendered, not read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from vop.datasets.types import Dataset
from vop.errors import UsageError


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """`emoji-motion`, rendered into `root` (or its default folder) unless it is there already."""
    if videos is not None:
        raise UsageError(f"{name} renders its own videos; give its folder as {name}:DIR")
    return import_module("vop.benchmarks.emoji_motion").dataset(root)
