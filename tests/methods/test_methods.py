"""What holds for every method, on a tiny CLIP with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vop import methods
from vop.backbones.sizes import VIT_B_32
from vop.errors import UsageError
from vop.heads import HEADS, MEAN
from vop.methods.base import Method
from vop.models import model, pretrained

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
    ("full", {"train_logit_scale": False}),
    ("bias", {"train_logit_scale": True, "attention_biases": True}),
    ("adapter-attn", {"hidden": 3}),
    ("lora", {"rank": 2, "alpha": 2, "targets": ["fc1", "fc2"]}),
    ("dgl-linear", {"global_prompts": 1, "frame_prompts": 2}),
    *((name, {"head": head}) for name in ("zero-shot", "vop", "vop-f+c", "full") for head in HEADS if head != MEAN),
    ("bias", {"head": "seqTransf", "head.layers": 1}),
    ("tempme", {"join_layers": [2, 3], "join_clips": [1, 2], "merge_across": 0.5}),
    ("tempme", {"head": "seqTransf"}),
    ("discovla", {"fusion_layers": 3, "head": "x-pool"}),
    ("stop", {"regions": 1, "adapter_hidden": 4}),
]
TEMPORAL = ("vop-", "dgl-transformer", "tempme", "stop")  # beginnings of names
# What cannot change an embedding, so that it gets no gradient: prompts behind the [EOS] of a causal tower.
WITHOUT_EFFECT = {name: {"method.after.weight", "method.after.bias"} for name in ("dgl-linear", "stop")}
# They train parameters of the backbone or inside it.
OF_THE_BACKBONE = ("full", "bias", "proj", "partial", "lora", "vop-f+p+bias")


def build(tiny, name, dtype=torch.float32, **settings):
    torch.manual_seed(1)
    return pretrained.create(name, tiny, device="cpu", dtype=dtype, num_frames=FRAMES, **settings)


def batch(tiny, seed=0, videos=3):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (videos, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, tiny.sizes.text.vocab_size - 2, (videos, 9), generator=generator)
    ids[:, -1] = tiny.sizes.text.eos_token_id
    return ids, frames


def train_steps(built, data):
    """Train two steps: parameters behind a zero-initialised weight (LoRA, adapters) change in the second."""
    optimizer = torch.optim.SGD(built.trainable().values(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(built.logits(*built(*data)), torch.arange(len(data[0]))).backward()
        optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), VARIANTS)
@pytest.mark.parametrize(("dtype", "evaluated_before"), [(torch.float32, True), (torch.bfloat16, False)])
def test_only_trainable_parameters_change_in_training(tiny, name, settings, dtype, evaluated_before):
    built = build(tiny, name, dtype, **settings)
    data = batch(tiny)
    if evaluated_before:
        with torch.inference_mode():
            built.eval()(*data)
        built.train()
    before = {key: value.clone() for key, value in built.state_dict().items()}
    train_steps(built, data)
    changed = {key for key, value in built.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == set(built.trainable()) - WITHOUT_EFFECT.get(name, set())
    if name not in OF_THE_BACKBONE:
        assert all(key.startswith(("method.", "head.")) for key in changed)
    assert all(p.dtype == torch.float32 for p in built.trainable().values())


@pytest.mark.parametrize(("name", "settings"), [("zero-shot", {}), *VARIANTS])
def test_embeddings_are_unit_float32(tiny, name, settings):
    built = build(tiny, name, **settings)
    texts, videos = built(*batch(tiny))
    assert texts.dtype == videos.dtype == torch.float32
    if built.pairwise:
        assert (texts.shape, videos.shape) == ((3, 16), (3, FRAMES, 16))
        return
    for embeddings in (texts, videos):
        assert embeddings.shape == (3, 16)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(("name", "settings"), [("zero-shot", {}), *VARIANTS])
def test_batches_equal_their_items_one_by_one(tiny, name, settings):
    built = build(tiny, name, **settings).eval()
    ids, frames = batch(tiny)
    with torch.inference_mode():
        together = built(ids, frames)
        apart = [built(ids[i : i + 1], frames[i : i + 1]) for i in range(3)]
    for way in (0, 1):
        torch.testing.assert_close(together[way], torch.cat([one[way] for one in apart]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"), [case for case in VARIANTS if case[1].get("head") not in ("tightTransf", "x-pool")]
)
def test_only_temporal_methods_see_the_order_of_frames(tiny, name, settings):
    built = build(tiny, name, **settings).eval()
    for parameter in built.trainable().values():  # far from the small initial values
        parameter.data.mul_(10) if parameter.any() else parameter.data.normal_(std=0.1)
    _, frames = batch(tiny)
    with torch.inference_mode():
        forward, backward = (
            built.embed_frames(built.normalise(frames)),
            built.embed_frames(built.normalise(frames.flip(1))),
        )
    same = torch.allclose(forward, backward, rtol=0, atol=1e-5)
    assert same == (not name.startswith(TEMPORAL) and "head" not in settings)


@pytest.mark.parametrize("name", [*methods.METHODS, *methods.IMPORTED])
def test_declared_properties_of_methods_are_true(tiny, name):
    plain, built = build(tiny, "zero-shot"), build(tiny, name)
    modules = [dict(one.clip.named_modules()).keys() for one in (plain, built)]
    is_changed = any(p.requires_grad for p in built.clip.parameters()) or modules[0] != modules[1]
    assert methods.find(name).changes_backbone == is_changed
    frames = torch.randn(2, FRAMES, 16, generator=torch.Generator().manual_seed(0))
    is_its_own = not torch.equal(built.method.pool(frames), plain.method.pool(frames))
    assert methods.find(name).pools_itself == is_its_own


def test_undeclared_properties_default_to_the_safe_value():
    class Attaches(methods.find("zero-shot")):
        def attach(self, clip):
            pass

    class Pools(methods.find("vop")):
        def pool(self, frames):
            return frames[:, 0]

    class Neither(Pools):
        pools_itself = False

    assert (Attaches.changes_backbone, Attaches.pools_itself) == (True, False)
    assert (Pools.changes_backbone, Pools.pools_itself) == (False, True)
    assert not Neither.pools_itself


@pytest.mark.parametrize(("name", "settings"), [("zero-shot", {}), *VARIANTS])
def test_saved_models_open_with_the_same_or_more_frames(tiny, tmp_path, name, settings):
    from safetensors.torch import load_file

    built = build(tiny, name, **settings).eval()
    built.save_pretrained(tmp_path / "run")
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == built.trainable().keys()
    ids, frames = batch(tiny)
    again = pretrained.load(tmp_path / "run", device="cpu")
    assert not again.training
    more = pretrained.load(tmp_path / "run", num_frames=6, device="cpu")
    assert (more.num_frames, more.trained_frames) == (6, FRAMES)
    with torch.inference_mode():
        for one, other in zip(built(ids, frames), again(ids, frames), strict=True):
            assert torch.equal(one, other)
        assert more.logits(*more(ids, torch.cat([frames, frames[:, :2]], dim=1))).isfinite().all()


def test_zero_shot_equals_clip(tiny):
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


def test_vop_f_split_after_the_last_layer_is_vop(tiny):
    plain, split = build(tiny, "vop"), build(tiny, "vop-f", split_layer=3)
    split.method.load_state_dict(plain.method.state_dict())
    for one, other in zip(plain(*batch(tiny)), split(*batch(tiny)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["zero-shot", "vop-f+c"])
def test_the_logit_scale_is_not_rounded(tiny, name):
    assert build(tiny, name, torch.bfloat16).logit_scale == build(tiny, name).logit_scale


@pytest.mark.parametrize("name", ["vop", "vop-p", "vop-c", "vop-f", "vop-f+p", "vop-f+c"])
def test_text_prompts_above_layer_1_move_no_word(tiny, name):
    plain, moved, above = (build(tiny, name, text_layers=layers) for layers in ([], [1, 2], [2]))
    assert (moved.method.max_tokens, above.method.max_tokens) == (40 - 8, 40)
    ids = above.tokenize(["a b c d " * 20])
    assert ids.shape == (1, 40)
    seen = []
    for built in (plain, above):
        built.clip.text.layers[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
        built.embed_tokens(ids)
    words, with_prompts = seen  # at the input of layer 2
    assert with_prompts.shape[1] == 40 + 8
    assert torch.equal(with_prompts[:, [0, *range(9, 48)]], words)


def test_the_default_split_layer_is_the_papers():
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
        ("vop-p", {"specific_prompts": 9}, "specific_prompts is 9; .*visual_prompts, 8"),
        ("vop-c", {"cmm": "gru"}, "'gru'.*bilstm, lstm, transformer"),
        ("vop-c", {"cmm_role": "add"}, "'add'.*prompts, replace"),
        ("vop-f", {"split_layer": 4}, "split_layer is 4; .*0 to 3"),
        ("vop-f", {"split_layer": 1.5}, "split_layer is 1.5; it must be a whole number"),
        ("vop", {"visual_prompts": float("nan")}, "visual_prompts is nan; it must be a whole number"),
        ("vop", {"visual_layers": 3}, "visual_layers is 3; it must be a list"),
        ("tempme", {"merge_across": 1}, "merge_across is 1; .* below 1"),
        ("vop-c", {"cmm": ["lstm"]}, r"unknown cmm .*lstm.*known: bilstm, lstm, transformer"),
        ("lora", {"targets": 3}, "targets is 3; it must be a list"),
        ("vop", {"visual_layers": [1.5]}, "visual_layers is 1.5; it must be a whole number"),
        ("full", {"train_logit_scale": 1}, "train_logit_scale is 1; it must be true or false"),
        ("bias", {"attention_biases": "no"}, "attention_biases is 'no'; it must be true or false"),
        ("adapter-ffn", {"hidden": 0}, "hidden is 0; it must be a whole number, 1 or more"),
        ("lora", {"rank": 0}, "rank is 0; it must be a whole number, 1 or more"),
        ("lora", {"targets": ["q_proj"]}, "'q_proj'.*known: in_proj, out_proj, fc1, fc2"),
        ("lora", {"targets": "fc1"}, "targets is 'fc1'; it must be a list"),
        ("lora", {"targets": []}, r"targets is \[\]; .* in_proj"),
        ("dgl-linear", {"global_prompts": 0}, "global_prompts is 0; it must be a whole number, 1 or more"),
        ("dgl-transformer", {"text_prompts": 7}, "text_prompts is 7; it must be even"),
        ("dgl-linear", {"head": "seqLSTM"}, "head is seqLSTM; .*dgl-linear"),
        ("vop", {"head": "seqTransformer"}, "unknown head 'seqTransformer': did you mean seqTransf"),
        ("vop", {"head": "seqTransf", "head.layer": 2}, "has no setting 'layer': did you mean layers"),
        ("vop-modelscope", {"head": "seqLSTM"}, "head is seqLSTM; .*vop-modelscope"),
    ],
)
def test_wrong_settings_are_refused(tiny, name, settings, says):
    with pytest.raises(UsageError, match=says):
        build(tiny, name, **settings)


POSITIONED = [
    *(("vop-p", {}), ("vop-f", {}), ("vop-f+p", {}), ("vop-c", {"cmm": "transformer"}), ("dgl-transformer", {})),
    ("tempme", {}),
    *(("vop", {"head": "seqTransf"}), ("vop-f+p", {"head": "tightTransf"})),
]


@pytest.mark.parametrize(("name", "settings"), POSITIONED)
def test_another_number_of_frames_is_refused(tiny, name, settings):
    built = build(tiny, name, **settings)
    ids, _ = batch(tiny, videos=1)
    with pytest.raises(UsageError, match="6 frames.* 4 frames"):
        built.logits(*built(ids, torch.zeros(1, 6, 3, 32, 32, dtype=torch.uint8)))


@pytest.mark.parametrize(("name", "settings"), POSITIONED)
def test_frame_tables_are_interpolated_in_time(tiny, name, settings):
    built = build(tiny, name, **settings)
    tables = [(p.detach().clone(), axis) for p, axis in built.frame_tables()]
    assert tables
    built.resize_frames(7)
    old, new = ([(j + 0.5) / n for j in range(n)] for n in (FRAMES, 7))  # frames lie in the middle of their intervals
    for (before, axis), (after, _) in zip(tables, built.frame_tables(), strict=True):
        rows = before.movedim(axis, 0).flatten(1).T.numpy()
        expected = torch.tensor(np.stack([np.interp(new, old, row) for row in rows])).T
        torch.testing.assert_close(after.movedim(axis, 0).flatten(1).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["adapter-attn", "adapter-ffn", "lora", "full", "bias", "proj", "partial"])
def test_untrained_baselines_equal_clip(tiny, name):
    data = batch(tiny)
    for one, other in zip(build(tiny, name)(*data), build(tiny, "zero-shot")(*data), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


class Counting(Method):
    def __init__(self, sizes, *, persistent=True, **settings):
        super().__init__(sizes, **settings)
        self.register_buffer("steps", torch.ones(1), persistent=persistent)


def test_buffers_that_a_run_lacks_are_refused(tiny):
    with pytest.raises(UsageError, match="Counting has the buffer steps"):
        build(tiny, f"{__name__}:Counting")
    assert build(tiny, f"{__name__}:Counting", persistent=False).method.steps == 1


@pytest.mark.parametrize(("name", "trains"), [("full", True), ("bias", False)])
def test_train_logit_scale_overrides_the_methods_default(tiny, name, trains):
    for given, expected in (({}, trains), ({"train_logit_scale": not trains}, not trains)):
        assert ("clip.log_logit_scale" in build(tiny, name, **given).trainable()) == expected


def test_a_trained_logit_scale_stays_below_clips_limit(tiny):
    built, frozen = build(tiny, "full"), build(tiny, "vop")
    for each in (built, frozen):
        each.clip.log_logit_scale.data.fill_(9.0)
        each.limit_logit_scale()
    assert built.logit_scale == pytest.approx(100)
    assert frozen.logit_scale > 8000  # a frozen value does not change


def test_the_logit_scale_has_a_gradient_at_its_limit(tiny):
    """OpenAI's checkpoints start at the limit, or slightly above it after rounding."""
    built = build(tiny, "full")
    built.clip.log_logit_scale.data.fill_(4.6052)
    torch.nn.functional.cross_entropy(built.logits(*built(*batch(tiny))), torch.arange(3)).backward()
    assert built.clip.log_logit_scale.grad.abs() > 0


