"""Data sets: readers, decoding, the frame cache, loading, checks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.data.frames import FrameStore
    from vop.data.holdout import with_validation
    from vop.data.loading import EpochSampler, PairDataset, frame_loader
    from vop.data.readers import load
    from vop.data.screening import cache_dataset, check_dataset, screen
    from vop.data.types import Dataset, Split, Video

__all__ = [
    "Dataset",
    "EpochSampler",
    "FrameStore",
    "PairDataset",
    "Split",
    "Video",
    "cache_dataset",
    "check_dataset",
    "frame_loader",
    "load",
    "screen",
    "with_validation",
]

# PyTorch and PyAV are imported only where a name that needs them is used.
_HOMES = {
    "Dataset": "vop.data.types",
    "EpochSampler": "vop.data.loading",
    "FrameStore": "vop.data.frames",
    "PairDataset": "vop.data.loading",
    "Split": "vop.data.types",
    "Video": "vop.data.types",
    "cache_dataset": "vop.data.screening",
    "check_dataset": "vop.data.screening",
    "frame_loader": "vop.data.loading",
    "load": "vop.data.readers",
    "screen": "vop.data.screening",
    "with_validation": "vop.data.holdout",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'vop.data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
