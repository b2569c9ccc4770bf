"""Symmetric InfoNCE over a batch (paper, section 3.1).

Shapes: `n` pairs, `e` the joint space.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(texts: Tensor, videos: Tensor, video_ids: Tensor, *, logit_scale: float) -> Tensor:
    """Cross-entropy from text to video and from video to text, averaged.

    Args:
        texts, videos: unit embeddings (n, e); pair i is row i of both.
        video_ids: (n,) which video each pair is of. Another pair of the same video is no negative.
        logit_scale: the inverse temperature.
    """
    logits = logit_scale * texts @ videos.T
    same_video = video_ids[:, None] == video_ids[None, :]
    same_video.fill_diagonal_(False)
    logits = logits.masked_fill(same_video, float("-inf"))
    pairs = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
