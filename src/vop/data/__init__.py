"""Data sets: readers, decoding, the frame cache, loading, checks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.data.decode import decode_frames
    from vop.data.frames import FrameStore
    from vop.data.readers import load
    from vop.data.types import Dataset, Split, Video

__all__ = ["Dataset", "FrameStore", "Split", "Video", "decode_frames", "load"]

# PyTorch and PyAV are imported only where a name that needs them is used.
_HOMES = {
    "Dataset": "vop.data.types",
    "FrameStore": "vop.data.frames",
    "Split": "vop.data.types",
    "Video": "vop.data.types",
    "decode_frames": "vop.data.decode",
    "load": "vop.data.readers",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'vop.data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
