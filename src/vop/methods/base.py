"""What a method is: a way to embed texts and frames with a CLIP, and what of both is trained.

Shapes: `b` videos or texts, `f` frames, `n` tokens, `d` a tower's width, `e` the joint space.
"""

from __future__ import annotations

import reprlib

import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.clip.config import ClipSizes
from vop.backbones.clip.model import Clip
from vop.errors import UsageError
from vop.utils.text import count
from vop.video.clip import MAX_FRAMES

MOST = 10_000  # of anything that a setting counts


class Method(nn.Module):
    """Zero-shot CLIP: nothing is trained. Every other method overrides a step of it.

    A method's own parameters are what is trained and saved, and those of the backbone that `attach` makes trainable.
    Keyword-only arguments of the constructor are the method's settings.

    Attributes:
        settings: the settings' values, filled in by `vop.methods.create`.
        max_tokens: positions of a caption, [BOS] and [EOS] included.
        learning_rate: of a recipe that names none. Prompts take what was good on emoji-motion with `mini`
            (docs/results.md), weights of the backbone less than that, with OpenAI's CLIP in mind.
    """

    settings: dict
    learning_rate = 1e-2

    def __init__(self, sizes: ClipSizes, *, num_frames: int = 12) -> None:
        super().__init__()
        check_whole("num_frames", num_frames, at_least=1, at_most=MAX_FRAMES)
        self.num_frames = num_frames
        self.max_tokens = sizes.positions

    def attach(self, clip: Clip) -> None:
        """Makes parameters of the frozen backbone trainable, or puts modules into it; by default neither."""

    def embed_tokens(self, clip: Clip, ids: Tensor) -> Tensor:
        """Token ids (b, n) to text embeddings (b, e)."""
        return clip.text(ids)

    def embed_frames(self, clip: Clip, pixels: Tensor) -> Tensor:
        """Normalised pixels (b, f, 3, h, w) to frame embeddings (b, f, e)."""
        return clip.vision(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])

    def pool(self, frames: Tensor) -> Tensor:
        """Frame embeddings (b, f, e) to video embeddings (b, e): normalise, mean, normalise (paper, section 3)."""
        return F.normalize(F.normalize(frames, dim=-1).mean(dim=1), dim=-1)

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        """Parameters with an entry for every frame position, and the axis along which they have it.

        They are interpolated when a trained method is to take another number of frames.
        """
        return []

    def uncounted_parameters(self, clip: Clip) -> int:
        """How many trainable parameters, of the backbone that it is attached to too, the paper's count leaves out."""
        return 0


def check_whole(setting: str, value: object, *, at_least: int, at_most: int = MOST) -> None:
    """Raises a UsageError if a setting's value is not a whole number from `at_least` to `at_most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise UsageError(f"{setting} is {reprlib.repr(value)}; it is a whole number, {at_least} or more")
    if value > at_most:
        raise UsageError(f"{setting} is {value:,}; it is a whole number from {at_least} to {at_most:,}")


def check_frames(got: int, trained: int) -> None:
    """Raises a UsageError if a video has another number of frames than there are positions."""
    if got != trained:
        raise UsageError(
            f"{count('frame', got)} a video; this model takes num_frames={trained}: pass as many, "
            "or open it with vop.load(…, num_frames=…)"
        )
