"""The base class of methods. A method embeds texts and frames with a backbone and defines the trained parameters.

Shapes: `b` videos or texts, `f` frames, `n` tokens, `d` a tower's width, `e` the joint space.
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

ACROSS_FRAMES, WITHIN_FRAMES, NOWHERE = "across frames", "within frames", "nowhere"  # see `Method.token_merging`


class Method(nn.Module):
    """Zero-shot CLIP, which has no trainable parameters. Other methods override parts of it.

    The trained parameters are the method's own and those of the backbone that `attach` unfreezes. A run saves them. The
    settings are the keyword-only arguments of the constructor.

    Activations have the backbone's dtype, float32 or bfloat16. Trained parameters are float32. PyTorch's own modules in
    a method (`nn.Linear`, `nn.LayerNorm`, `nn.LSTM`, ...) compute in float32 and return the dtype of their input. Cast
    other parameters where they meet an activation: `self.weight.to(x.dtype)`. The input of `pool` is float32.

    Attributes:
        settings: the values of the settings, set by `vop.methods.create`.
        max_tokens: the number of positions of a caption, including [BOS] and [EOS].
        learning_rate: the default for training. Prompts have a good rate for emoji-motion with `mini`
            (docs/results.md); methods that train backbone weights have a lower one, chosen for OpenAI's CLIP.
        changes_backbone: whether `attach` trains weights of the backbone or adds modules to it, so that other models
            cannot share it. True by default if a class overrides `attach`.
        needs_layers: whether the method uses the layers of the towers. Other methods call only `clip.embed_tokens` and
            `clip.embed_frames`, and work with every backbone, even without layers.
        pools_itself: whether `pool` is not the mean of frames, so that no other head can be used. True by default if a
            class overrides `pool`.
        token_merging: where the method can merge patches (`vop.backbones.merging`): "across frames" and within them,
            which needs no more than `VisionTower.forward`, only "within frames", or "nowhere". The last is the default
            if a class overrides `embed_frames`.
        compiles: whether the layers can be compiled (`vop.load(compile=True)`). False for a method that changes the
            number of tokens from layer to layer, because almost every layer would then be compiled anew.
    """

    settings: dict[str, Any]
    needs_layers: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 1e-2
    changes_backbone: ClassVar[bool] = False
    pools_itself: ClassVar[bool] = False
    token_merging: ClassVar[str] = ACROSS_FRAMES
    compiles: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for method, declaration in (("attach", "changes_backbone"), ("pool", "pools_itself")):
            if method in vars(cls) and declaration not in vars(cls):
                setattr(cls, declaration, True)
        if "embed_frames" in vars(cls) and "token_merging" not in vars(cls):
            cls.token_merging = NOWHERE

    def __init__(self, sizes: Sizes, *, num_frames: int = 12) -> None:
        super().__init__()
        if self.needs_layers and not sizes.has_layers:
            raise UsageError(
                f"the method {type(self).__name__} needs layers, and those of this backbone cannot be reached: use "
                "zero-shot, which needs no training (`vop evaluate`, `vop index`), or a backbone with all methods, "
                "such as open_clip's ViT, EVA02-B or -L, PE-Core or SigLIP 2 (`vop backbones` lists them)"
            )
        check_whole("num_frames", num_frames, at_least=1, at_most=MAX_FRAMES)
        sizes.check_num_frames(num_frames)
        self.num_frames = num_frames
        self.max_tokens = sizes.text.positions

    def attach(self, clip: CLIP) -> None:
        """Unfreeze parameters of the backbone, or add modules to it. By default do nothing."""

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        """Embed token ids (b, n): text embeddings (b, e)."""
        return clip.embed_tokens(ids)

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        """Embed normalised pixels (b, f, 3, h, w): frame embeddings (b, f, e)."""
        return clip.embed_frames(pixels)

    def pool(self, frames: Tensor) -> Tensor:
        """Pool frame embeddings (b, f, e) to video embeddings (b, e): normalise, mean, normalise (paper, section 3)."""
        return F.normalize(F.normalize(frames, dim=-1).mean(dim=1), dim=-1)

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        """Return the parameters with an entry per frame position, and the axis of the entries.

        They are interpolated when the number of frames changes.
        """
        return []

    def table_lengths(self, num_frames: int) -> list[int]:
        """Return how many entries each of `frame_tables` has for videos of `num_frames` frames; by default one a frame.

        Raises:
            UsageError: the method cannot take so many frames.
        """
        return [num_frames] * len(self.frame_tables())

    def uncounted_parameters(self, clip: CLIP) -> int:
        """Return the number of trainable parameters that the paper does not count, including those in the backbone."""
        return 0
