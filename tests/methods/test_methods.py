"""What holds for every method, on a tiny CLIP with random weights."""

from __future__ import annotations

import pytest
import torch

from vop import methods, model
from vop.backbone.config import VIT_B_32
from vop.errors import UsageError

FRAMES = 4
TUNED = [name for name in methods.METHODS if name != "zero-shot"]
VARIANTS = [(name, {}) for name in TUNED] + [
    ("vop", {"text_layers": []}),
    ("vop", {"visual_layers": []}),
    ("vop", {"text_layers": [2], "visual_layers": [1, 3]}),
    ("vop-p", {"specific_prompts": 8}),
    ("vop-c", {"cmm": "lstm"}),
    ("vop-c", {"cmm": "transformer"}),
    ("vop-c", {"cmm_role": "replace"}),
    ("vop-f", {"split_layer": 0}),
    ("vop-f+p", {"split_layer": 0}),
    ("vop-f+c", {"split_layer": 0}),
    ("vop-f+p", {"split_layer": 3}),
]


def build(tiny, name, dtype=torch.float32, **settings):
    torch.manual_seed(1)
    return model.create(name, tiny, device="cpu", dtype=dtype, num_frames=FRAMES, **settings)


def batch(tiny, seed=0, videos=3):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (videos, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, tiny.sizes.vocab_size - 2, (videos, 9), generator=generator)
    ids[:, -1] = tiny.sizes.eos_token_id
    return ids, frames


def train_step(built, data):
    texts, videos = built(*data)
    optimizer = torch.optim.SGD(built.trainable().values(), lr=1.0)
    torch.nn.functional.cross_entropy(100 * texts @ videos.T, torch.arange(len(texts))).backward()
    optimizer.step()


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("evaluated_before", [False, True])
def test_a_step_moves_all_that_trains_and_nothing_else(tiny, name, settings, dtype, evaluated_before):
    built = build(tiny, name, dtype, **settings)
    data = batch(tiny)
    if evaluated_before:
        with torch.inference_mode():
            built.eval()(*data)
        built.train()
    before = {key: value.clone() for key, value in built.state_dict().items()}
    train_step(built, data)
    moved = {key for key, value in built.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == set(built.trainable())
    assert all(key.startswith("method.") for key in moved)
    assert all(p.dtype == torch.float32 for p in built.trainable().values())


@pytest.mark.parametrize(("name", "settings"), [("zero-shot", {}), *VARIANTS])
def test_embeddings_are_unit_float32(tiny, name, settings):
    texts, videos = build(tiny, name, **settings)(*batch(tiny))
    for embeddings in (texts, videos):
        assert embeddings.shape == (3, 16)
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(("name", "settings"), [("zero-shot", {}), *VARIANTS])
def test_a_batch_is_its_items(tiny, name, settings):
    built = build(tiny, name, **settings).eval()
    ids, frames = batch(tiny)
    with torch.inference_mode():
        together = built(ids, frames)
        apart = [built(ids[i : i + 1], frames[i : i + 1]) for i in range(3)]
    for way in (0, 1):
        torch.testing.assert_close(together[way], torch.cat([one[way] for one in apart]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_only_temporal_methods_see_the_order_of_frames(tiny, name, settings):
    built = build(tiny, name, **settings).eval()
    for parameter in built.trainable().values():  # away from the small initial values
        parameter.data.mul_(10)
    _, frames = batch(tiny)
    with torch.inference_mode():
        forward, backward = (
            built.embed_frames(built.normalise(frames)),
            built.embed_frames(built.normalise(frames.flip(1))),
        )
    same = torch.allclose(forward, backward, rtol=0, atol=1e-5)
    assert same == (name == "vop")


@pytest.mark.parametrize(("name", "settings"), [("zero-shot", {}), *VARIANTS])
def test_saved_and_loaded_it_is_the_same(tiny, tmp_path, name, settings):
    from safetensors.torch import load_file

    built = build(tiny, name, **settings)
    built.save_pretrained(tmp_path / "run")
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == built.trainable().keys()
    again = model.load(tmp_path / "run", device="cpu")
    assert not again.training
    with torch.inference_mode():
        for one, other in zip(built(*batch(tiny)), again(*batch(tiny)), strict=True):
            assert torch.equal(one, other)


def test_zero_shot_is_clip_itself(tiny):
    built = build(tiny, "zero-shot")
    ids, frames = batch(tiny)
    with torch.inference_mode():
        texts, videos = built(ids, frames)
        pixels = built.normalise(frames)
        each = torch.stack(
            [torch.nn.functional.normalize(built.clip.vision(pixels[:, j]), dim=-1) for j in range(FRAMES)]
        )
        expected = torch.nn.functional.normalize(each.mean(dim=0), dim=-1)
    torch.testing.assert_close(videos, expected)
    torch.testing.assert_close(texts, torch.nn.functional.normalize(built.clip.text(ids), dim=-1))
    assert built.trainable() == {}


def test_vop_f_at_full_depth_is_vop(tiny):
    plain, split = build(tiny, "vop"), build(tiny, "vop-f", split_layer=3)
    split.method.load_state_dict(plain.method.state_dict())
    for one, other in zip(plain(*batch(tiny)), split(*batch(tiny)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["zero-shot", "vop-f+c"])
def test_the_logit_scale_is_not_rounded(tiny, name):
    assert build(tiny, name, torch.bfloat16).logit_scale == build(tiny, name).logit_scale


def test_ks_follows_the_paper():
    with torch.device("meta"):
        assert methods.create("vop-f", VIT_B_32).split_layer == 8


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("vop-x", {}, "'vop-x'.*did you mean vop"),
        ("vop", {"visual_prompt": 8}, "'visual_prompt'.*visual_prompts"),
        ("vop", {"visual_layers": [4]}, "visual_layers names layer 4; the tower has layers 1 to 3"),
        ("vop", {"text_prompts": 38}, "text_prompts is 38.*use at most 37"),
        ("vop", {"text_prompts": -1}, "text_prompts is -1"),
        ("vop", {"text_prompts": "many"}, "many"),
        ("vop-p", {"specific_prompts": 9}, "specific_prompts is 9 of visual_prompts 8"),
        ("vop-c", {"cmm": "gru"}, "'gru'.*bilstm, lstm, transformer"),
        ("vop-c", {"cmm_role": "add"}, "'add'.*prompts, replace"),
        ("vop-f", {"split_layer": 4}, "split_layer is 4; the vision tower takes 0 to 3"),
        ("vop-f", {"split_layer": 1.5}, "split_layer is 1.5; it is a whole number"),
        ("vop", {"visual_prompts": float("nan")}, "visual_prompts is nan; it is a whole number"),
        ("vop", {"visual_layers": [1.5]}, "visual_layers is 1.5; it is a whole number"),
    ],
)
def test_wrong_settings_are_named(tiny, name, settings, says):
    with pytest.raises(UsageError, match=says):
        build(tiny, name, **settings)


@pytest.mark.parametrize("name", ["vop-p", "vop-f", "vop-f+p"])
def test_another_number_of_frames_is_refused(tiny, name):
    built = build(tiny, name)
    with pytest.raises(UsageError, match="6 frames a video.*num_frames=4"):
        built.embed_frames(torch.zeros(1, 6, 3, 32, 32))
