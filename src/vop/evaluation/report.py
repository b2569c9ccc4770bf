"""What an evaluation found. `vop.evaluation.tables` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vop.errors import FileFailure, UsageError
from vop.evaluation.confidence import Confidence, QueryRanks, bootstrap_intervals
from vop.evaluation.metrics import RetrievalMetrics

# How the evaluated weights were chosen; "best on test" is not a fair protocol; its name says so.
SELECTIONS = ("validation-selected", "last", "untuned", "best on test", "untrained")


@dataclass(frozen=True)
class Rescored:
    """Metrics after a rescoring, and its settings; never the headline."""

    metrics: RetrievalMetrics
    settings: Mapping[str, float]


@dataclass(frozen=True)
class AmbiguousCaptions:
    """Captions that describe several videos of the gallery word for word, so that no model can rank them all right.

    Attributes:
        texts: how many of the ranked texts they are.
        t2v_r1: R@1 in percent of the other texts; None if there are none.
        v2t_r1: R@1 in percent of the videos without such a caption; None if there are none.
    """

    texts: int
    t2v_r1: float | None
    v2t_r1: float | None

    @classmethod
    def among(cls, captions: Sequence[str], targets: Sequence[int], metrics: RetrievalMetrics) -> AmbiguousCaptions:
        """Counts them. Captions that differ in case and white space only are the same to CLIP's tokenizer."""
        videos: dict[str, set[int]] = {}
        plain = [" ".join(caption.lower().split()) for caption in captions]
        for caption, target in zip(plain, targets, strict=True):
            videos.setdefault(caption, set()).add(target)
        is_ambiguous = np.array([len(videos[caption]) > 1 for caption in plain])
        queried = np.unique(targets)
        is_touched = np.isin(queried, np.asarray(targets)[is_ambiguous])
        return cls(
            int(is_ambiguous.sum()),
            _first_places(metrics.t2v.ranks[~is_ambiguous]),
            _first_places(metrics.v2t.ranks[~is_touched]),
        )


def _first_places(ranks: NDArray[np.int64]) -> float | None:
    return 100.0 * float(np.mean(ranks == 1)) if len(ranks) else None


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """What only the caller of an evaluation knows of the model and the data; the fields are `EvaluationReport`'s."""

    method: str = ""
    data: str = ""
    selection: str | None = None
    epoch: int | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    made_with: Mapping[str, str] = field(default_factory=dict)
    trained_with: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationReport:
    """One model on one split.

    Attributes:
        method, data, split: names.
        metrics: the headline numbers, both directions.
        rescored: by name (`dual softmax`, `qb-norm`), beside the headline.
        skipped: the videos that could not be read.
        listed_videos, listed_texts: what the split lists; `metrics` counts what is left of it.
        selection: one of `SELECTIONS`, or None if nobody said.
        epoch, seed: of the evaluated weights, from 1 and as trained; None if they do not apply.
        notes: what a reader should know besides, such as why a rescoring is missing.
        settings: more facts for programs (backbone, number of frames, …).
        fingerprint: of what was ranked (`Split.fingerprint`).
        targets: the index of each ranked text's video; None if text i belongs to video i.
        ambiguous: captions that several videos share; None where nobody counted them.
        made_with: the precision of the evaluation, the versions of vop and its libraries, and vop's commit if known.
        trained_with: the same of the model's training, as far as its card says.
    """

    method: str
    data: str
    split: str
    metrics: RetrievalMetrics
    listed_videos: int
    listed_texts: int
    rescored: Mapping[str, Rescored] = field(default_factory=dict)
    skipped: tuple[FileFailure, ...] = ()
    selection: str | None = None
    epoch: int | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    fingerprint: str = ""
    targets: tuple[int, ...] | None = field(default=None, repr=False)
    ambiguous: AmbiguousCaptions | None = None
    made_with: Mapping[str, str] = field(default_factory=dict)
    trained_with: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.selection is not None and self.selection not in SELECTIONS:
            raise UsageError(f"selection {self.selection!r} is not allowed: give one of {', '.join(SELECTIONS)}")

    @property
    def gallery_size(self) -> int:
        """How many videos every text was ranked against."""
        return self.metrics.videos

    @cached_property
    def ranks(self) -> QueryRanks:
        """Every query's rank; what `paired_test` takes."""
        return QueryRanks(
            self.metrics.t2v.ranks,
            self.metrics.v2t.ranks,
            np.arange(self.metrics.texts) if self.targets is None else np.asarray(self.targets),
            fingerprint=self.fingerprint,
            tie_rule=self.metrics.tie_rule,
            name=self.method,
        )

    @cached_property
    def confidence(self) -> Confidence:
        """Intervals of the headline recalls."""
        return bootstrap_intervals(self.ranks)

    def to_dict(self) -> dict[str, Any]:
        """The metrics at the top level, and everything else beside them; plain types, ready for JSON."""
        return {
            **self.metrics.to_dict(),
            "rsum": self.metrics.rsum,
            "confidence": self.confidence.to_dict(),
            "method": self.method,
            "data": self.data,
            "split": self.split,
            "gallery_size": self.gallery_size,
            "listed_videos": self.listed_videos,
            "listed_texts": self.listed_texts,
            "rescored": {
                name: {
                    "t2v": other.metrics.t2v.to_dict(),
                    "v2t": other.metrics.v2t.to_dict(),
                    "settings": dict(other.settings),
                }
                for name, other in self.rescored.items()
            },
            "skipped": [{"id": v.id, "path": v.path, "reason": v.reason} for v in self.skipped],
            "selection": self.selection,
            "epoch": self.epoch,
            "seed": self.seed,
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "ambiguous": asdict(self.ambiguous) if self.ambiguous else None,
            "made_with": dict(self.made_with),
            "trained_with": dict(self.trained_with),
            "fingerprint": self.fingerprint,
            "ranks": self.ranks.to_dict(),
        }
