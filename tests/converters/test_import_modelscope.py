"""The released VoP after import, against a computation of its description token by token."""

from __future__ import annotations

import json

import pytest
import torch
from openai_files import (
    EOS,
    FRAMES,
    PREFIX,
    SUFFIX,
    VOCAB,
    block,
    image_tokens,
    layers,
    make_release,
    make_state,
    norm,
    write_vocabulary,
)
from torch.nn import functional as F

import vop
from vop import methods
from vop.converters.modelscope import import_modelscope
from vop.errors import UsageError, VopError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # old files have this format


@pytest.fixture(scope="module")
def clip_state():
    return make_state()


def released_text(state, words):
    """One caption's ids without [BOS] and [EOS], tokenised and embedded as the release does."""
    free = 77 - PREFIX - SUFFIX
    ids = [VOCAB - 2, *words, EOS]
    if len(ids) > free:
        ids = [*ids[: free - 1], EOS]
    ids += [0] * (free - len(ids))
    prompts = state["text_prompt_learner.text_prompts"]
    kept = state["token_embedding.weight"][torch.tensor(ids)]
    for i in range(layers(state, "transformer")):
        x = torch.cat([kept[:1], prompts[i, :PREFIX], kept[1:-1], prompts[i, PREFIX:], kept[-1:]])
        x = x + state["positional_embedding"] if i == 0 else x
        x = block(state, f"transformer.resblocks.{i}", x, heads=1, causal=True)
        kept = torch.cat([x[:1], x[1 + PREFIX : 77 - 1 - SUFFIX], x[-1:]])
    read = x[ids.index(max(ids)) + PREFIX + SUFFIX]
    return F.normalize(norm(state, "ln_final", read) @ state["text_projection"], dim=0)


def released_video(state, frames):
    """(f, 3, h, w) to (e,): the mean of unit frame embeddings."""
    prompts, embeddings = state["visual_prompt_learner.visual_prompts"], []
    for frame in frames:
        x = image_tokens(state, frame)
        for i in range(layers(state, "visual.transformer")):
            x = torch.cat([x[:1], prompts[i, 0], x[1:]])
            x = norm(state, "visual.ln_pre", x) if i == 0 else x
            x = block(state, f"visual.transformer.resblocks.{i}", x, heads=2)
            x = torch.cat([x[:1], x[1 + prompts.shape[2] :]])
        embeddings.append(F.normalize(norm(state, "visual.ln_post", x[0]) @ state["visual.proj"], dim=0))
    return torch.stack(embeddings).mean(dim=0)


