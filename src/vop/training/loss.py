"""Symmetric InfoNCE over a batch (paper, section 3.1), with one or more captions per video.

Shapes: `t` captions, `v` videos.
"""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_loss(logits: Tensor, text_rows: Tensor, video_ids: Tensor) -> Tensor:
    """Return the cross-entropy from text to video and from video to text, averaged over the pairs.

    A pair is a caption and the row of the video that it was drawn with. Its denominator holds the pair itself and
    negatives, but no other captions or rows of the same video. With several captions per video, each of them is a
    separate positive (multi-positive InfoNCE). With one caption, this is the paper's loss.

    Args:
        logits: (t, v), the scores times the inverse temperature.
        text_rows: (t,), the row in `video_ids` of each caption's video.
        video_ids: (v,), the video of each row. A video may have several rows.
    """
    own = logits.take_along_dim(text_rows[:, None], dim=1)[:, 0]  # (t,)
    same_video = video_ids[text_rows][:, None] == video_ids[None, :]
    lowest = torch.finfo(logits.dtype).min  # -inf would give NaN gradients in rows without negatives
    negatives = logits.masked_fill(same_video, lowest)
    by_text, by_video = negatives.logsumexp(dim=1), negatives.logsumexp(dim=0)[text_rows]
    return (torch.logaddexp(by_text, own) + torch.logaddexp(by_video, own) - 2 * own).mean() / 2
