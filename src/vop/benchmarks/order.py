"""Order accuracy: can a model tell a video from the same video backwards?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vop.benchmarks.rendering import Metadata, load_metadata, twin_indices
from vop.datasets.types import Split


def order_accuracy(similarity: torch.Tensor | np.ndarray, twins: Sequence[int | None]) -> float:
    """Return the percentage of videos whose own caption scores higher with them than with their twin; chance is 50.

    Videos without a twin do not count. Ties count as wrong, so a model that ignores time gets 0 if its scores are
    exactly equal.

    Args:
        similarity: (n, n), texts in rows, videos in columns; text i describes video i.
        twins: for each video the index of its twin, or None.

    Raises:
        ValueError: the shape of `similarity` is wrong, or no video has a twin.
    """
    similarity = torch.as_tensor(similarity)
    if similarity.shape != (len(twins), len(twins)):
        raise ValueError(f"similarity has shape {tuple(similarity.shape)}; for {len(twins)} videos it must be square")
    pairs = [(own, twin) for own, twin in enumerate(twins) if twin is not None]
    if not pairs:
        raise ValueError(f"none of the {len(twins)} videos has a twin")
    own, other = (list(side) for side in zip(*pairs, strict=True))
    right = similarity[own, own] > similarity[own, other]
    return _percent(right)


def _percent(right: torch.Tensor) -> float:
    return 100 * float(right.double().mean())


def measure(similarity: torch.Tensor, split: Split) -> dict[str, Any]:
    """Return `{"extras": {"order"}, "kinds": {kind: {"videos", "t2v_r1", "order"}}}`: order accuracy, also by kind.

    Videos with things that training never shows count for their kind and, together, as "unseen things".

    Args:
        similarity: (n, n), for the readable videos of a split of a built-in benchmark.
        split: these videos, each with one caption.
    """
    metadata = load_metadata("the benchmark", split.videos[0].path.parent.parent)
    twins = twin_indices([video.id for video in split.videos], metadata)
    own = similarity.diagonal()[:, None]
    first = (similarity >= own).sum(dim=1) == 1  # pessimistic, as in ranks: ties count as wrong
    by_kind: dict[str, dict[str, Any]] = {}
    for kind, rows in _rows_by_kind([metadata[video.id] for video in split.videos]).items():
        members = set(rows)
        paired = [twin if row in members and twin in members else None for row, twin in enumerate(twins)]
        by_kind[kind] = {
            "videos": len(rows),
            "t2v_r1": _percent(first[rows]),
            "order": order_accuracy(similarity, paired) if any(twin is not None for twin in paired) else None,
        }
    extras = {"order": order_accuracy(similarity, twins)} if any(twin is not None for twin in twins) else {}
    return {"extras": extras, "kinds": by_kind}


def _rows_by_kind(metadata: Sequence[Metadata]) -> dict[str, list[int]]:
    kinds = sorted({facts.kind for facts in metadata})
    rows = {kind: [row for row, facts in enumerate(metadata) if facts.kind == kind] for kind in kinds}
    unseen = [row for row, facts in enumerate(metadata) if facts.unseen]
    return rows | ({"unseen things": unseen} if unseen else {})
