"""TempMe against its released code's numbers, and against its equations written with loops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from released import SIZES, clip, contrastive_loss, drawn, inputs, probe
from vop import methods
from vop.backbones.sizes import VIT_B_32, Rope, Sizes, VisionSizes
from vop.backbones.towers import CLIP
from vop.errors import UsageError
from vop.methods.low_rank import LowRank
from vop.models.params import count_parameters
from vop.models.pretrained import create

GOLDEN = json.loads(Path(__file__).with_name("tempme_golden.json").read_text())
JOINS = {9: 0, 10: 1, 11: 2}  # the layers of 12 that join, and their tables of positions


def released_names() -> dict[str, str]:
    """Our parameters and their names in the release."""
    names = {}
    for ours, theirs, layers in (("vision", "visual.transformer", 12), ("text", "transformer", 2)):
        for number in range(layers):
            attention = f"clip.{theirs}.resblocks.{number}.attn.TVPt_LoRA"
            names |= {f"{ours}.{number}.down": f"{attention}_a", f"{ours}.{number}.up": f"{attention}_b"}
    for number, table in JOINS.items():
        block = f"clip.visual.transformer.resblocks.{number - 1}"
        names[f"positions.{table}"] = f"{block}.TVPt_Video_Positional_embedding"
    return names


def build(sizes=SIZES):
    method = methods.create("tempme", sizes)
    names = released_names()
    for name, parameter in method.named_parameters():
        shape = (1, len(parameter), 1, parameter.shape[1]) if name.startswith("positions") else parameter.shape
        parameter.data = drawn(names[name], shape).reshape(parameter.shape)
    return method


def embed(method, tower, ids, pixels):
    texts, frames = method.embed_tokens(tower, ids), method.embed_frames(tower, pixels)
    return texts, frames, method.pool(frames)


def test_numbers_of_the_release():
    tower, method, names = clip(), build(), released_names()
    ids, pixels = inputs()
    texts, frames, videos = embed(method, tower, ids, pixels)
    released = {key: torch.tensor(GOLDEN[key]) for key in ("texts", "videos", "logits", "loss")}
    torch.testing.assert_close(texts, released["texts"], rtol=0, atol=1e-5)
    torch.testing.assert_close(F.normalize(frames, dim=-1).mean(dim=1), released["videos"], rtol=0, atol=1e-5)
    logits = tower.log_logit_scale.exp() * F.normalize(texts, dim=-1) @ videos.T
    torch.testing.assert_close(logits, released["logits"], rtol=0, atol=5e-5)
    loss = contrastive_loss(logits)
    torch.testing.assert_close(loss, released["loss"], rtol=0, atol=1e-5)
    loss.backward()
    gradients = {names[name]: parameter.grad for name, parameter in method.named_parameters()}
    found = {name: pytest.approx(probe(name, gradient), rel=1e-4, abs=2e-5) for name, gradient in gradients.items()}
    assert found == GOLDEN["gradients"]


class Reference:
    """The equations for one caption or one video, with loops over tokens. A token is (vector, size)."""

    def __init__(self, tower, method):
        self.tower, self.method = tower, method

    def attention(self, layer, update, tokens, *, causal=False):
        """The output for each token, and its keys' mean over heads."""
        x = torch.stack([vector for vector, _ in tokens])
        h = layer.attention_norm(x)
        width, heads = x.shape[1], layer.attention.heads
        projection = layer.attention.in_proj
        q, k, v = (h @ projection.weight.T + projection.bias + h @ update.down.T @ update.up.T).split(width, dim=1)
        parts = []
        for a in range(heads):
            own = slice(a * width // heads, (a + 1) * width // heads)
            scores = q[:, own] @ k[:, own].T / (width // heads) ** 0.5
            scores = scores + torch.tensor([size for _, size in tokens]).log()
            if causal:
                scores = scores + torch.full_like(scores, float("-inf")).triu(1)
            parts.append(scores.softmax(dim=1) @ v[:, own])
        out = layer.attention.out_proj
        attended = torch.cat(parts, dim=1) @ out.weight.T + out.bias
        keys = sum(k.split(width // heads, dim=1)) / heads
        return [(vector + more, size) for (vector, size), more in zip(tokens, attended, strict=True)], list(keys)

    @staticmethod
    def mlp(layer, tokens):
        return [(vector + layer.mlp(layer.mlp_norm(vector)), size) for vector, size in tokens]

    @staticmethod
    def merge(tokens, features, cls, count):
        """Merge `count` of the tokens behind the `cls` first ones. Places count from the sequence's first token."""
        if cls % 2 == 0:
            a, b = range(cls, len(tokens), 2), range(cls + 1, len(tokens), 2)
        else:  # as in ToMe, where A has the even places, the one of [CLS] among them
            a, b = range(cls + 1, len(tokens), 2), range(cls, len(tokens), 2)
        pairs = []
        unit = F.normalize(torch.stack(features).detach(), dim=1)
        alike = (unit @ unit.T).tolist()
        for i in a:
            pairs.append(max((alike[i][j], i, j) for j in b))
        into = {i: j for _, i, j in sorted(pairs, reverse=True)[:count]}
        kept = tokens[:cls] + [tokens[i] for i in a if i not in into]
        for j in b:
            group = [tokens[j], *(tokens[i] for i in a if into.get(i) == j)]
            size = sum(size for _, size in group)
            kept.append((sum(size * vector for vector, size in group) / size, size))
        return kept

    def video(self, pixels, joins=(2, 2, 3)):
        vision = self.tower.vision
        clips = [[(token, 1.0) for token in vision.pre_norm(vision.embed(frame[None]))[0]] for frame in pixels]
        cls, sizes = 1, []
        for number, (layer, update) in enumerate(zip(vision.layers, self.method.vision, strict=True), start=1):
            if number in JOINS:
                joined, position = joins[JOINS[number]], self.method.positions[JOINS[number]]
                groups = [range(start, start + joined) for start in range(0, len(clips), joined)]
                count = int(len(clips[0]) * joined * 0.3)
                together = []
                for group in groups:
                    order = [(i, t) for i in group for t in range(cls)]
                    order += [(i, t) for i in group for t in range(cls, len(clips[i]))]
                    moved = [(clips[i][t][0] + position[i], clips[i][t][1]) for i, t in order]
                    together.append(self.merge(moved, [clips[i][t][0] for i, t in order], cls * joined, count))
                clips, cls = together, cls * joined
            for i, tokens in enumerate(clips):
                tokens, keys = self.attention(layer, update, tokens)
                if number < 12:
                    tokens = self.merge(tokens, keys, cls, 2 if number < 9 else int(len(tokens) * 0.1))
                clips[i] = self.mlp(layer, tokens)
            sizes.append(len(clips[0]))
        self.sizes = sizes
        return torch.stack([vision.head(vector) for tokens in clips for vector, _ in tokens[:cls]])

    def text(self, ids):
        text = self.tower.text
        tokens = [(vector, 1.0) for vector in text.token_embedding(ids) + text.positions[: len(ids)]]
        for layer, update in zip(text.layers, self.method.text, strict=True):
            tokens, _ = self.attention(layer, update, tokens, causal=True)
            tokens = self.mlp(layer, tokens)
        return text.head(tokens[-1][0])


@pytest.mark.slow
def test_equations_with_loops():
    tower, method = clip(), build()
    ids, pixels = inputs()
    texts, frames, _ = embed(method, tower, ids[1:, :4], pixels[:1])
    reference = Reference(tower, method)
    expected = torch.stack([reference.text(ids[1][:4])])
    torch.testing.assert_close(texts, expected, rtol=0, atol=1e-5)
    by_loops = reference.video(pixels[0])
    torch.testing.assert_close(frames[0], by_loops, rtol=0, atol=1e-5)
    assert reference.sizes == [48, 46, 44, 42, 40, 38, 36, 34, 44, 56, 107, 107]  # of 49 patches and [CLS]
    parameters = list(method.vision.parameters()) + list(method.positions)
    ours, theirs = (torch.autograd.grad((x * torch.arange(16.0)).sum(), parameters) for x in (frames[0], by_loops))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_parameters_as_published():
    """0.50 M: low-rank updates in all layers, and positions of 12, 6 and 3 clips."""
    counts = count_parameters(VIT_B_32, only=["tempme"])["tempme"]
    assert counts.true_count == 12 * 4 * 8 * (768 + 512) + (12 + 6 + 3) * 768 == 507_648


def flops(name: str, sizes: Sizes, **settings) -> int:
    with torch.device("meta"):
        tower = CLIP(sizes).requires_grad_(False)
        method = methods.create(name, sizes, **settings)
        pixels = torch.empty(1, 12, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method.embed_frames(tower, pixels)
    return counter.get_total_flops()


@pytest.mark.slow
def test_operations():
    """Of the vision tower, for 12 frames. One operation multiplies and adds."""
    plain, merged = (flops(name, VIT_B_32) / 2e9 for name in ("zero-shot", "tempme"))
    assert (round(plain, 1), round(merged, 1)) == (49.7, 34.4)


@pytest.mark.parametrize(
    ("frames", "joins"), [(12, [2, 2, 3]), (64, [4, 4, 4]), (24, [2, 3, 4]), (7, [1, 1, 7]), (1, [1, 1, 1])]
)
def test_joins_follow_the_number_of_frames(frames, joins):
    method = methods.create("tempme", SIZES, num_frames=frames)
    lengths = [frames, frames // joins[0], frames // joins[0] // joins[1]]
    assert [len(table) for table in method.positions] == lengths == method.table_lengths(frames)
    assert method.embed_frames(clip(), torch.zeros(1, frames, 3, 28, 28)).shape == (1, frames, 16)


def test_positions_of_clips_are_interpolated_in_time(tiny):
    built = create("tempme", tiny, device="cpu", num_frames=4, join_layers=[2, 3])
    for table in built.method.positions:
        table.data.normal_()
    before = [table.detach().clone() for table in built.method.positions]
    assert [len(table) for table in before] == [4, 2]  # joins of 2 and 2
    built.resize_frames(9)
    assert [len(table) for table in built.method.positions] == [9, 3]
    first, second = built.method.positions
    torch.testing.assert_close(first[4], (before[0][1] + before[0][2]) / 2)  # the middle of the video
    torch.testing.assert_close(second[1], before[1].mean(dim=0))
    assert built.embed_frames(torch.zeros(1, 9, 3, 32, 32)).shape == (1, 16)


def test_fixed_joins_must_divide_the_frames():
    method = methods.create("tempme", SIZES, num_frames=6, join_layers=[4, 8], join_clips=[1, 3])
    assert [len(table) for table in method.positions] == [6, 6]
    assert method.table_lengths(9) == [9, 9]
    with pytest.raises(UsageError, match=r"join_clips is \[1, 3\]; of 8 frames .* 3 of 8 clips"):
        method.table_lengths(8)
    with pytest.raises(UsageError, match=r"join_clips is \[2\]; .* \[4, 8\]"):
        methods.create("tempme", SIZES, join_layers=[4, 8], join_clips=[2])
    with pytest.raises(UsageError, match="layer 1"):
        methods.create("tempme", SIZES, join_layers=[1])


def test_rotary_positions_are_refused():
    with pytest.raises(UsageError, match="rotary.*lora"):
        methods.create("tempme", Sizes(vision=VisionSizes(rope=Rope(reference=7))))


def test_a_clip_without_cls_is_pooled_in_whole():
    """One frame after the other through a tower that averages patches, or all in one clip."""
    sizes = Sizes(
        vision=VisionSizes(width=64, layers=3, heads=1, mlp_width=64, image_size=28, patch_size=7, class_token=False,
                           readout="mean"),
        text=SIZES.text, embed_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    tower, method = CLIP(sizes), methods.create("tempme", sizes, num_frames=4)
    frames = method.embed_frames(tower, torch.randn(2, 4, 3, 28, 28))
    assert frames.shape == (2, 4, 16)
    assert torch.equal(frames[:, 0], frames[:, 3])
    assert not torch.allclose(frames[0, 0], frames[1, 0])


def test_an_update_starts_at_0():
    update = LowRank(8, 2)
    assert update.down.abs().max() > 0
    assert update(torch.randn(3, 8)).abs().max() == 0
