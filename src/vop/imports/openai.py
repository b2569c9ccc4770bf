"""OpenAI's CLIP files (`ViT-B-32.pt` and its like) as ordinary `transformers` CLIP folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vop.backbone.clip import Clip
from vop.backbone.config import ClipSizes, TowerSizes
from vop.backbone.convert import from_transformers
from vop.backbone.source import CLIP_MEAN, CLIP_STD
from vop.errors import VopError
from vop.files import atomic_write
from vop.imports.checkpoint import read_tensors
from vop.imports.folder import new_folder
from vop.imports.vocabulary import find_vocabulary, write_tokenizer
from vop.utils.text import count

if TYPE_CHECKING:
    from transformers import CLIPConfig

HEAD_WIDTH = 64  # of every CLIP of OpenAI's; the files do not say it

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


def import_openai(file: str | Path, out: str | Path, *, vocabulary: str | Path | None = None) -> Path:
    """Writes OpenAI's CLIP file as a `transformers` CLIP folder, which `find_backbone(out)` opens.

    Args:
        file: a TorchScript archive or a state dict with OpenAI's names; nothing in it is run.
        out: a folder that does not exist yet, or is empty. It is there whole or not at all.
        vocabulary: OpenAI's `bpe_simple_vocab_16e6.txt.gz`; by default the one beside `file`. Without any, the folder
            gets no tokenizer, and the model takes token ids only.

    Returns:
        `out`.

    Raises:
        UsageError: `file` or `vocabulary` does not exist, or `out` does.
        VopError: the file is damaged, of another kind, or not a ViT CLIP; the message says which.
    """
    file, out = Path(file).expanduser(), Path(out).expanduser()
    state = read_tensors(file)
    vocabulary = find_vocabulary(file.parent, vocabulary)
    with new_folder(out) as folder:
        write_clip_folder(state, folder, source=str(file), vocabulary=vocabulary)
    return out


def write_clip_folder(state: Mapping[str, Tensor], folder: Path, *, source: str, vocabulary: Path | None) -> ClipSizes:
    """Writes weights with OpenAI's names into `folder`, in fp32, and returns their sizes."""
    from safetensors.torch import save_file

    sizes = sizes_from_openai(state, source=source)
    renamed = {name: tensor.float().contiguous() for name, tensor in to_transformers(state, source=source).items()}
    _check_shapes(renamed, sizes, source=source)
    if vocabulary:
        write_tokenizer(vocabulary, folder, vocab_size=sizes.vocab_size, positions=sizes.positions)
    with atomic_write(folder / "model.safetensors") as path:
        save_file(renamed, path, metadata={"format": "pt"})
    with atomic_write(folder / "preprocessor_config.json") as path:
        path.write_text(json.dumps(_preprocessing(sizes), indent=2) + "\n", encoding="utf-8")
    _config(sizes).save_pretrained(folder)
    return sizes


def sizes_from_openai(state: Mapping[str, Tensor], *, source: str) -> ClipSizes:
    """The sizes as the tensors' shapes tell them; heads by OpenAI's rule, 64 of the width each.

    Raises:
        VopError: a tensor is missing or has another number of dimensions than a ViT CLIP's.
    """
    if "visual.layer1.0.conv1.weight" in state:
        raise VopError(f"{source}: a ResNet CLIP; only the ViT ones (ViT-B/32, B/16, L/14) are supported")

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        found = tuple(_take(state, name, source=source).shape)
        if len(found) != dimensions or 0 in found:
            raise VopError(f"{source}: {name} has shape {found}; a ViT CLIP's has {count('dimension', dimensions)}")
        return found

    def tower(prefix: str, width: int) -> TowerSizes:
        return TowerSizes(
            width=width,
            layers=_layer_count(state, prefix),
            heads=max(1, width // HEAD_WIDTH),
            mlp_width=shape(f"{prefix}.resblocks.0.mlp.c_fc.weight", 2)[0],
        )

    vision_width, _, _, patch_size = shape("visual.conv1.weight", 4)
    patches = shape("visual.positional_embedding", 2)[0] - 1
    grid = round(patches**0.5)
    if grid < 1 or grid * grid != patches:
        raise VopError(f"{source}: visual.positional_embedding is for {count('patch', patches)}, which make no square")
    vocab_size, text_width = shape("token_embedding.weight", 2)
    return ClipSizes(
        vision=tower("visual.transformer", vision_width),
        text=tower("transformer", text_width),
        image_size=grid * patch_size,
        patch_size=patch_size,
        embed_dim=shape("text_projection", 2)[1],
        vocab_size=vocab_size,
        positions=shape("positional_embedding", 2)[0],
        eos_token_id=vocab_size - 1,
    )


def to_transformers(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Renames OpenAI's weights to those of a `transformers` CLIPModel; extra tensors are left out."""
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
        near = ", ".join(sorted(state)[:3])
        raise VopError(f"{source}: no tensor {name!r}, which OpenAI's ViT CLIP files have; it holds {near}, …")
    return state[name]


def _layer_count(state: Mapping[str, Tensor], prefix: str) -> int:
    numbers = (name.removeprefix(f"{prefix}.resblocks.") for name in state if name.startswith(f"{prefix}.resblocks."))
    return len({number.split(".")[0] for number in numbers})


def _check_shapes(renamed: Mapping[str, Tensor], sizes: ClipSizes, *, source: str) -> None:
    ours = from_transformers(renamed, source=source)
    with torch.device("meta"):
        wanted = Clip(sizes).state_dict()
    for name, tensor in wanted.items():
        if ours[name].shape != tensor.shape:
            raise VopError(
                f"{source}: {name} has shape {tuple(ours[name].shape)}; the other tensors ask for {tuple(tensor.shape)}"
            )


def _config(sizes: ClipSizes) -> CLIPConfig:
    from transformers import CLIPConfig

    def tower(part: TowerSizes) -> dict:
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
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.positions,
        "bos_token_id": sizes.eos_token_id - 1,
        "eos_token_id": sizes.eos_token_id,
        "pad_token_id": sizes.eos_token_id,
    }
    vision = {"image_size": sizes.image_size, "patch_size": sizes.patch_size}
    return CLIPConfig(
        text_config=tower(sizes.text) | text,
        vision_config=tower(sizes.vision) | vision,
        projection_dim=sizes.embed_dim,
        architectures=["CLIPModel"],
        dtype="float32",
    )


def _preprocessing(sizes: ClipSizes) -> dict:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": sizes.image_size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": sizes.image_size, "width": sizes.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }
