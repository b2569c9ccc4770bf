"""Convert the authors' releases on ModelScope to a run's folder: basic VoP, Bias, Partial and Proj.

`configuration.json` tells which model a folder contains. The type `vop-retrieval-model` is basic VoP: prompts beside a
CLIP. The type `vop-retrieval-model-se` is one of the other three: a CLIP with tuned weights, and no prompts.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vop import methods
from vop.backbones import Sizes, find_backbone
from vop.backbones.openai_vocabulary import find_vocabulary
from vop.converters.checkpoint import read_tensors
from vop.converters.folder import check_new_folder, new_folder
from vop.converters.openai import check_names, sizes_from_openai, write_clip_folder
from vop.errors import UsageError, VopError
from vop.methods.base import Method
from vop.methods.vop_modelscope import VoPModelScope
from vop.models.model import TextVideoModel
from vop.utils.files import expand
from vop.utils.parsing import read_json_object

METHOD, METHOD_SE = "vop-modelscope", "clip-modelscope"
BACKBONE, CONFIGURATION = "ViT-B-32.pt", "configuration.json"
TYPE, TYPE_SE = "vop-retrieval-model", "vop-retrieval-model-se"
WEIGHTS = {TYPE: "VoP_msrvtt9k.pth", TYPE_SE: "VoPSE_msrvtt9k.pth"}  # the names in the released code
_VISUAL, _TEXT = "visual_prompt_learner.visual_prompts", "text_prompt_learner.text_prompts"
_CLIP = "clip."


@dataclass(frozen=True)
class _Release:
    """The content of a release's folder.

    Attributes:
        type: one of `WEIGHTS`.
        known: the hyperparameters in `configuration.json`.
        weights: the file of the tuned weights.
    """

    type: str
    known: Mapping[str, Any]
    weights: Path

    @property
    def configuration(self) -> Path:
        return self.weights.parent / CONFIGURATION


def import_modelscope(folder: str | Path, out: str | Path, *, vocabulary: str | Path | None = None) -> Path:
    """Write a released model as a run that includes its backbone. `vop.load(out)` opens it.

    Args:
        folder: contains `configuration.json` and the weights: `VoP_msrvtt9k.pth` (basic VoP), `VoPSE_msrvtt9k.pth`
            (Bias, Partial, Proj), or a single .pth file of another name. `ViT-B-32.pt` is read only for a basic VoP
            whose weights lack the backbone. Nothing in these files is executed.
        out: a folder that does not exist yet or is empty. It is written atomically.
        vocabulary: OpenAI's `bpe_simple_vocab_16e6.txt.gz`; by default the one in `folder`. Without it, the run takes
            only token ids, until a tokenizer is added to its `backbone` folder.

    Returns:
        `out`.

    Raises:
        UsageError: a file does not exist, several could be the weights, or `out` already exists.
        VopError: a file is damaged or not part of a release. The message names the file.
    """
    folder, out = expand(folder), expand(out)
    if not folder.is_dir():
        names = " or ".join(WEIGHTS.values())
        raise UsageError(f"{folder}: the folder does not exist; it must contain {CONFIGURATION} and {names}")
    check_new_folder(out)
    vocabulary = find_vocabulary(folder, vocabulary)
    release = _find_release(folder)
    state, source = read_tensors(release.weights), str(release.weights)
    backbone = _backbone(state, release)
    sizes = sizes_from_openai(backbone, source=source)  # the release builds its CLIP with OpenAI's code
    _check_configuration(release, state, sizes)
    with new_folder(out) as new:
        (new / "backbone").mkdir()
        write_clip_folder(backbone, new / "backbone", sizes=sizes, source=source, vocabulary=vocabulary)
        method = _vop(state, sizes, release) if release.type == TYPE else _tuned_clip(sizes, release)
        _model(method, release, new / "backbone").save_pretrained(new)
    return out


def _find_release(folder: Path) -> _Release:
    path = folder / CONFIGURATION
    if not path.exists():
        raise UsageError(f"{path}: the file does not exist; it is part of the release")
    found = read_json_object(path, remedy="fetch the release again")
    model = found.get("model", {"type": TYPE})
    kind = model.get("type") if isinstance(model, dict) else model
    if not isinstance(kind, str) or kind not in WEIGHTS:
        raise VopError(f"{path}: model.type is {kind!r}; the released models have {' or '.join(map(repr, WEIGHTS))}")
    if "hyperparam" not in found:
        raise VopError(f"{path}: the key 'hyperparam' is missing; found {', '.join(found) or 'no keys'}")
    known = found["hyperparam"]
    needed = {"num_frames": 1} | ({"tp_suffix_token_num": 0} if kind == TYPE else {})
    for key, least in needed.items():
        value = known.get(key) if isinstance(known, dict) else None
        if not isinstance(value, int) or value < least:
            raise VopError(f"{path}: hyperparam.{key} is {value!r}; it must be a whole number of {least} or more")
    if not isinstance(known.get("seed"), int | None):
        raise VopError(f"{path}: hyperparam.seed is {reprlib.repr(known['seed'])}; it must be a whole number")
    if not isinstance(known.get("video_sample_type", ""), str):
        shown = reprlib.repr(known["video_sample_type"])
        raise VopError(f"{path}: hyperparam.video_sample_type is {shown}; it must be a name, such as 'uniform'")
    return _Release(kind, known, _find_weights(folder, WEIGHTS[kind]))


def _find_weights(folder: Path, usual: str) -> Path:
    """Return the file with the usual name, or else the only .pth file."""
    if (folder / usual).exists():
        return folder / usual
    found = sorted(path.name for path in folder.glob("*.pth"))
    if len(found) > 1:
        raise UsageError(
            f"{folder}: {usual} does not exist, and {', '.join(found)} could each be the weights: keep only one of them"
        )
    return folder / (found[0] if found else usual)


def _backbone(state: Mapping[str, Tensor], release: _Release) -> dict[str, Tensor]:
    """Return the CLIP's weights with OpenAI's names. The release's own copy replaces that in `ViT-B-32.pt`."""
    inside = {name.removeprefix(_CLIP): tensor for name, tensor in state.items() if name.startswith(_CLIP)}
    if release.type == TYPE:
        return inside or read_tensors(release.weights.with_name(BACKBONE))
    others = sorted(name for name in state if not name.startswith(_CLIP))
    if others:
        reason = "prompts belong to basic VoP" if "prompt" in others[0] else "this is another model"
        raise VopError(
            f"{release.weights}: the tensor {others[0]!r} is not part of a model of type {TYPE_SE!r}: {reason}"
        )
    return inside