def captions(count=80):
    """Captions of 1 to `count` words."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, VOCAB - 2, (n,), generator=generator).tolist() for n in range(1, count + 1)]


def padded(words, *, pad):
    longest = max(map(len, words)) + 2
    return torch.tensor([[VOCAB - 2, *w, EOS] + [pad] * (longest - len(w) - 2) for w in words])


@pytest.mark.parametrize(("backbone_inside", "prefix"), [(True, ""), (True, "module."), (False, "")])
def test_the_imported_run_equals_the_release(tmp_path, clip_state, backbone_inside, prefix):
    state = make_release(tmp_path, clip_state, backbone_inside=backbone_inside, prefix=prefix)
    model = vop.load(import_modelscope(tmp_path, tmp_path / "run"), device="cpu")
    words = captions()
    expected = torch.stack([released_text(state, w) for w in words])
    frames = torch.randn(2, FRAMES, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for pad in (0, EOS):  # OpenAI's tokenizer pads with 0, transformers' with EOS
            torch.testing.assert_close(model.embed_tokens(padded(words, pad=pad)), expected, rtol=0, atol=1e-5)
        alone = torch.cat([model.embed_tokens(padded([w], pad=EOS)) for w in words[::13]])
        torch.testing.assert_close(alone, expected[::13], rtol=0, atol=1e-5)
        videos = model.embed_frames(frames)
    torch.testing.assert_close(videos, torch.stack([released_video(state, v) for v in frames]), rtol=0, atol=1e-5)
    assert model.num_frames == FRAMES
    assert float(videos.norm(dim=1).max()) < 0.999  # not normalised a second time


def test_a_run_with_a_vocabulary_takes_words(tmp_path, clip_state):
    state = make_release(tmp_path, clip_state)
    write_vocabulary(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    model = vop.load(import_modelscope(tmp_path, tmp_path / "run"), device="cpu")
    texts = ["the onion", "a", "onion " * 90]
    ids = [model.tokenizer.encode([text], max_length=999)[0, 1:-1].tolist() for text in texts]
    expected = torch.stack([released_text(state, words) for words in ids])
    torch.testing.assert_close(model.encode_text(texts), expected, rtol=0, atol=1e-5)


def test_a_run_without_a_vocabulary_says_so(tmp_path, clip_state):
    make_release(tmp_path, clip_state)
    model = vop.load(import_modelscope(tmp_path, tmp_path / "run"), device="cpu")
    with pytest.raises(VopError, match="vocabulary .*missing"):
        model.encode_text(["the onion"])
    assert model.embed_tokens(padded([[1, 2]], pad=0)).shape == (1, 32)


def test_a_moved_run_keeps_its_backbone(tmp_path, clip_state):
    make_release(tmp_path, clip_state)
    import_modelscope(tmp_path, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    config = json.loads((tmp_path / "elsewhere" / "config.json").read_text())
    assert (config["method"], config["backbone"]["name"]) == ("vop-modelscope", "./backbone")
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "config.json").read_text()
    assert vop.load(tmp_path / "elsewhere", device="cpu").method_name == "vop-modelscope"


def test_imported_methods_are_not_listed():
    assert "vop-modelscope" not in methods.METHODS
    assert methods.find("vop-modelscope").__name__ == "VoPModelScope"


@pytest.mark.parametrize(
    ("hyperparam", "says"),
    [
        ({"vp_token_num": 9}, r"vp_token_num is 9; .* say 8"),
        ({"tp_prefix_token_num": 4}, r"tp_prefix_token_num is 4; .* say 3"),
        ({"input_res": 224}, r"input_res is 224; .* say 16"),
        ({"tp_suffix_token_num": None}, "tp_suffix_token_num is None"),
        ({"tp_suffix_token_num": 9, "tp_prefix_token_num": -1}, "text_suffix is 9; .*text_prompts, 8"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"pooling_type": "topk"}, "pooling_type is 'topk'"),
    ],
)
def test_wrong_configurations_are_refused(tmp_path, clip_state, hyperparam, says):
    make_release(tmp_path, clip_state, **hyperparam)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VopError, match=says):
        import_modelscope(tmp_path, tmp_path / "run")
    assert sorted(tmp_path.iterdir()) == before


def test_missing_files_are_named(tmp_path, clip_state):
    with pytest.raises(UsageError, match=r"nowhere: .*VoP_msrvtt9k\.pth"):
        import_modelscope(tmp_path / "nowhere", tmp_path / "run")
    make_release(tmp_path, clip_state, backbone_inside=False)
    (tmp_path / "ViT-B-32.pt").unlink()
    with pytest.raises(UsageError, match=r"ViT-B-32\.pt: .* not exist"):
        import_modelscope(tmp_path, tmp_path / "run")
    (tmp_path / "VoP_msrvtt9k.pth").unlink()
    with pytest.raises(UsageError, match=r"VoP_msrvtt9k\.pth: .* not exist"):
        import_modelscope(tmp_path, tmp_path / "run")
    (tmp_path / "configuration.json").write_text("{")
    with pytest.raises(VopError, match=r"configuration\.json"):
        import_modelscope(tmp_path, tmp_path / "run")
    (tmp_path / "configuration.json").unlink()
    with pytest.raises(UsageError, match=r"configuration\.json: .* not exist"):
        import_modelscope(tmp_path, tmp_path / "run")


def test_a_checkpoint_of_another_model_is_refused(tmp_path, clip_state):
    make_release(tmp_path, clip_state)
    torch.save({"state_dict": {f"clip.{n}": t for n, t in clip_state.items()}}, tmp_path / "VoP_msrvtt9k.pth")
    with pytest.raises(VopError, match=r"tensor '.*prompts' is missing"):
        import_modelscope(tmp_path, tmp_path / "run")
    prompts = {"visual_prompt_learner.visual_prompts": torch.ones(12, 1, 8, 768)}
    state = {f"clip.{n}": t for n, t in clip_state.items()} | prompts
    torch.save({"state_dict": state}, tmp_path / "VoP_msrvtt9k.pth")
    with pytest.raises(VopError, match=r"\(12, 1, 8, 768\); .* 3 x 1 x any x 128"):
        import_modelscope(tmp_path, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"type": ["x"]}}, r"model\.type is \['x'\]; the released models have"),
        ({"model": ["x"]}, r"model\.type is \['x'\]"),
        ({"hyperparam": {"seed": "x"}}, r"hyperparam\.seed is 'x'; it must be a whole number"),
        (
            {"hyperparam": {"video_sample_type": {"a": 1}}},
            r"hyperparam\.video_sample_type is \{'a': 1\}; it must be a name",
        ),
    ],
)
def test_values_of_a_wrong_type(tmp_path, clip_state, changes, says):
    make_release(tmp_path, clip_state)
    path = tmp_path / "configuration.json"
    values = json.loads(path.read_text())
    known = values["hyperparam"] | changes.get("hyperparam", {})
    path.write_text(json.dumps(values | changes | {"hyperparam": known}))
    with pytest.raises(VopError, match=rf"configuration\.json: {says}"):
        import_modelscope(tmp_path, tmp_path / "run")
