"""The base class of heads. A head computes the similarity of texts and videos from frame embeddings of any method.

Shapes: `t` texts, `v` or `b` videos, `f` frames, `e` the joint space.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP
from vop.errors import UsageError
from vop.utils.checks import check_whole
from vop.video.clip import MAX_FRAMES


class Head(nn.Module):
    """The head meanP, which has no trainable parameters. Other heads override parts of it.

        v = normalise(mean_j normalise(x_j)),    s(t, v) = normalise(t) . v

    All parameters of a head are trained and saved. It computes in float32 for inputs of any dtype. Its settings are the
    keyword-only arguments of the constructor except `num_frames`.

    Source: VoP, section 3. CLIP4Clip's parameter-free calculator (arXiv 2104.08860) is the same.

    Attributes:
        settings: the values of the settings, set by `vop.heads.create`.
        pairwise: whether the head scores a text and a video together, without separate embeddings.
        scaled: whether the loss multiplies the scores by CLIP's logit scale.
    """

    settings: dict[str, Any]
    pairwise: ClassVar[bool] = False
    scaled: ClassVar[bool] = True

    def __init__(self, sizes: Sizes, *, num_frames: int = 12) -> None:
        super().__init__()
        check_whole("num_frames", num_frames, at_least=1, at_most=MAX_FRAMES)

    def start_from(self, clip: CLIP) -> None:
        """Initialise parameters from the backbone, as the head's paper does. By default do nothing."""

    def pool(self, frames: Tensor) -> Tensor:
        """Pool raw frame embeddings (b, f, e) to unit video embeddings (b, e), float32."""
        return F.normalize(F.normalize(frames.float(), dim=-1).mean(dim=1), dim=-1)

    def score(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Score raw text (t, e) and frame embeddings (v, f, e): (t, v), float32. By default return cosines."""
        return F.normalize(texts.float(), dim=-1) @ self.pool(frames).T

    def pair_floats(self, frames: Tensor) -> int:
        """Return the number of floats that `score` needs per text and video, for videos (v, f, e)."""
        return 3 * frames.shape[2]  # up to two pooled videos, and their product

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        """Return the parameters with an entry per frame position, and the axis of the entries."""
        return []


class PairwiseHead(Head):
    """A head that scores a text and a video together. It overrides `score`."""

    pairwise = True

    def pool(self, frames: Tensor) -> Tensor:
        raise UsageError(
            f"the head {type(self).__name__} is pairwise and has no separate video embeddings: "
            "call score(texts, frames), or use a head that is not pairwise"
        )
