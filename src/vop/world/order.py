"""Order accuracy: can a model tell a video from the same video backwards?"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def order_accuracy(similarity, twins: Sequence[int | None]) -> float:
    """Percent of videos with a twin whose own caption is nearer to them than to the twin; chance is 50.

    Ties count as wrong, so a model that is blind to time gets 0 where its scores are exactly equal.

    Args:
        similarity: (n, n), texts in rows, videos in columns; text i describes video i.
        twins: for each video the index of its twin, or None.

    Raises:
        ValueError: the sizes do not fit, or no video has a twin.
    """
    similarity = torch.as_tensor(similarity)
    if similarity.shape != (len(twins), len(twins)):
        raise ValueError(f"similarity is {tuple(similarity.shape)} for {len(twins)} videos; it has to be square")
    own = [i for i, twin in enumerate(twins) if twin is not None]
    if not own:
        raise ValueError(f"none of the {len(twins)} videos has a twin")
    other = [twins[i] for i in own]
    right = similarity[own, own] > similarity[own, other]
    return 100 * right.double().mean().item()
