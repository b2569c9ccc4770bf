"""vop: text-video retrieval by prompt tuning of a frozen CLIP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vop.version import VERSION

if TYPE_CHECKING:
    from vop.evaluation.metrics import retrieval_metrics
    from vop.models.model import TextVideoModel
    from vop.models.pretrained import load
    from vop.video.frames import read_frames
    from vop.video.probe import VideoInfo, probe

__version__ = VERSION
__all__ = ["TextVideoModel", "VideoInfo", "load", "probe", "read_frames", "retrieval_metrics"]

# PyTorch takes seconds to import, so a public name is imported when it is first used.
_HOMES = {
    "TextVideoModel": "vop.models.model",
    "VideoInfo": "vop.video.probe",
    "load": "vop.models.pretrained",
    "probe": "vop.video.probe",
    "read_frames": "vop.video.frames",
    "retrieval_metrics": "vop.evaluation.metrics",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'vop' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
