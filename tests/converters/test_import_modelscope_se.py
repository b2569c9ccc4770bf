"""The released Bias, Partial and Proj after import, against the public code computed token by token."""

from __future__ import annotations

import json

import pytest
import torch
from openai_files import EOS, FRAMES, VOCAB, encode_ids, encode_image, make_release_se, make_state
from torch.nn import functional as F

import vop
from vop import methods
from vop.converters.modelscope import import_modelscope
from vop.datasets.types import Dataset
from vop.errors import UsageError, VopError
from vop.evaluation.job import report_facts

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # old files have this format

# Tensors that each release trained (arXiv 2211.12764, section 4).
TUNED = {
    "Bias": lambda name: name.endswith("bias"),
    "Partial": lambda name: name.startswith(("visual.transformer.resblocks.2.", "transformer.resblocks.1.")),
    "Proj": lambda name: name in ("visual.proj", "text_projection"),
}


def tuned_state(kind):
    before, after = make_state(), make_state(seed=4)
    return {name: after[name] if TUNED[kind](name) else tensor for name, tensor in before.items()}


def released_text(state, words, *, length=77):
    """The embedding of a caption's ids without [BOS] and [EOS]."""
    ids = [VOCAB - 2, *words, EOS]
    if len(ids) > length:
        ids = [*ids[: length - 1], EOS]
    return F.normalize(encode_ids(state, torch.tensor(ids + [0] * (length - len(ids)))), dim=0)


def released_video(state, frames):
    return torch.stack([F.normalize(encode_image(state, frame), dim=0) for frame in frames]).mean(dim=0)


def captions(counts):
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, VOCAB - 2, (n,), generator=generator).tolist() for n in counts]


def padded(words, *, pad):
    longest = max(map(len, words)) + 2
    return torch.tensor([[VOCAB - 2, *w, EOS] + [pad] * (longest - len(w) - 2) for w in words])


