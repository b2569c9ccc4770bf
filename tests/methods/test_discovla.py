"""DiscoVLA's towers against its released code's numbers, and against the equations written with loops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from released import SIZES, clip, contrastive_loss, drawn, inputs, probe
from vop import methods
from vop.backbones.sizes import VIT_B_32
from vop.backbones.towers import CLIP
from vop.errors import UsageError
from vop.models.params import count_parameters

GOLDEN = json.loads(Path(__file__).with_name("discovla_golden.json").read_text())


def released_name(name: str) -> str:
    """The name of one of our parameters in the release."""
    part, number, *rest = name.split(".")
    if part == "fusions":
        return f"clip.visual.transformer.resblocks.{8 + int(number)}.attn.TVPt_{rest[0]}_{rest[1]}"
    start = "clip.visual.transformer" if part == "vision" else "clip.transformer"
    return f"{start}.resblocks.{number}.attn.TVPt_LoRA_{'a' if rest == ['down'] else 'b'}"


def build():
    method = methods.create("discovla", SIZES)
    for name, parameter in method.named_parameters():
        parameter.data = drawn(released_name(name), parameter.shape)
    return method


def test_numbers_of_the_release():
    tower, method = clip(), build()
    ids, pixels = inputs()
    texts, frames = method.embed_tokens(tower, ids), method.embed_frames(tower, pixels)
    released = {key: torch.tensor(GOLDEN[key]) for key in ("texts", "frames", "videos", "logits", "loss")}
    torch.testing.assert_close(texts, released["texts"], rtol=0, atol=1e-5)
    torch.testing.assert_close(frames[0], released["frames"], rtol=0, atol=1e-5)
    torch.testing.assert_close(F.normalize(frames, dim=-1).mean(dim=1), released["videos"], rtol=0, atol=1e-5)
    logits = tower.log_logit_scale.exp() * F.normalize(texts, dim=-1) @ method.pool(frames).T
    torch.testing.assert_close(logits, released["logits"], rtol=0, atol=5e-5)
    loss = contrastive_loss(logits)
    torch.testing.assert_close(loss, released["loss"], rtol=0, atol=1e-5)
    loss.backward()
    gradients = {released_name(name): parameter.grad for name, parameter in method.named_parameters()}
    found = {name: pytest.approx(probe(name, gradient), rel=1e-4, abs=2e-5) for name, gradient in gradients.items()}
    assert found == GOLDEN["gradients"]


def attended(layer, update, query, tokens):
    """The attention of one token's input to those of others, by heads."""
    inputs = torch.stack([query, *tokens])
    projected = inputs @ layer.attention.in_proj.weight.T + layer.attention.in_proj.bias
    q, k, v = (projected + inputs @ update.down.T @ update.up.T).chunk(3, dim=1)
    width, heads = len(query), layer.attention.heads
    parts = []
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        weights = torch.stack([q[0, own] @ key for key in k[1:, own]]) / (width // heads) ** 0.5
        parts.append(sum(weight * value for weight, value in zip(weights.softmax(dim=0), v[1:, own], strict=True)))
    return layer.attention.out_proj(torch.cat(parts))


@pytest.mark.parametrize("heads", [1, 4])
def test_equations_with_loops(heads):
    sizes = replace(SIZES, vision=replace(SIZES.vision, layers=3, heads=heads, patch_size=14))
    tower, method = clip(sizes), methods.create("discovla", sizes, num_frames=3, fusion_layers=2)
    for name, parameter in method.named_parameters():
        parameter.data = drawn(name, parameter.shape)
    pixels, vision = inputs()[1][:1, :3], tower.vision
    frames = [list(vision.pre_norm(vision.embed(frame[None]))[0]) for frame in pixels[0]]
    for number, (layer, update) in enumerate(zip(vision.layers, method.vision, strict=True)):
        inner = [[layer.attention_norm(token) for token in frame] for frame in frames]
        after = []
        for frame, normed in zip(frames, inner, strict=True):
            results = [attended(layer, update, token, normed) for token in normed]
            if number >= 1:
                bottleneck = method.fusions[number - 1]
                hidden = bottleneck.down(results[0])
                wide = attended(layer, update, normed[0], [token for other in inner for token in other])
                results[0] = wide + bottleneck.up(hidden * torch.sigmoid(1.702 * hidden))
            summed = [token + result for token, result in zip(frame, results, strict=True)]
            after.append([token + layer.mlp(layer.mlp_norm(token)) for token in summed])
        frames = after
    expected = torch.stack([vision.head(frame[0]) for frame in frames])
    found = method.embed_frames(tower, pixels)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    parameters = [*method.vision.parameters(), *method.fusions.parameters()]
    ours, theirs = (torch.autograd.grad((x * torch.arange(16.0)).sum(), parameters) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_parameters():
    """The release has the same bottlenecks in two text layers, for pseudo captions: 561,200."""
    of_vision = 4 * (2 * 8 * 768 + 8 + 768)
    count = count_parameters(VIT_B_32, only=["discovla"])["discovla"].true_count
    assert count == 12 * 4 * 8 * (768 + 512) + of_vision == 543_776
    assert count + 2 * (2 * 8 * 512 + 8 + 512) == 561_200


def test_without_fusion_a_video_is_its_frames():
    tower, method = clip(), methods.create("discovla", SIZES, fusion_layers=0)
    pixels = inputs()[1][:, :3]
    torch.testing.assert_close(method.embed_frames(tower, pixels), tower.embed_frames(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("readout", ["mean", "attention"])
def test_a_tower_without_cls_fuses_its_summary(readout):
    vision = replace(SIZES.vision, layers=2, class_token=False, readout=readout, pool_heads=1, pool_mlp_width=64)
    tower = CLIP(replace(SIZES, vision=vision))
    method = methods.create("discovla", tower.sizes, fusion_layers=1)
    pixels = inputs()[1][:1, :4]
    frames, alone = method.embed_frames(tower, pixels)[0], method.embed_frames(tower, pixels[:, :1])[0, 0]
    assert frames.shape == (4, 16)
    assert not torch.allclose(frames[0], alone)


def test_too_many_layers_are_refused():
    with pytest.raises(UsageError, match="fusion_layers is 13; .* 12"):
        methods.create("discovla", SIZES, fusion_layers=13)
