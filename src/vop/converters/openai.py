"""Convert OpenAI's CLIP files (`ViT-B-32.pt` and others) to ordinary `transformers` CLIP folders.

The number of attention heads and the activation cannot be read from tensors. They are known for OpenAI's own files.
Other models have tensors with the same names and often the same shapes (such as open_clip's LAION models, with another
activation). For those the caller passes both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from vop.backbones.clip.weights import from_transformers
from vop.backbones.openai_vocabulary import find_vocabulary, write_tokenizer
from vop.backbones.preprocessing import FILE, preprocessor_config
from vop.backbones.sizes import VIT_B_16, VIT_B_32, VIT_L_14, Sizes, TextSizes, TowerSizes, VisionSizes
from vop.backbones.towers import CLIP
from vop.converters.checkpoint import read_tensors
from vop.converters.folder import check_new_folder, new_folder
from vop.errors import UsageError, VopError, unknown_name
from vop.utils.files import atomic_write, expand
from vop.utils.text import count

if TYPE_CHECKING:
    from transformers import CLIPConfig

Tower = TypeVar("Tower", bound=TowerSizes)
HEAD_WIDTH = 64  # of an attention head in every CLIP that OpenAI's code builds; files do not contain it
ACTIVATIONS = {"quick-gelu": "quick_gelu", "gelu": "gelu"}
OWN = {
    "ViT-B/32": VIT_B_32,
    "ViT-B/16": VIT_B_16,
    "ViT-L/14": VIT_L_14,
    "ViT-L/14@336px": replace(VIT_L_14, vision=replace(VIT_L_14.vision, image_size=336)),
}
# Numbers beside the weights in OpenAI's archives. Files of other projects lack them.
_MARKS = ("input_resolution", "context_length", "vocab_size")

_TOP = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_TOWERS = {"visual.transformer": "vision_model", "transformer": "text_model"}
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def import_openai(
    file: str | Path,
    out: str | Path,
    *,
    vocabulary: str | Path | None = None,
    heads: int | None = None,
    text_heads: int | None = None,
    activation: str | None = None,
) -> Path:
    """Write OpenAI's CLIP file as a `transformers` CLIP folder. `find_backbone(out)` opens it.

    Args:
        file: a TorchScript archive or a state dict with OpenAI's names. Nothing in it is executed.
        out: a folder that does not exist yet or is empty. It is written atomically.
        vocabulary: OpenAI's `bpe_simple_vocab_16e6.txt.gz`; by default the one beside `file`. Without it, the folder
            has no tokenizer, and the model takes only token ids.
        heads, text_heads: the numbers of attention heads in the vision and in the text tower.
        activation: the activation in MLPs, "quick-gelu" or "gelu". These three arguments are known for OpenAI's own
            files, and required for all others.

    Returns:
        `out`.

    Raises:
        UsageError: `file` or `vocabulary` does not exist, or `out` already exists.
        VopError: the file is damaged or not a ViT CLIP, or it is not one of OpenAI's own and the heads and the
            activation are not given. The message names the cause.
    """
    file, out = expand(file), expand(out)
    check_new_folder(out)
    vocabulary = find_vocabulary(file.parent, vocabulary)
    state = read_tensors(file)
    sizes = _known_sizes(state, heads, text_heads, activation, source=str(file))
    with new_folder(out) as folder:
        write_clip_folder(state, folder, sizes=sizes, source=str(file), vocabulary=vocabulary)
    return out


def write_clip_folder(
    state: Mapping[str, Tensor], folder: Path, *, sizes: Sizes, source: str, vocabulary: Path | None
) -> None:
    """Write weights with OpenAI's names into `folder`, in fp32."""
    from safetensors.torch import save_file

    renamed = {name: tensor.float().contiguous() for name, tensor in to_transformers(state, source=source).items()}
    _check_shapes(renamed, sizes, source=source)
    if vocabulary:
        write_tokenizer(vocabulary, folder, vocab_size=sizes.text.vocab_size, positions=sizes.text.positions)
    with atomic_write(folder / "model.safetensors") as path:
        save_file(renamed, path, metadata={"format": "pt"})
    with atomic_write(folder / FILE) as path:
        path.write_text(json.dumps(preprocessor_config(sizes.vision.image_size), indent=2) + "\n", encoding="utf-8")
    _config(sizes).save_pretrained(folder)


