"""What a head is: a way to turn frame embeddings into a similarity, on top of any method.

Shapes: `t` texts, `v` or `b` videos, `f` frames, `e` the joint space.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.clip.config import ClipSizes
from vop.backbones.clip.model import Clip
from vop.errors import UsageError
from vop.methods.base import check_whole
from vop.video.clip import MAX_FRAMES


class Head(nn.Module):
    """meanP: nothing is trained. Every other head overrides a step of it.

        v = normalise(mean_j normalise(x_j)),    s(t, v) = normalise(t) . v

    A head's parameters are all trained and saved. It computes in float32, whatever dtype it is given. Keyword-only
    arguments of the constructor but `num_frames` are the head's settings.

    Source: VoP, section 3; CLIP4Clip's parameter-free calculator (arXiv 2104.08860) does the same.

    Attributes:
        settings: the settings' values, filled in by `vop.heads.create`.
        pairwise: whether a score needs both sides; then there is no embedding of a video by itself.
        scaled: whether CLIP's logit scale multiplies the scores in the loss.
    """

    settings: dict
    pairwise = False
    scaled = True

    def __init__(self, sizes: ClipSizes, *, num_frames: int = 12) -> None:
        super().__init__()
        check_whole("num_frames", num_frames, at_least=1, at_most=MAX_FRAMES)

    def start_from(self, clip: Clip) -> None:
        """Initialises from the backbone what the head's source initialises so; here nothing."""

    def pool(self, frames: Tensor) -> Tensor:
        """Raw frame embeddings (b, f, e) to unit video embeddings (b, e), float32."""
        return F.normalize(F.normalize(frames.float(), dim=-1).mean(dim=1), dim=-1)

    def score(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Raw text (t, e) and frame embeddings (v, f, e) to scores (t, v), float32: here the cosine."""
        return F.normalize(texts.float(), dim=-1) @ self.pool(frames).T

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        """Parameters that have an entry for every frame position, each with the axis of those entries."""
        return []


class PairwiseHead(Head):
    """A head that looks at a text and a video together: it overrides `score`."""

    pairwise = True

    def pair_floats(self, frames: Tensor) -> int:
        """About how many numbers `score` holds at a time for each pair of a text and one of the videos (v, f, e)."""
        return 3 * frames.shape[2]  # a pooled video or two, and their product

    def pool(self, frames: Tensor) -> Tensor:
        raise UsageError(
            f"the head {type(self).__name__} has no embedding of a video by itself, only scores of texts with videos: "
            "call score(texts, frames), or take a head that is not pairwise"
        )
