"""vop: text-video retrieval by prompt tuning of a frozen CLIP.

model = vop.load("runs/cooking")                         # a run, a CLIP folder, a hub id, or "mini"
library = vop.Library.create("library", model="mini")    # or Library.open("library")
library.index(["holidays/"])
moments = library.search("a dog runs", k=5)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vop.version import VERSION

if TYPE_CHECKING:
    from vop.errors import DataError, FileFailure, UsageError, VideoError, VopError
    from vop.evaluation.job import evaluate, evaluate_embeddings
    from vop.evaluation.metrics import retrieval_metrics
    from vop.evaluation.mteb_model import MtebModel
    from vop.models.model import TextVideoModel
    from vop.models.pretrained import load
    from vop.search.library import Library
    from vop.search.manifest import SegmentationConfig
    from vop.search.moments import evaluate_moments
    from vop.search.queries import Sentence
    from vop.search.results import LibraryStatus, Moment
    from vop.training.job import train
    from vop.video.frames import read_frames
    from vop.video.probe import VideoInfo, probe

__version__ = VERSION
__all__ = [
    "DataError",
    "FileFailure",
    "Library",
    "LibraryStatus",
    "Moment",
    "MtebModel",
    "SegmentationConfig",
    "Sentence",
    "TextVideoModel",
    "UsageError",
    "VideoError",
    "VideoInfo",
    "VopError",
    "evaluate",
    "evaluate_embeddings",
    "evaluate_moments",
    "load",
    "probe",
    "read_frames",
    "retrieval_metrics",
    "train",
]

# PyTorch takes seconds to import, so a public name is imported when it is first used.
_HOMES = {
    "DataError": "vop.errors",
    "FileFailure": "vop.errors",
    "Library": "vop.search.library",
    "LibraryStatus": "vop.search.results",
    "Moment": "vop.search.results",
    "MtebModel": "vop.evaluation.mteb_model",
    "SegmentationConfig": "vop.search.manifest",
    "Sentence": "vop.search.queries",
    "TextVideoModel": "vop.models.model",
    "UsageError": "vop.errors",
    "VideoError": "vop.errors",
    "VideoInfo": "vop.video.probe",
    "VopError": "vop.errors",
    "evaluate": "vop.evaluation.job",
    "evaluate_embeddings": "vop.evaluation.job",
    "evaluate_moments": "vop.search.moments",
    "load": "vop.models.pretrained",
    "probe": "vop.video.probe",
    "read_frames": "vop.video.frames",
    "retrieval_metrics": "vop.evaluation.metrics",
    "train": "vop.training.job",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vop' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
