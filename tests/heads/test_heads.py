"""Properties of the similarity heads: scores, initialisation, and refused settings."""

from __future__ import annotations

import pytest
import torch
from head_data import EMBEDDING, FRAMES, NARROW, PAIRWISE, VARIANTS, WIDE, build, embeddings, moved
from torch.nn import functional as F

from vop import heads
from vop.backbones.sizes import VIT_B_32, Sizes
from vop.backbones.towers import CLIP
from vop.errors import UsageError

TABLES = ["seqTransf", "tightTransf"]


def make_clip(sizes=WIDE, *, seed=5):
    torch.manual_seed(seed)
    clip = CLIP(sizes).requires_grad_(False)
    for parameter in clip.parameters():  # biases and norms too
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return clip


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_scores_of_a_block_equal_those_of_its_pairs(name, settings):
    head = moved(build(name, **settings))
    texts, frames = embeddings()
    with torch.inference_mode():
        block = head.score(texts, frames)
        pairs = [[head.score(texts[i : i + 1], frames[j : j + 1]) for j in range(3)] for i in range(5)]
    assert block.shape == (5, 3)
    torch.testing.assert_close(block, torch.tensor(pairs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), EMBEDDING)
def test_batches_equal_their_items_one_by_one(name, settings):
    head = moved(build(name, **settings))
    _, frames = embeddings()
    with torch.inference_mode():
        apart = torch.cat([head.pool(video[None]) for video in frames])
        torch.testing.assert_close(head.pool(frames), apart, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), PAIRWISE)
def test_pairwise_heads_refuse_to_pool(name, settings):
    head = build(name, **settings)
    with pytest.raises(UsageError, match=f"{type(head).__name__} is pairwise.*score"):
        head.pool(embeddings()[1])


def test_separate_heads_are_those_that_are_not_pairwise():
    assert set(heads.APART) == {name for name in heads.HEADS if not heads.find(name).pairwise}


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_only_temporal_heads_see_the_order_of_frames(name, settings):
    head = moved(build(name, **settings))
    texts, frames = embeddings()
    with torch.inference_mode():
        forward, backward = head.score(texts, frames), head.score(texts, frames.flip(1))
    assert torch.allclose(forward, backward, rtol=0, atol=1e-5) == (name in ("meanP", "x-pool"))


@pytest.mark.parametrize(("name", "settings"), [variant for variant in VARIANTS if variant[0] != "meanP"])
def test_every_initial_tensor_gets_a_gradient(name, settings):
    head = build(name, **settings)
    head.start_from(make_clip())
    texts, frames = embeddings(texts=3)
    scale = 100 if head.scaled else 1
    logits, pairs = scale * head.score(texts, frames), torch.arange(3)
    (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)).backward()
    largest = {key: 0.0 if p.grad is None else float(p.grad.abs().max()) for key, p in head.named_parameters()}
    assert largest
    assert {key for key, gradient in largest.items() if gradient < 1e-5} == set()


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_cast_up(name, settings, dtype):
    head = moved(build(name, **settings))
    low = [x.to(dtype) for x in embeddings()]
    with torch.inference_mode():
        scores = head.score(*low)
        assert scores.dtype == torch.float32
        assert torch.equal(scores, head.score(*(x.float() for x in low)))
        if not head.pairwise:
            assert torch.equal(head.pool(low[1]), head.pool(low[1].float()))


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_saved_and_loaded_heads_are_equal(name, settings, tmp_path):
    from safetensors.torch import load_file, save_file

    head, again = moved(build(name, **settings)), build(name, seed=2, **settings).eval()
    save_file(dict(head.state_dict()), tmp_path / "head.safetensors")
    again.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert head.state_dict().keys() == dict(head.named_parameters()).keys()
    with torch.inference_mode():
        assert torch.equal(head.score(*embeddings()), again.score(*embeddings()))


# Initialisation


def test_mean_pooling_equals_that_of_methods():
    from vop.methods.base import Method

    _, frames = embeddings()
    assert torch.equal(build("meanP").pool(frames), Method(WIDE).pool(frames))


