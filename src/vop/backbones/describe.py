"""Describe families, well-known checkpoints and single backbones, for tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vop.backbones.family import Family
from vop.backbones.known import BY_NAME, KNOWN, KnownBackbone, full_name
from vop.backbones.sizes import Sizes
from vop.backbones.source import (
    BUILT_IN,
    FAMILIES,
    Backbone,
    find_backbone,
    find_sizes,
    split_image_size,
    without_hub_prefix,
)

ALL, ZERO_SHOT = "all", "zero-shot"
_VOCABULARIES = {49_408: "English", 32_000: "English", 21_128: "Chinese"}  # of CLIP, SigLIP, Chinese-CLIP
_READOUTS = {
    "class": "the [CLS] token",
    "attention": "attention pooling",
    "mean": "the mean of the patches",
    "eos": "the [EOS] token",
    "first": "the first token",
    "last": "the last token",
}


def methods_of(sizes: Sizes) -> str:
    """Return the methods that a backbone of these sizes supports: "all" or "zero-shot"."""
    return ALL if sizes.has_layers else ZERO_SHOT


def describe_family(name: str) -> dict[str, Any]:
    """Return the name, title and methods of a family.

    Raises:
        UsageError: the name is unknown.
        Exception: the package that adds the family cannot be imported.
    """
    family: type[Family] = FAMILIES.find(name)
    return {"name": name, "title": family.title, "methods": family.methods, "package": FAMILIES.package(name)}


def known_backbones() -> list[dict[str, Any]]:
    """Return what is known about each well-known checkpoint."""
    return [_known(known) for known in KNOWN]


def languages_of(backbone: Backbone) -> str | None:
    """Return the languages of the captions that a backbone was trained with; None if they are unknown.

    Where a checkpoint is not listed, its vocabulary tells: those of CLIP and of the first SigLIP were made for English.
    """
    if backbone.name in BUILT_IN:
        return "English"
    known = BY_NAME.get(full_name(without_hub_prefix(split_image_size(backbone.name)[0])))
    return known.languages if known else _VOCABULARIES.get(backbone.sizes.text.vocab_size)


def most_languages() -> str:
    """Return the smallest well-known checkpoint that reads many languages."""
    return min((known for known in KNOWN if known.languages.endswith("+")), key=lambda known: known.millions).name


def describe_backbone(name: str) -> dict[str, Any]:
    """Return what is known about one backbone, with its protocol.

    A well-known hub id is described without its files, so its preprocessing is not included. For other names the
    backbone is found as for any command, and a hub id is downloaded.

    Raises:
        VopError: the backbone cannot be found or read.
    """
    known = BY_NAME.get(full_name(without_hub_prefix(split_image_size(name)[0])))
    if known is not None:
        sizes = find_sizes(name)
        return _known(known) | _of_sizes(sizes) | {"protocol": _protocol(sizes)}
    found = find_backbone(name)
    count = _count(found)
    return {
        "name": found.name,
        "short_name": None,
        "family": next((key for key in FAMILIES.names() if FAMILIES.find(key) is type(found.family)), None),
        "millions": None if count is None else round(count / 1e6),
        "languages": languages_of(found),
        "license": None,
        "revision": found.revision,
        **_of_sizes(found.sizes),
        "protocol": _protocol(found.sizes) | {"preprocessing": _preprocessing(found)},
    }


def _known(known: KnownBackbone) -> dict[str, Any]:
    return {
        "name": known.name,
        "short_name": known.short_name,
        "family": known.family,
        "millions": known.millions,
        "languages": known.languages,
        "license": known.license,
        "revision": known.revision,
        **_of_sizes(known.sizes),
    }


def _of_sizes(sizes: Sizes) -> dict[str, Any]:
    return {
        "methods": methods_of(sizes),
        "embed_dim": sizes.embed_dim,
        "image_size": sizes.vision.image_size,
        "num_frames": sizes.num_frames,
    }


def _protocol(sizes: Sizes) -> dict[str, Any]:
    """Return how texts and images are embedded. What only towers with reachable layers have is None for others."""
    vision, text, layers = sizes.vision, sizes.text, sizes.has_layers
    return {
        "text": {
            "vocabulary": text.vocab_size,
            "positions": text.positions,
            "padded_to_all_positions": text.fixed_length,
            "causal": text.causal if layers else None,
            "readout": _READOUTS[text.readout] if layers else None,
            "width": text.width if layers else None,
            "layers": text.layers if layers else None,
        },
        "vision": {
            "patch_size": vision.patch_size if layers else None,
            "patches": vision.patches if layers else None,
            "positions": _vision_positions(sizes) if layers else None,
            "readout": _READOUTS[vision.readout] if layers else None,
            "width": vision.width if layers else None,
            "layers": vision.layers if layers else None,
        },
        "loss": sizes.loss,
    }


def _vision_positions(sizes: Sizes) -> str:
    return "learned" if sizes.vision.rope is None else "learned and rotary"


def _preprocessing(found: Backbone) -> dict[str, Any]:
    return {**asdict(found.resizing), "mean": list(found.mean), "std": list(found.std)}


def _count(found: Backbone) -> int | None:
    """Return the number of parameters, without reading weights; None for an encoder without reachable layers."""
    if not found.sizes.has_layers:
        return None
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in found.family.build(found.sizes).parameters())