@pytest.mark.parametrize("head", ["tightTransf", "x-pool"])
def test_pairwise_heads_refuse_to_encode(tiny, tmp_path, head):
    built = build(tiny, "vop", head=head)
    for encode, what in ((built.encode_text, ["a"]), (built.encode_video, [tmp_path / "a.mp4"])):
        with pytest.raises(UsageError, match=f"{head} .*meanP.*seqLSTM.*seqTransf"):
            encode(what)


@pytest.mark.parametrize("head", ["tightTransf", "x-pool"])
def test_scoring_during_training_uses_no_dropout(tiny, head):
    built = build(tiny, "vop", head=head)
    texts, frames = torch.randn(4, 16), torch.randn(5, FRAMES, 16)
    assert torch.equal(built.train().score(texts, frames), built.eval().score(texts, frames))
    assert built.train().head.training
    built.score(texts, frames)
    assert built.head.training


@pytest.mark.parametrize("head", ["tightTransf", "x-pool"])
def test_scores_in_blocks_equal_scores_of_pairs(tiny, head, monkeypatch):
    built = build(tiny, "vop", head=head).eval()
    texts, frames = torch.randn(7, 16), torch.randn(5, FRAMES, 16)
    with torch.no_grad():
        expected = torch.cat([built.head.score(texts[i : i + 1], frames) for i in range(7)])
    monkeypatch.setattr(model, "SCORE_BYTES", 4 * 7 * 16 * 2)
    torch.testing.assert_close(built.score(texts, frames), expected, rtol=0, atol=1e-5)
