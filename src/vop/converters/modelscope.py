"""Convert the authors' released basic VoP (ModelScope, damo/cv_vit-b32_retrieval_vop) to a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vop import methods
from vop.backbones import Sizes, find_backbone
from vop.backbones.openai_vocabulary import find_vocabulary
from vop.converters.checkpoint import read_tensors
from vop.converters.folder import check_new_folder, new_folder
from vop.converters.openai import sizes_from_openai, write_clip_folder
from vop.errors import UsageError, VopError
from vop.methods.vop_modelscope import VoPModelScope
from vop.models.model import TextVideoModel
from vop.utils.parsing import read_json_object

METHOD = "vop-modelscope"
WEIGHTS, BACKBONE, CONFIGURATION = "VoP_msrvtt9k.pth", "ViT-B-32.pt", "configuration.json"
_VISUAL, _TEXT = "visual_prompt_learner.visual_prompts", "text_prompt_learner.text_prompts"
_CLIP = "clip."


def import_modelscope(folder: str | Path, out: str | Path, *, vocabulary: str | Path | None = None) -> Path:
    """Write the released VoP as a run that includes its backbone. `vop.load(out)` opens it.

    Args:
        folder: contains `VoP_msrvtt9k.pth` and `configuration.json`. `ViT-B-32.pt` is read only if the first file lacks
            the backbone. Nothing in these files is executed.
        out: a folder that does not exist yet or is empty. It is written atomically.
        vocabulary: OpenAI's `bpe_simple_vocab_16e6.txt.gz`; by default the one in `folder`. Without it, the run takes
            only token ids, until a tokenizer is added to its `backbone` folder.

    Returns:
        `out`.

    Raises:
        UsageError: a file does not exist, or `out` already exists.
        VopError: a file is damaged or not part of the release. The message names the file.
    """
    folder, out = Path(folder).expanduser(), Path(out).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{folder}: the folder does not exist; it must hold {WEIGHTS} and {CONFIGURATION}")
    check_new_folder(out)
    vocabulary = find_vocabulary(folder, vocabulary)
    known = _read_configuration(folder / CONFIGURATION)
    state = read_tensors(folder / WEIGHTS)
    backbone, source = _backbone(state, folder), str(folder / WEIGHTS)
    sizes = sizes_from_openai(backbone, source=source)  # the release builds its CLIP with OpenAI's code
    _check_configuration(known, state, sizes, path=folder / CONFIGURATION)
    with new_folder(out) as new:
        (new / "backbone").mkdir()
        write_clip_folder(backbone, new / "backbone", sizes=sizes, source=source, vocabulary=vocabulary)
        _build(state, sizes, known, new / "backbone").save_pretrained(new)
    return out


def _read_configuration(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UsageError(f"{path}: the file does not exist; it is part of the release")
    found = read_json_object(path, remedy="fetch the release again")
    if "hyperparam" not in found:
        raise VopError(f"{path}: the key 'hyperparam' is missing; found {', '.join(found) or 'no keys'}")
    known = found["hyperparam"]
    for key, least in (("num_frames", 1), ("tp_suffix_token_num", 0)):
        value = known.get(key) if isinstance(known, dict) else None
        if not isinstance(value, int) or value < least:
            raise VopError(f"{path}: hyperparam.{key} is {value!r}; it must be a whole number of {least} or more")
    return known


def _backbone(state: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return the CLIP's weights with OpenAI's names. The release's own copy replaces that in `ViT-B-32.pt`."""
    inside = {name.removeprefix(_CLIP): tensor for name, tensor in state.items() if name.startswith(_CLIP)}
    return inside or read_tensors(folder / BACKBONE)


def _check_configuration(known: dict[str, Any], state: Mapping[str, Tensor], sizes: Sizes, *, path: Path) -> None:
    """Compare the configuration with the tensors. A wrong number of prompts would otherwise go unnoticed."""
    found = {"vp_token_num": _visual_prompts(state, sizes).shape[1], "input_res": sizes.vision.image_size}
    text = _text_prompts(state, sizes).shape[1]
    found["tp_prefix_token_num"] = text - known["tp_suffix_token_num"]
    for key, value in found.items():
        if known.get(key, value) != value:
            raise VopError(f"{path}: hyperparam.{key} is {known[key]!r}; the tensors of {WEIGHTS} say {value}")
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
        raise VopError(f"{WEIGHTS}: the tensor {name!r} is missing: this is not the released VoP")
    shape = state[name].shape
    if len(shape) != len(wanted) or any(want not in (None, got) for want, got in zip(wanted, shape, strict=True)):
        shown = " x ".join("any" if want is None else str(want) for want in wanted)
        raise VopError(f"{WEIGHTS}: {name} has the shape {tuple(shape)}; the backbone needs {shown}")
    return state[name].float()


def _build(state: Mapping[str, Tensor], sizes: Sizes, known: dict[str, Any], backbone: Path) -> TextVideoModel:
    visual, text = _visual_prompts(state, sizes), _text_prompts(state, sizes)
    method = methods.create(
        METHOD,
        sizes,
        num_frames=known["num_frames"],
        visual_prompts=visual.shape[1],
        text_prompts=text.shape[1],
        text_suffix=known["tp_suffix_token_num"],
    )
    assert isinstance(method, VoPModelScope)
    for table, prompts in ((method.shared_prompts, visual), (method.text_prompts, text)):
        if table.tokens is not None:
            table.tokens.data.copy_(prompts)
    model = TextVideoModel(find_backbone(str(backbone)), METHOD, method, dtype=torch.float32)
    model.card = {"source": "the authors' release on ModelScope, damo/cv_vit-b32_retrieval_vop"}
    if "video_sample_type" in known:
        model.card["video_sample_type"] = known["video_sample_type"]
    if "seed" in known:
        model.card["seed"] = known["seed"]
    return model