def _known_sizes(
    state: Mapping[str, Tensor], heads: int | None, text_heads: int | None, activation: str | None, *, source: str
) -> Sizes:
    """Return the sizes of a file: those of OpenAI's own file, or with the given heads and activation."""
    sizes = sizes_from_openai(state, source=source)
    differences = _differences(state, sizes)
    given = {"--heads": heads, "--text-heads": text_heads, "--activation": activation}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if differences:
            raise VopError(
                f"{source}: not one of OpenAI's own files ({', '.join(OWN)}): {differences}. The number of attention "
                "heads and the activation cannot be read from its tensors: look them up where the file comes from "
                "(open_clip: in the model's configuration; most of its models use gelu), and give "
                f"--heads N --text-heads N --activation {' or '.join(ACTIVATIONS)}"
            )
        return sizes
    if missing:
        raise UsageError(
            f"{source}: --heads, --text-heads and --activation must be given together; missing: {', '.join(missing)}"
        )
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", str(activation), ACTIVATIONS)
    chosen = replace(
        sizes,
        vision=_with(sizes.vision, heads, activation, option="--heads"),
        text=_with(sizes.text, text_heads, activation, option="--text-heads"),
    )
    if differences:
        check_names(state, sizes, source=source)
    elif chosen != sizes:
        raise UsageError(
            f"{source}: this is OpenAI's own file, with {sizes.vision.heads} heads, {sizes.text.heads} text heads and "
            "quick-gelu: leave out --heads, --text-heads and --activation"
        )
    return chosen


def _with(tower: Tower, heads: int | None, activation: str, *, option: str) -> Tower:
    if not isinstance(heads, int) or heads < 1 or tower.width % heads:
        raise UsageError(f"{option} is {heads!r}; it must be a whole number that divides the width, {tower.width}")
    return replace(tower, heads=heads, activation=ACTIVATIONS[activation])


def _differences(state: Mapping[str, Tensor], sizes: Sizes) -> str:
    """Return how a file differs from OpenAI's own files; empty if it is one of them."""
    found = _shapes(sizes)
    unlike = {
        name: [f"{what} {found[what]} (not {value})" for what, value in _shapes(own).items() if value != found[what]]
        for name, own in OWN.items()
    }
    nearest = min(unlike, key=lambda name: len(unlike[name]))
    if unlike[nearest]:
        return f"unlike {nearest} it has {', '.join(unlike[nearest])}"
    marks = dict(zip(_MARKS, (sizes.vision.image_size, sizes.text.positions, sizes.text.vocab_size), strict=True))
    wrong = [name for name, value in marks.items() if name not in state or state[name].flatten().tolist() != [value]]
    if wrong:
        return f"its shapes are those of {nearest}, but it lacks {', '.join(wrong)} of OpenAI's archives"
    return ""


def _shapes(sizes: Sizes) -> dict[str, int]:
    return {
        "vision width": sizes.vision.width,
        "vision layers": sizes.vision.layers,
        "vision MLP width": sizes.vision.mlp_width,
        "patch size": sizes.vision.patch_size,
        "image size": sizes.vision.image_size,
        "embedding size": sizes.embed_dim,
        "text width": sizes.text.width,
        "text layers": sizes.text.layers,
        "text MLP width": sizes.text.mlp_width,
        "vocabulary": sizes.text.vocab_size,
        "text positions": sizes.text.positions,
    }


