"""Whatever open_clip builds, as a zero-shot encoder: its layers are not ours, so no method reaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from vop.backbones.files import weight_files
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes
from vop.backbones.towers import Encoder
from vop.backbones.weights import check_shapes, check_size, read_weights
from vop.errors import UsageError, VopError
from vop.utils.parsing import read_json_object

_COUNTED = "text.transformer.embeddings.position_ids"  # 0, 1, 2, ..: older versions of transformers stored them


def build(model: Mapping[str, Any]) -> Any:
    """Build open_clip's model of a `model_cfg`, with weights drawn at random; no weights are fetched.

    For a text tower of `transformers`, its configuration is read from the hub or its cache.

    Raises:
        UsageError: open_clip is not installed.
        ValueError: open_clip cannot build it.
    """
    try:
        from open_clip.coca_model import CoCa
        from open_clip.model import CLIP, CustomTextCLIP
    except ImportError:
        raise UsageError(
            "this checkpoint needs the library open_clip, which builds its towers: pip install 'vop[open-clip]'"
        ) from None
    values = dict(model)
    custom = values.pop("custom_text", False)
    vision, text = dict(values.get("vision_cfg") or {}), dict(values.get("text_cfg") or {})
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = False
    kind = CoCa if "multimodal_cfg" in values else CustomTextCLIP if custom or text.get("hf_model_name") else CLIP
    try:
        return kind(**values | {"vision_cfg": vision, "text_cfg": text})
    except Exception as error:  # of any kind, for any value that open_clip does not expect
        raise ValueError(f"open_clip cannot build it ({type(error).__name__}: {error})") from error


def zero_shot_sizes(model: Mapping[str, Any], *, embed_dim: int) -> Sizes:
    """Read what preprocessing and tokenizer need from open_clip's model."""
    with torch.device("meta"):
        built = build(model)
    side = built.visual.image_size
    height, width = side if isinstance(side, tuple | list) else (side, side)
    if height != width:
        raise ValueError(f"image_size is {height} x {width}; only squares are supported")
    text = model.get("text_cfg") or {}
    vocab_size = built.text.vocab_size if text.get("hf_model_name") else text.get("vocab_size")
    none: dict[str, Any] = {"width": embed_dim, "layers": 0, "heads": 1, "mlp_width": 0}
    return Sizes(
        vision=VisionSizes(**none, image_size=height, patch_size=height, class_token=False),
        text=TextSizes(
            **none,
            vocab_size=int(vocab_size or 49408),
            positions=int(text.get("context_length") or 77),
            fixed_length=True,
        ),
        embed_dim=embed_dim,
        loss="infonce" if model.get("init_logit_bias") is None else "sigmoid",
    )


class OpenClipEncoder(Encoder):
    """open_clip's own model."""

    model: Any  # open_clip has no types

    def __init__(self, sizes: Sizes, model: nn.Module) -> None:
        super().__init__(sizes)
        self.model = model
        self.add_logit_scale()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: in training, batch norms would change their statistics, which a run does not save."""
        return super().train(False)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.model.encode_text(ids)

    def embed_frames(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels.flatten(0, 1).to(self.dtype)).unflatten(0, pixels.shape[:2])

    def compute_in(self, dtype: torch.dtype) -> None:
        super().compute_in(dtype)
        self.model.to(dtype)  # its buffers too


def load_zero_shot(folder: Path, sizes: Sizes, *, patterns: Sequence[str]) -> OpenClipEncoder:
    """Build open_clip's model and load its weights, in fp32.

    Raises:
        VopError: the weights are missing, damaged or of another model.
    """
    config = read_json_object(folder / "open_clip_config.json", remedy="fetch the folder again")
    try:
        model = build(config["model_cfg"])
    except ValueError as error:
        raise VopError(f"{folder}: {error}") from error
    files, wanted = weight_files(folder, patterns), model.state_dict()
    check_size(files, sum(tensor.numel() for tensor in wanted.values()), folder=folder)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in read_weights(files, folder=folder).items()
    }
    if _COUNTED not in wanted:
        state.pop(_COUNTED, None)
    check_shapes(state, wanted, folder)
    model.load_state_dict(state)
    encoder = OpenClipEncoder(sizes, model)
    encoder.log_logit_scale.data = model.logit_scale.detach().reshape(())
    if encoder.logit_bias is not None:
        encoder.logit_bias.data = model.logit_bias.detach().reshape(())
    return encoder.eval().requires_grad_(False)