@pytest.mark.parametrize(("kind", "prefix"), [("Bias", ""), ("Partial", "module."), ("Proj", "")])
def test_the_imported_run_equals_the_release(tmp_path, kind, prefix):
    state = make_release_se(tmp_path, tuned_state(kind), kind=kind, prefix=prefix)
    model = vop.load(import_modelscope(tmp_path, tmp_path / "run"), device="cpu")
    words = captions([1, 2, 9, 66, 67, 68, 74, 75, 76, 90])
    frames = torch.randn(2, FRAMES, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([released_text(state, w) for w in words])
    with torch.inference_mode():
        for pad in (0, EOS):
            torch.testing.assert_close(model.embed_tokens(padded(words, pad=pad)), expected, rtol=0, atol=1e-5)
        videos = model.embed_frames(frames)
    torch.testing.assert_close(videos, torch.stack([released_video(state, v) for v in frames]), rtol=0, atol=1e-5)
    assert float(videos.norm(dim=1).max()) < 0.999  # not normalised a second time
    assert (model.method_name, model.num_frames, model.method.max_tokens) == ("clip-modelscope", FRAMES, 77)
    assert model.card["source"].endswith(f"damo/cv_vit-b32_retrieval_vop_{kind.lower()}")
    assert not model.trainable()


def test_positions_reserved_for_prompts_shorten_captions(tmp_path):
    state = make_release_se(tmp_path, tuned_state("Bias"), tp_prefix_token_num=4, tp_suffix_token_num=4)
    model = vop.load(import_modelscope(tmp_path, tmp_path / "run"), device="cpu")
    words = captions([5, 67, 68, 75])
    expected = torch.stack([released_text(state, w, length=69) for w in words])
    with torch.inference_mode():
        torch.testing.assert_close(model.embed_tokens(padded(words, pad=0)), expected, rtol=0, atol=1e-5)
    assert model.method.max_tokens == 69


def test_a_report_does_not_call_the_tuned_weights_untrained(tmp_path):
    make_release_se(tmp_path, tuned_state("Proj"))
    model = vop.load(import_modelscope(tmp_path, tmp_path / "run"), device="cpu")
    data = Dataset("none", {})
    assert report_facts(model, data).selection is None


def test_a_single_weights_file_may_have_any_name(tmp_path):
    make_release_se(tmp_path, tuned_state("Bias"), file="Bias_msrvtt9k.pth")
    assert vop.load(import_modelscope(tmp_path, tmp_path / "run"), device="cpu").method_name == "clip-modelscope"
    (tmp_path / "Proj_msrvtt9k.pth").write_bytes(b"")
    with pytest.raises(UsageError, match=r"Bias_msrvtt9k\.pth, Proj_msrvtt9k\.pth"):
        import_modelscope(tmp_path, tmp_path / "second")
    make_release_se(tmp_path, tuned_state("Bias"))  # the usual name wins
    assert import_modelscope(tmp_path, tmp_path / "third").exists()


@pytest.mark.parametrize("model", [{"type": "clip-multi-modal-embedding"}, {}, "vop", None])
def test_a_configuration_of_another_model_is_refused(tmp_path, model):
    make_release_se(tmp_path, make_state())
    configuration = json.loads((tmp_path / "configuration.json").read_text())
    (tmp_path / "configuration.json").write_text(json.dumps(configuration | {"model": model}))
    with pytest.raises(VopError, match=r"configuration\.json: model\.type is .*vop-retrieval-model-se"):
        import_modelscope(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def save(folder, state):
    torch.save({"state_dict": state}, folder / "VoPSE_msrvtt9k.pth")


@pytest.mark.parametrize(
    "missing",
    ["visual.proj", "ln_final.bias", "transformer.resblocks.1.attn.in_proj_weight", "visual.conv1.weight"],
)
def test_a_missing_tensor_is_named(tmp_path, missing):
    make_release_se(tmp_path, make_state())
    save(tmp_path, {f"clip.{n}": t for n, t in make_state().items() if n != missing})
    with pytest.raises(VopError, match=missing.replace(".", r"\.")):
        import_modelscope(tmp_path, tmp_path / "run")


def test_the_untuned_backbone_does_not_replace_the_weights(tmp_path):
    make_release_se(tmp_path, make_state())
    save(tmp_path, make_state())  # without the prefix `clip.`
    with pytest.raises(VopError, match=r"VoPSE_msrvtt9k\.pth: the tensor"):
        import_modelscope(tmp_path, tmp_path / "run")


@pytest.mark.parametrize("other", ["text_prompt_learner.text_prompts", "head.weight", "clip.visual.adapter.weight"])
def test_a_tensor_of_another_model_is_named(tmp_path, other):
    make_release_se(tmp_path, make_state())
    save(tmp_path, {f"clip.{n}": t for n, t in make_state().items()} | {other: torch.ones(2, 8, 64)})
    with pytest.raises(VopError, match=other.removeprefix("clip.").replace(".", r"\.")):
        import_modelscope(tmp_path, tmp_path / "run")


@pytest.mark.parametrize(
    ("hyperparam", "says"),
    [
        ({"num_frames": 0}, "num_frames is 0"),
        ({"input_res": 224}, "input_res is 224; .* say 16"),
        ({"pooling_type": "topk"}, "pooling_type is 'topk'"),
        ({"tp_prefix_token_num": -1}, "tp_prefix_token_num is -1"),
        ({"tp_prefix_token_num": 76}, "text_length is 1"),
    ],
)
def test_wrong_configurations_are_refused(tmp_path, hyperparam, says):
    make_release_se(tmp_path, make_state(), **hyperparam)
    with pytest.raises(VopError, match=says):
        import_modelscope(tmp_path, tmp_path / "run")


def test_imported_methods_are_not_listed():
    assert "clip-modelscope" not in methods.METHODS
    with pytest.raises(UsageError, match="clip-modelscope"):
        methods.find_trainable("clip-modelscope")