def test_x_pool_starts_as_attention_between_normalised_embeddings():
    head = build("x-pool").eval()
    texts, frames = embeddings()
    unit = [F.layer_norm(x, x.shape[-1:]) for x in (texts, frames)]
    weights = torch.einsum("te,vfe->tvf", *unit).div(128**0.5).softmax(dim=-1)
    expected = F.layer_norm(torch.einsum("tvf,vfe->tve", weights, unit[1]), (128,))
    with torch.inference_mode():
        scores = head.score(texts, frames)
    torch.testing.assert_close(scores, F.cosine_similarity(texts[:, None], expected, dim=-1), rtol=0, atol=1e-5)


def test_x_pool_of_a_still_video_starts_as_a_centred_cosine():
    head = build("x-pool").eval()
    texts, frames = embeddings()
    still = frames[:, :1].expand(-1, FRAMES, -1)
    centred = frames[:, 0] - frames[:, 0].mean(dim=-1, keepdim=True)
    expected = F.cosine_similarity(texts[:, None], centred[None], dim=-1)
    with torch.inference_mode():
        torch.testing.assert_close(head.score(texts, still), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(head.score(texts, frames[:, :1]), expected, rtol=0, atol=1e-5)


def test_sequence_transformers_start_as_the_first_text_layers():
    clip, head = make_clip(), build("seqTransf", layers=2)
    head.start_from(clip)
    _, frames = embeddings()
    x = frames + clip.text.positions[:FRAMES]
    for layer in clip.text.layers[:2]:
        x = layer(x)
    with torch.inference_mode():
        torch.testing.assert_close(head.pool(frames), build("meanP").pool(x + frames))


def test_tight_transformers_start_with_the_text_at_position_0():
    clip, head = make_clip(), build("tightTransf", layers=1)
    head.start_from(clip)
    texts, frames = embeddings(texts=1, videos=1)
    expected = torch.cat([texts, frames[0]]) + clip.text.positions[: 1 + FRAMES]
    assert torch.equal(head.pair_tokens(texts, frames)[0], expected)
    for key, tensor in clip.text.layers[0].state_dict().items():
        assert torch.equal(head.layers[0].state_dict()[key], tensor)


@pytest.mark.parametrize("name", TABLES)
def test_layers_beyond_the_text_towers_stay_random(name):
    clip, head, fresh = make_clip(), build(name, num_frames=20), build(name, num_frames=20)
    head.start_from(clip)
    same = [
        all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        for one, other in zip(head.layers, fresh.layers, strict=True)
    ]
    assert same == [False, False, False, True]  # the tower has three layers
    rows = (head.positions == fresh.positions).all(dim=1).tolist()
    known = 9 if name == "seqTransf" else 8  # of nine positions, tightTransf gives the first to the text
    assert rows == [False] * known + [True] * (20 - known)


@pytest.mark.parametrize("name", TABLES)
def test_a_text_tower_of_another_width_is_not_used(name):
    head, fresh = build(name, NARROW), build(name, NARROW)
    head.start_from(make_clip(NARROW))
    assert all(torch.equal(tensor, fresh.state_dict()[key]) for key, tensor in head.state_dict().items())


@pytest.mark.parametrize("name", TABLES)
def test_initial_tensors_are_copies(name):
    clip, head = make_clip().to(torch.bfloat16), build(name)
    before = {key: tensor.clone() for key, tensor in clip.state_dict().items()}
    head.start_from(clip)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in head.parameters())
    moved(head)
    assert all(torch.equal(tensor, before[key]) for key, tensor in clip.state_dict().items())


def test_random_layers_have_clips_standard_deviations():
    layer = build("seqTransf", layers=4).layers[0]
    deviations = {
        layer.attention.in_proj: 128**-0.5,
        layer.attention.out_proj: 128**-0.5 * 8**-0.5,
        layer.mlp.fc1: 256**-0.5,
        layer.mlp.fc2: 128**-0.5 * 8**-0.5,
    }
    for linear, std in deviations.items():
        assert linear.weight.std().item() == pytest.approx(std, rel=0.05)
        assert not linear.bias.any()


