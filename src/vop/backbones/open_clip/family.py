"""open_clip's checkpoints: `open_clip_config.json` beside the weights, as its hub repositories have them.

Towers with layers that methods can reach are read into ours: open_clip's own vision and text transformers without
open_clip, and those of timm (SigLIP's ViT, EVA-02, Perception Encoder, MobileCLIP's ViT) with it, since their structure
stands in timm's code. Whatever else open_clip builds is a zero-shot encoder around its own model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.backbones.config_values import check_heads, check_patches, read_part, read_token_id, read_value
from vop.backbones.family import Family
from vop.backbones.files import converted_vocabulary, has_vocabulary
from vop.backbones.preprocessing import CLIP_MEAN, CLIP_STD, INTERPOLATIONS, Preprocessing, read_channels
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes
from vop.errors import UsageError, VopError
from vop.utils.parsing import read_json_object
from vop.video.resizing import Resizing

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.tokenizer import Tokenizer
    from vop.backbones.towers import Encoder

CONFIG = "open_clip_config.json"
MODES = {"shortest": "crop", "squash": "squash"}
CLEANING = {"lower": "openai", "whitespace": "fixed", "canonicalize": "fixed-canonicalize"}  # open_clip's names
_UNKNOWN_TO_US = ("tokenizer_mode", "language")  # options of open_clip's tokenizer that change the ids
PAD = 0  # open_clip fills short captions with it, whatever the vocabulary
# Options of a tower's configuration under which it is built as we know it; any other value is left to open_clip.
_PLAIN_VISION: dict[str, tuple[object, ...]] = {
    "attentional_pool": (False,),
    "pool_type": ("tok", "avg"),
    "block_type": (None, "default"),
    "pos_embed_type": ("learnable", "sin_cos_2d"),
}
_PLAIN_TEXT: dict[str, tuple[object, ...]] = {
    "hf_model_name": (None, ""),
    "embed_cls": (False,),
    "pool_type": ("argmax", "eos", "last", "first"),
    "block_type": (None, "default"),
    "proj_type": ("linear", "none", None),
}
_PLAIN_BOTH: dict[str, tuple[object, ...]] = {
    name: (False,)
    for name in ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
}


class OpenClipFamily(Family):
    title = "open_clip"
    methods = "all or zero-shot"
    weights = ("open_clip_model*.safetensors", "model*.safetensors", "open_clip_pytorch_model*.bin")

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        model = read_part(config, "model_cfg")
        if not model:
            raise ValueError("model_cfg is missing")
        vision, text = read_part(model, "vision_cfg"), read_part(model, "text_cfg")
        towers = _vision_sizes(vision, model), _text_sizes(text, model)
        embed_dim = read_value(model, "embed_dim", Sizes().embed_dim)
        loss = "infonce" if model.get("init_logit_bias") is None else "sigmoid"
        if towers[0] is None or towers[1] is None or "multimodal_cfg" in model:
            from vop.backbones.open_clip.encoder import zero_shot_sizes

            return zero_shot_sizes(model, embed_dim=embed_dim)
        return Sizes(vision=towers[0], text=towers[1], embed_dim=embed_dim, loss=loss)

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        from vop.backbones.open_clip.weights import from_open_clip

        return from_open_clip(state, sizes, source=source)

    def build_random(self, sizes: Sizes, config: Mapping[str, Any]) -> Encoder:
        if sizes.has_layers:
            return super().build_random(sizes, config)
        from vop.backbones.open_clip.encoder import OpenClipEncoder, build

        return OpenClipEncoder(sizes, build(config["model_cfg"]))

    def load(self, folder: Path, sizes: Sizes, *, stored_image_size: int) -> Encoder:
        if sizes.has_layers:
            return super().load(folder, sizes, stored_image_size=stored_image_size)
        from vop.backbones.open_clip.encoder import load_zero_shot

        return load_zero_shot(folder, sizes, patterns=self.weights)

    def read_preprocessing(self, folder: Path, sizes: Sizes) -> Preprocessing:
        values = _read_options(_read_config(folder), "preprocess_cfg", folder)
        mode, interpolation = values.get("resize_mode") or "shortest", values.get("interpolation") or "bicubic"
        if mode not in (*MODES,) or interpolation not in (*INTERPOLATIONS.values(), "random"):
            raise VopError(
                f"{folder / CONFIG}: resize_mode is {mode!r} and interpolation {interpolation!r}; supported are "
                f"{' and '.join(MODES)}, {' and '.join(INTERPOLATIONS.values())}"
            )
        return Preprocessing(
            resizing=Resizing(
                sizes.vision.image_size, MODES[mode], "bicubic" if interpolation == "random" else interpolation
            ),
            mean=read_channels(values, "mean", CLIP_MEAN, folder / CONFIG),
            std=read_channels(values, "std", CLIP_STD, folder / CONFIG),
        )

    def read_tokenizer(self, folder: Path, sizes: Sizes) -> Tokenizer | None:
        from vop.backbones.tokenizer import Tokenizer, pad_token

        text = read_part(read_part(_read_config(folder), "model_cfg"), "text_cfg")
        if text.get("hf_tokenizer_name"):
            if not has_vocabulary(folder):
                return None
            options = _read_options(text, "tokenizer_kwargs", folder)
            for name in _UNKNOWN_TO_US:
                if options.get(name):
                    raise VopError(
                        f"{folder / CONFIG}: {name} is {options[name]!r} in tokenizer_kwargs; token ids with it are "
                        "not supported: tokenize with open_clip, and call embed_tokens"
                    )
            kind = options.get("clean", "whitespace")
            return Tokenizer(
                folder,
                sizes.text,
                cleaning=CLEANING.get(str(kind), str(kind)),
                zero_end=read_value(options, "strip_sep_token", False),
                pad_token=pad_token(folder),
                checks_end=sizes.has_layers,
            )
        if has_vocabulary(folder):
            return Tokenizer(folder, sizes.text, pad_token_id=PAD, checks_end=sizes.has_layers)
        return _openai_tokenizer(folder, sizes.text, checks_end=sizes.has_layers)


def _read_config(folder: Path) -> Mapping[str, Any]:
    return read_json_object(folder / CONFIG, remedy="fetch the folder again")


def _read_options(part: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    """Return named values that are read only when preprocessing or tokenizer are."""
    try:
        return read_part(part, name)
    except ValueError as error:
        raise VopError(f"{folder / CONFIG}: {error}; fetch the folder again") from None


def _openai_tokenizer(folder: Path, sizes: TextSizes, *, checks_end: bool) -> Tokenizer:
    """The tokenizer of a folder without a vocabulary: open_clip's own, which is OpenAI's."""
    from vop.backbones.openai_vocabulary import FILE_NAME, write_tokenizer
    from vop.backbones.tokenizer import Tokenizer

    path = package_folder(f"the vocabulary of {folder}") / FILE_NAME
    with converted_vocabulary(folder) as converted:
        write_tokenizer(path, converted, vocab_size=sizes.vocab_size, positions=sizes.positions)
        return Tokenizer(converted, sizes, pad_token_id=PAD, checks_end=checks_end)


def package_folder(what: str) -> Path:
    """Return the folder of open_clip's package, without importing it.

    Raises:
        UsageError: it is not installed; the message says that `what` needs it.
    """
    from importlib.util import find_spec

    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise UsageError(f"{what} needs the library open_clip: pip install 'vop[open-clip]'")
    return Path(spec.origin).parent


def _is_plain(part: Mapping[str, Any], plain: dict[str, tuple[object, ...]]) -> bool:
    return all(part.get(name, allowed[0]) in allowed for name, allowed in (plain | _PLAIN_BOTH).items())


def _vision_sizes(part: Mapping[str, Any], model: Mapping[str, Any]) -> VisionSizes | None:
    """The vision tower, or None if its layers cannot be reached."""
    if part.get("timm_model_name"):
        from vop.backbones.open_clip.timm_towers import vision_sizes

        return vision_sizes(model)
    if not _is_plain(part, _PLAIN_VISION) or isinstance(part.get("layers"), list):  # a list is a ResNet's
        return None
    width, head_width = read_value(part, "width", 768), read_value(part, "head_width", 64)
    if width % head_width:
        raise ValueError(f"width is {width}, which a head_width of {head_width} does not divide")
    image_size, patch_size = read_value(part, "image_size", 224), read_value(part, "patch_size", 16)
    check_patches(image_size, patch_size)
    mean = part.get("pool_type") == "avg"
    return VisionSizes(
        width=width,
        layers=read_value(part, "layers", 12),
        heads=width // head_width,
        mlp_width=int(width * _ratio(part)),
        activation=_activation(part, model),
        norm_eps=_norm_eps(part),
        layer_scale=part.get("ls_init_value") is not None,
        image_size=image_size,
        patch_size=patch_size,
        pre_norm=not read_value(part, "no_ln_pre", False),
        readout="mean" if mean else "class",
        mean_norm=mean and read_value(part, "final_ln_after_pool", False),
    )


def _text_sizes(part: Mapping[str, Any], model: Mapping[str, Any]) -> TextSizes | None:
    """The text tower, or None if its layers cannot be reached."""
    if not _is_plain(part, _PLAIN_TEXT):
        return None
    width, heads = read_value(part, "width", 512), read_value(part, "heads", 8)
    check_heads(width, heads)
    vocab_size, pool = read_value(part, "vocab_size", 49408), part.get("pool_type", "argmax")
    causal = not read_value(part, "no_causal_mask", False)
    highest = vocab_size - 1  # open_clip's [EOS] in a vocabulary of OpenAI's form
    return TextSizes(
        width=width,
        layers=read_value(part, "layers", 12),
        heads=heads,
        mlp_width=int(width * _ratio(part)),
        activation=_activation(part, model),
        norm_eps=_norm_eps(part),
        layer_scale=part.get("ls_init_value") is not None,
        vocab_size=vocab_size,
        positions=read_value(part, "context_length", 77),
        marks=0 if pool == "last" else 1,
        causal=causal,
        readout={"argmax": "eos", "eos": "eos"}.get(pool, pool),
        eos_token_id=read_token_id(part, "eos_id", 2, vocab_size=vocab_size) if pool == "eos" else highest,
        fixed_length=not causal or pool == "last",
        projection=part.get("proj_type", "linear") == "linear",
        projection_bias=read_value(part, "proj_bias", False),
    )


def _ratio(part: Mapping[str, Any]) -> float:
    value = part.get("mlp_ratio", 4.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise ValueError(f"mlp_ratio is {value!r}; it must be a number above 0 and at most 100")
    return float(value)


def _activation(part: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if read_value(model, "quick_gelu", False):
        return "quick_gelu"
    return "gelu_pytorch_tanh" if read_part(part, "act_kwargs").get("approximate") == "tanh" else "gelu"


def _norm_eps(part: Mapping[str, Any]) -> float:
    return read_value(read_part(part, "norm_kwargs"), "eps", 1e-5)
