"""The sizes and the structure of a backbone, as plain values.

They are read from a folder's configuration and determine the towers, before any weight is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from vop.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TowerSizes:
    """The sizes of one transformer: `layers` blocks, each with `heads` attention heads, and the widths.

    Attributes:
        norm_first: whether a layer normalises the input of attention and MLP (CLIP), or the sum after each (BERT).
        gated: whether the MLP multiplies one activated linear map by another linear map (SwiGLU).
        inner_norms: whether attention and MLP have a normalisation before their last linear maps (EVA-02).
        layer_scale: whether the outputs of attention and MLP are scaled by a trained number per channel.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    norm_first: bool = True
    gated: bool = False
    inner_norms: bool = False
    layer_scale: bool = False


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions of the patches in a grid (EVA-02, Perception Encoder).

    Attributes:
        reference: rows and columns of the grid in pre-training. Other grids are scaled to it.
        offset: position of the first row and column.
        columns_first: whether the first half of the frequencies depends on the column instead of the row.
    """

    reference: int
    offset: float = 0.0
    columns_first: bool = False
    temperature: float = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Stem:
    """Convolutions that embed a patch, in place of one linear map (MobileCLIP's ViT).

    They do not overlap, so every patch is embedded by itself. Between two of them is the activation of the layers.

    Attributes:
        widths: channels of the output of each convolution; the last is the tower's width.
        strides: rows and columns that each convolution joins. Their product is the patch size.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class VisionSizes(TowerSizes):
    """The sizes of a vision transformer. The defaults are those of OpenAI's ViT-B/32.

    Attributes:
        image_size, patch_size: in pixels.
        class_token: whether there is a [CLS] token before the patches.
        pre_norm: whether the tokens are normalised before the first layer (CLIP's `ln_pre`).
        stem: the convolutions that embed a patch; None for one linear map.
        readout: how the last layer gives the image's embedding: "class" from the [CLS] token, "attention" by attention
            pooling of all tokens, "mean" by averaging the patches.
        mean_norm: whether the mean is normalised, and not the patches before it (CLIPA).
        pool_heads, pool_mlp_width: sizes of the attention pooling.
        projection: whether there is a linear map to the joint space.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    image_size: int = 224
    patch_size: int = 32
    class_token: bool = True
    pre_norm: bool = True
    patch_bias: bool = False
    stem: Stem | None = None
    rope: Rope | None = None
    readout: str = "class"
    mean_norm: bool = False
    pool_heads: int = 0
    pool_mlp_width: int = 0
    projection: bool = True
    projection_bias: bool = False

    @property
    def grid(self) -> int:
        """The number of rows, and of columns, of patches."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        return self.grid**2

    @property
    def summaries(self) -> int:
        """The number of tokens before the patches: 1 with a [CLS] token, else 0."""
        return int(self.class_token)


@dataclass(frozen=True, kw_only=True)
class TextSizes(TowerSizes):
    """The sizes of a text transformer. The defaults are those of OpenAI's ViT-B/32.

    Attributes:
        positions: maximum number of tokens, including marks.
        marks: number of tokens before the caption ([BOS] or [CLS]). Prompts are inserted after them.
        causal: whether a token attends only to itself and earlier tokens.
        readout: the token of the last layer that gives the text's embedding: "eos" (the first `eos_token_id`), "first"
            or "last".
        pad_token_id: the padding token, which is masked in attention. None if padding needs no mask: it is used as in
            training (SigLIP), or comes after the token that is read (a causal tower).
        fixed_length: whether captions are padded to all positions, as in training (SigLIP).
        embedding_norm: whether the embedded tokens are normalised before the first layer (BERT).
        final_norm: whether the output token is normalised before the projection.
    """

    width: int = 512
    layers: int = 12
    heads: int = 8
    mlp_width: int = 2048
    vocab_size: int = 49408
    positions: int = 77
    marks: int = 1
    causal: bool = True
    readout: str = "eos"
    eos_token_id: int = 49407
    pad_token_id: int | None = None
    fixed_length: bool = False
    embedding_norm: bool = False
    final_norm: bool = True
    projection: bool = True
    projection_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a backbone. The defaults are those of OpenAI's ViT-B/32.

    Attributes:
        embed_dim: width of the joint space.
        loss: the loss of its training, "infonce" or "sigmoid".
        num_frames: frames per video of a video encoder; None for an image encoder.
        fixed_num_frames: whether a video encoder takes no other number.
    """

    vision: VisionSizes = VisionSizes()
    text: TextSizes = TextSizes()
    embed_dim: int = 512
    loss: str = "infonce"
    num_frames: int | None = None
    fixed_num_frames: bool = False

    @property
    def has_layers(self) -> bool:
        """Whether methods can change the layers of both towers. Encoders without layers support only zero-shot."""
        return self.vision.layers > 0 and self.text.layers > 0

    def check_num_frames(self, num_frames: int) -> None:
        """Raise a UsageError if videos of `num_frames` frames cannot be encoded."""
        if self.fixed_num_frames and num_frames != self.num_frames:
            raise UsageError(f"num_frames is {num_frames}; this video encoder takes {self.num_frames}")

    def identity(self) -> dict[str, Any]:
        """Return the values for a library's fingerprint: those of every CLIP, and others that differ from CLIP's."""
        clip = {
            "vision": _tower_identity(self.vision, VisionSizes()),
            "text": _tower_identity(self.text, TextSizes()),
            "image_size": self.vision.image_size,
            "patch_size": self.vision.patch_size,
            "embed_dim": self.embed_dim,
            "vocab_size": self.text.vocab_size,
            "positions": self.text.positions,
            "eos_token_id": self.text.eos_token_id,
        }
        return clip | ({"num_frames": self.num_frames} if self.num_frames else {})


_ALWAYS = ("width", "layers", "heads", "mlp_width", "activation", "norm_eps")
_AT_THE_TOP = ("image_size", "patch_size", "vocab_size", "positions", "eos_token_id")


def _tower_identity(tower: TowerSizes, usual: TowerSizes) -> dict[str, Any]:
    values = asdict(tower)
    names = [
        field.name
        for field in fields(tower)
        if field.name in _ALWAYS
        or (field.name not in _AT_THE_TOP and getattr(tower, field.name) != getattr(usual, field.name))
    ]
    return {name: values[name] for name in names}


VIT_B_32 = Sizes()
VIT_B_16 = Sizes(vision=VisionSizes(patch_size=16))
VIT_L_14 = Sizes(
    vision=VisionSizes(width=1024, layers=24, heads=16, mlp_width=4096, patch_size=14),
    text=TextSizes(width=768, heads=12, mlp_width=3072),
    embed_dim=768,
)
