"""The losses over a batch, of one caption for each video or of several.

InfoNCE is VoP's and CLIP's (paper, section 3.1), the sigmoid loss is SigLIP's. In both, a pair is a caption and the row
of the video that it was drawn with. All pairs are positives, and all captions and rows of other videos negatives;
other captions and other rows of the pair's video are neither.

Shapes: `t` captions, `v` rows of videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vop.errors import UsageError
from vop.heads import APART
from vop.models.model import shortened
from vop.training.recipe import AUTO, Recipe

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, text_rows and video_ids


def contrastive_loss(logits: Tensor, text_rows: Tensor, video_ids: Tensor) -> Tensor:
    """Return the cross-entropy from text to video and from video to text, averaged over the pairs.

    The denominator of a pair holds the pair itself and its negatives. With several captions per video, each of them is
    a separate positive (multi-positive InfoNCE). With one caption, this is the paper's loss.

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


def sigmoid_loss(logits: Tensor, text_rows: Tensor, video_ids: Tensor) -> Tensor:
    """Return the loss of SigLIP (arXiv 2303.15343): the sum over the rows, averaged over the captions, of

        -log sigmoid(z (scale t . v + bias)),  z = 1 for a pair, -1 for a negative

    Args:
        logits, text_rows, video_ids: as of `contrastive_loss`, with the bias in the logits.
    """
    rows = torch.arange(len(video_ids), device=video_ids.device)
    is_pair = text_rows[:, None] == rows[None, :]  # (t, v)
    same_video = video_ids[text_rows][:, None] == video_ids[None, :]
    each = F.softplus(torch.where(is_pair, -logits, logits))
    return each.masked_fill(same_video & ~is_pair, 0).sum(dim=1).mean()


def matryoshka_loss(
    loss: Callable[[Tensor, Tensor], Tensor], texts: Tensor, videos: Tensor, *, dimensions: Sequence[int]
) -> Tensor:
    """Return the mean of a loss for whole embeddings and for their first d dimensions, for every d of `dimensions`.

        (loss(t, v) + sum_d loss(t_d, v_d)) / (1 + number of d),  x_d = normalise(x_1 .. x_d)

    A model that is trained with it can be used with embeddings of these lengths. All losses have the same weight.

    Source: Kusupati et al., "Matryoshka Representation Learning" (NeurIPS 2022, arXiv 2205.13147).

    Args:
        loss: of unit embeddings (t, e) and (v, e).
        texts, videos: unit embeddings, (t, e) and (v, e).
    """
    shorter = [loss(shortened(texts, d), shortened(videos, d)) for d in dimensions]
    return torch.stack([loss(texts, videos), *shorter]).mean()


def check_matryoshka(model: TextVideoModel, recipe: Recipe) -> None:
    """Raise a UsageError if a recipe asks for shorter embeddings than a model can be trained for."""
    if not recipe.matryoshka:
        return
    if model.pairwise:
        raise UsageError(
            f"matryoshka is {list(recipe.matryoshka)}; the head {model.head_name} scores a text and a video together, "
            f"so there are no embeddings to shorten: train with {' or '.join(APART)}, or leave out matryoshka"
        )
    whole = model.backbone.sizes.embed_dim
    if recipe.matryoshka[-1] >= whole:
        raise UsageError(
            f"matryoshka is {list(recipe.matryoshka)}; embeddings of {model.backbone.name} have {whole} dimensions: "
            "give smaller numbers"
        )


LOSSES: dict[str, Loss] = {"infonce": contrastive_loss, "sigmoid": sigmoid_loss}


def loss_of(model: TextVideoModel, recipe: Recipe) -> str:
    """Return the name of the loss of a training.

    Raises:
        UsageError: the recipe asks for the sigmoid loss, and the logits have no bias.
    """
    own = model.backbone.sizes.loss
    if recipe.loss == "sigmoid" and model.clip.logit_bias is None and model.head.scaled:
        raise UsageError(
            f"loss is 'sigmoid', which needs a logit bias; {model.backbone.name} was trained with {own!r}, without a "
            "bias: use this loss, or a backbone such as SigLIP"
        )
    return own if recipe.loss == AUTO else recipe.loss
