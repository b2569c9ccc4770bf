"""Data sets: readers, decoding, the frame cache, loading, checks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vop.datasets.frames import FrameStore
    from vop.datasets.loading import EpochSampler, FrameLoader, PairDataset
    from vop.datasets.readers import load
    from vop.datasets.splits import with_validation
    from vop.datasets.types import Dataset, Split, Video
    from vop.datasets.validation import cache_dataset, check_dataset, readable_part

__all__ = [
    "Dataset",
    "EpochSampler",
    "FrameLoader",
    "FrameStore",
    "PairDataset",
    "Split",
    "Video",
    "cache_dataset",
    "check_dataset",
    "load",
    "readable_part",
    "with_validation",
]

# PyTorch and PyAV are imported only where a name that needs them is used.
_MODULES = {
    "Dataset": "vop.datasets.types",
    "EpochSampler": "vop.datasets.loading",
    "FrameStore": "vop.datasets.frames",
    "PairDataset": "vop.datasets.loading",
    "Split": "vop.datasets.types",
    "Video": "vop.datasets.types",
    "cache_dataset": "vop.datasets.validation",
    "check_dataset": "vop.datasets.validation",
    "FrameLoader": "vop.datasets.loading",
    "load": "vop.datasets.readers",
    "readable_part": "vop.datasets.validation",
    "with_validation": "vop.datasets.splits",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vop.datasets' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