def _check_configuration(release: _Release, state: Mapping[str, Tensor], sizes: Sizes) -> None:
    """Compare the configuration with the tensors. A wrong number of prompts would otherwise go unnoticed."""
    known, path = release.known, release.configuration
    found = {"input_res": sizes.vision.image_size}
    if release.type == TYPE:
        found["vp_token_num"] = _visual_prompts(state, sizes).shape[1]
        found["tp_prefix_token_num"] = _text_prompts(state, sizes).shape[1] - known["tp_suffix_token_num"]
    else:
        clip = {name.removeprefix(_CLIP): tensor for name, tensor in state.items()}
        check_names(clip, sizes, source=str(release.weights))
    for key, value in found.items():
        if known.get(key, value) != value:
            raise VopError(
                f"{path}: hyperparam.{key} is {known[key]!r}; the tensors of {release.weights.name} say {value}"
            )
    if known.get("pooling_type", "avg") != "avg":
        raise VopError(f"{path}: hyperparam.pooling_type is {known['pooling_type']!r}; it must be 'avg'")


def _visual_prompts(state: Mapping[str, Tensor], sizes: Sizes) -> Tensor:
    """Return the visual prompts (L, P, d)."""
    return _prompts(state, _VISUAL, (sizes.vision.layers, 1, None, sizes.vision.width)).squeeze(1)


def _text_prompts(state: Mapping[str, Tensor], sizes: Sizes) -> Tensor:
    """Return the text prompts (L, P, d), the prefix first."""
    return _prompts(state, _TEXT, (sizes.text.layers, None, sizes.text.width))


def _prompts(state: Mapping[str, Tensor], name: str, wanted: tuple[int | None, ...]) -> Tensor:
    if name not in state:
        raise VopError(f"{WEIGHTS[TYPE]}: the tensor {name!r} is missing: this is not the released VoP")
    shape = state[name].shape
    if len(shape) != len(wanted) or any(want not in (None, got) for want, got in zip(wanted, shape, strict=True)):
        shown = " x ".join("any" if want is None else str(want) for want in wanted)
        raise VopError(f"{WEIGHTS[TYPE]}: {name} has the shape {tuple(shape)}; the backbone needs {shown}")
    return state[name].float()


def _vop(state: Mapping[str, Tensor], sizes: Sizes, release: _Release) -> Method:
    visual, text = _visual_prompts(state, sizes), _text_prompts(state, sizes)
    method = methods.create(
        METHOD,
        sizes,
        num_frames=release.known["num_frames"],
        visual_prompts=visual.shape[1],
        text_prompts=text.shape[1],
        text_suffix=release.known["tp_suffix_token_num"],
    )
    assert isinstance(method, VoPModelScope)
    for table, prompts in ((method.shared_prompts, visual), (method.text_prompts, text)):
        if table.tokens is not None:
            table.tokens.data.copy_(prompts)
    return method


def _tuned_clip(sizes: Sizes, release: _Release) -> Method:
    """Return the method of a CLIP without prompts.

    The release's tokenizer shortens captions by the numbers of text prompts in the configuration, also where the model
    has no prompts.
    """
    reserved = 0
    for key in ("tp_prefix_token_num", "tp_suffix_token_num"):
        value = release.known.get(key, 0)
        if not isinstance(value, int) or value < 0:
            raise VopError(f"{release.configuration}: hyperparam.{key} is {value!r}; it must be a whole number")
        reserved += value
    length = sizes.text.positions - reserved if reserved else None
    return methods.create(METHOD_SE, sizes, num_frames=release.known["num_frames"], text_length=length)


def _model(method: Method, release: _Release, backbone: Path) -> TextVideoModel:
    name = METHOD if release.type == TYPE else METHOD_SE
    model = TextVideoModel(find_backbone(str(backbone)), name, method, dtype=torch.float32)
    model.card = {"source": f"the authors' release on ModelScope, {_source(release)}"}
    if release.type == TYPE_SE:
        model.card["selection"] = None  # the weights are tuned, although nothing in the run trains
    if "video_sample_type" in release.known:
        model.card["video_sample_type"] = release.known["video_sample_type"]
    if "seed" in release.known:
        model.card["seed"] = release.known["seed"]
    return model


def _source(release: _Release) -> str:
    """Return the release's id. Its gallery of features names the method; the weights do not."""
    base = "damo/cv_vit-b32_retrieval_vop"
    if release.type == TYPE:
        return base
    named = [
        kind
        for kind in ("Bias", "Partial", "Proj")
        if (release.weights.with_name(f"{kind}_msrvtt9k_features.pkl")).exists()
    ]
    return f"{base}_{named[0].lower()}" if len(named) == 1 else f"{base}_bias, _partial or _proj"