def check_names(state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> None:
    """Raise a VopError for unknown tensors. Without one of them the model would be incomplete."""
    kinds = [f"{a}.{kind}" for a in _IN_LAYER for kind in ("weight", "bias")]
    kinds += ["attn.in_proj_weight", "attn.in_proj_bias"]
    known = {*_TOP, *_PROJECTIONS, *_MARKS}
    for prefix, tower in (("visual.transformer", sizes.vision), ("transformer", sizes.text)):
        known |= {f"{prefix}.resblocks.{i}.{kind}" for i in range(tower.layers) for kind in kinds}
    odd = sorted(name for name in state.keys() - known if name.split(".")[-1] != "attn_mask")
    if odd:
        raise VopError(
            f"{source}: the tensor {odd[0]!r} does not exist in a CLIP of OpenAI's form: this is another model"
        )


def sizes_from_openai(state: Mapping[str, Tensor], *, source: str) -> Sizes:
    """Return the sizes from the tensors' shapes, assuming heads of width 64 and OpenAI's activation.

    Raises:
        VopError: a tensor is missing or has a wrong number of dimensions.
    """
    if "visual.layer1.0.conv1.weight" in state:
        raise VopError(f"{source}: this is a ResNet CLIP; only ViT CLIPs (ViT-B/32, B/16, L/14) are supported")

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        found = tuple(_take(state, name, source=source).shape)
        if len(found) != dimensions or 0 in found:
            raise VopError(
                f"{source}: {name} has the shape {found}; in a ViT CLIP it has {count('dimension', dimensions)}"
            )
        return found

    def tower(prefix: str, width: int) -> dict[str, Any]:
        return {
            "width": width,
            "layers": _layer_count(state, prefix),
            "heads": max(1, width // HEAD_WIDTH),
            "mlp_width": shape(f"{prefix}.resblocks.0.mlp.c_fc.weight", 2)[0],
        }

    vision_width, _, _, patch_size = shape("visual.conv1.weight", 4)
    patches = shape("visual.positional_embedding", 2)[0] - 1
    grid = round(patches**0.5)
    if grid < 1 or grid * grid != patches:
        raise VopError(f"{source}: visual.positional_embedding has {count('patch', patches)}; it must be a square")
    vocab_size, text_width = shape("token_embedding.weight", 2)
    return Sizes(
        vision=VisionSizes(
            **tower("visual.transformer", vision_width), image_size=grid * patch_size, patch_size=patch_size
        ),
        text=TextSizes(
            **tower("transformer", text_width),
            vocab_size=vocab_size,
            positions=shape("positional_embedding", 2)[0],
            eos_token_id=vocab_size - 1,
        ),
        embed_dim=shape("text_projection", 2)[1],
    )


def to_transformers(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Convert OpenAI's weights to those of a `transformers` CLIPModel. Extra tensors are dropped."""
    theirs = {new: _take(state, old, source=source) for old, new in _TOP.items()}
    theirs |= {new: _take(state, old, source=source).T for old, new in _PROJECTIONS.items()}
    for prefix, tower in _TOWERS.items():
        for i in range(_layer_count(state, prefix)):
            old, new = f"{prefix}.resblocks.{i}", f"{tower}.encoder.layers.{i}"
            for kind in ("weight", "bias"):
                joined = _take(state, f"{old}.attn.in_proj_{kind}", source=source)
                for p, part in zip("qkv", joined.chunk(3), strict=False):
                    theirs[f"{new}.self_attn.{p}_proj.{kind}"] = part
                for a, b in _IN_LAYER.items():
                    theirs[f"{new}.{b}.{kind}"] = _take(state, f"{old}.{a}.{kind}", source=source)
    return theirs


def _take(state: Mapping[str, Tensor], name: str, *, source: str) -> Tensor:
    if name not in state:
        some = ", ".join(sorted(state)[:3])
        raise VopError(f"{source}: the tensor {name!r} of OpenAI's ViT CLIP files is missing; found {some}, …")
    return state[name]


def _layer_count(state: Mapping[str, Tensor], prefix: str) -> int:
    numbers = (name.removeprefix(f"{prefix}.resblocks.") for name in state if name.startswith(f"{prefix}.resblocks."))
    return len({number.split(".")[0] for number in numbers})


def _check_shapes(renamed: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> None:
    ours = from_transformers(renamed, source=source)
    with torch.device("meta"):
        wanted = CLIP(sizes).state_dict()
    for name, tensor in wanted.items():
        if ours[name].shape != tensor.shape:
            raise VopError(
                f"{source}: {name} has the shape {tuple(ours[name].shape)}; the other tensors need "
                f"{tuple(tensor.shape)}"
            )


def _config(sizes: Sizes) -> CLIPConfig:
    from transformers import CLIPConfig

    def tower(part: TowerSizes) -> dict[str, Any]:
        return {
            "hidden_size": part.width,
            "num_hidden_layers": part.layers,
            "num_attention_heads": part.heads,
            "intermediate_size": part.mlp_width,
            "projection_dim": sizes.embed_dim,
            "hidden_act": part.activation,
            "layer_norm_eps": part.norm_eps,
        }

    text = {
        "vocab_size": sizes.text.vocab_size,
        "max_position_embeddings": sizes.text.positions,
        "bos_token_id": sizes.text.eos_token_id - 1,
        "eos_token_id": sizes.text.eos_token_id,
        "pad_token_id": sizes.text.eos_token_id,
    }
    vision = {"image_size": sizes.vision.image_size, "patch_size": sizes.vision.patch_size}
    return CLIPConfig(
        text_config=tower(sizes.text) | text,
        vision_config=tower(sizes.vision) | vision,
        projection_dim=sizes.embed_dim,
        architectures=["CLIPModel"],
        dtype="float32",
    )