def test_parameters_on_vit_b_32():
    block = 12 * 512**2 + 13 * 512  # attention 4 e^2 + 4 e, MLP 8 e^2 + 5 e, two norms 4 e
    expected = {
        "meanP": 0,
        "seqLSTM": 4 * (2 * 512**2 + 2 * 512),
        "seqTransf": 4 * block + 12 * 512,
        "tightTransf": 4 * block + (12 + 1 + 2) * 512 + 2 * 512 + 512**2 + 512 + 512,
        "x-pool": 5 * 512**2 + 4 * 512 + 3 * 2 * 512,
    }
    with torch.device("meta"):
        built = {name: heads.create(name, VIT_B_32) for name in heads.HEADS}
    assert {name: sum(p.numel() for p in head.parameters()) for name, head in built.items()} == expected


# Settings


def test_settings_do_not_include_the_number_of_frames():
    assert {name: heads.settings_of(name) for name in heads.HEADS} == {
        "meanP": {},
        "seqLSTM": {},
        "seqTransf": {"layers": 4},
        "tightTransf": {"layers": 4},
        "x-pool": {"heads": 1, "dropout": 0.3},
    }
    assert build("x-pool", heads=2).settings == {"heads": 2, "dropout": 0.3}


@pytest.mark.parametrize(
    ("name", "settings", "drops"),
    [("x-pool", {}, True), ("x-pool", {"dropout": 0.0}, False), ("tightTransf", {}, True), ("seqTransf", {}, False)],
)
def test_dropout_is_used_only_in_training(name, settings, drops):
    head, data = build(name, **settings), embeddings()
    with torch.inference_mode():
        assert torch.equal(head.score(*data), head.score(*data)) != drops
        head.eval()
        assert torch.equal(head.score(*data), head.score(*data))


@pytest.mark.parametrize("name", list(heads.HEADS))
def test_only_heads_with_positions_fix_the_number_of_frames(name):
    head, (texts, frames) = build(name).eval(), embeddings()
    tables = head.frame_tables()
    assert [table.shape[axis] for table, axis in tables] == ([FRAMES] if name in TABLES else [])
    if not tables:
        assert head.score(texts, frames[:, :3]).shape == (5, 3)
        return
    with pytest.raises(UsageError, match=f"3 frames.* {FRAMES} frames"):
        head.score(texts, frames[:, :3])
    for table, _ in tables:
        table.data = table.data[:3]
    assert head.score(texts, frames[:, :3]).shape == (5, 3)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("xpool", {}, "unknown head 'xpool': did you mean x-pool"),
        ("seqTransf", {"layer": 2}, "has no setting 'layer': did you mean layers"),
        ("meanP", {"layers": 2}, "has no setting 'layers'"),
        ("seqTransf", {"layers": 0}, "layers is 0; it must be a whole number, 1 or more"),
        ("tightTransf", {"layers": 2.0}, "layers is 2.0; it must be a whole number"),
        ("x-pool", {"heads": 3}, "heads is 3; .*128 dimensions"),
        ("x-pool", {"heads": 0}, "heads is 0; it must be a whole number"),
        ("x-pool", {"dropout": 1}, "dropout is 1; it must be a number, at least 0 and below 1"),
        ("x-pool", {"dropout": float("nan")}, "dropout is nan"),
        ("x-pool", {"dropout": "high"}, "dropout is 'high'; it must be a number"),
        ("meanP", {"num_frames": 0}, "num_frames is 0; it must be a whole number, 1 or more"),
    ],
)
def test_wrong_settings_are_refused(name, settings, says):
    with pytest.raises(UsageError, match=says):
        build(name, **settings)


@pytest.mark.parametrize("name", TABLES)
def test_an_indivisible_joint_space_is_refused(name):
    with pytest.raises(UsageError, match="width .* 200, .* 3 attention heads"):
        heads.create(name, Sizes(embed_dim=200))
