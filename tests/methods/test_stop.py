"""STOP against its released code's numbers, and against its equations written with loops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from released import STOP_FRAMES, STOP_SIZES, clip, contrastive_loss, drawn, inputs, probe
from vop import methods
from vop.backbones.sizes import VIT_B_32
from vop.methods.stop import Convolution
from vop.models.params import count_parameters

GOLDEN = json.loads(Path(__file__).with_name("stop_golden.json").read_text())
REGIONS = "visual.TemporalPrompt.Cal_Net"


def released_names() -> dict[str, str]:
    """Our parameters and their names in the release."""
    parts = {"within_frames.conv": "Conv", "within_frames.mlp": "MLP", "between_frames.conv": "InterConv"}
    parts |= {"between_frames.mlp": "InterMLP", "between_frames.attention": "Attention"}
    parts |= {"between_frames.weight": "Cal_Net_Inter"}
    places = {"down": "0", "activation": "1", "up": "2"}
    names = {"global_prompts": "visual.prompt_embeddings", "local_prompts": "visual_prompt_embedding"}
    for name, _ in methods.create("stop", STOP_SIZES).named_parameters():
        first, _, rest = name.partition(".")
        if first in ("before", "after"):
            names[name] = f"{'prefix' if first == 'before' else 'postfix'}_text_prompt_proj_layer.{rest}"
        elif first in ("text", "vision"):
            number, part, kind = rest.split(".")
            start = "visual.transformer" if first == "vision" else "transformer"
            names[name] = f"{start}.resblocks.{number}.LoRA.{places[part]}.{kind}"
        elif name not in names:
            part = next(part for part in parts if name.startswith(part + "."))
            names[name] = f"visual.TemporalPrompt.{parts[part]}.{name.removeprefix(part + '.')}"
    return names


def build():
    method = methods.create("stop", STOP_SIZES, num_frames=STOP_FRAMES).eval()
    names, depth = released_names(), STOP_SIZES.vision.layers
    for name, parameter in method.named_parameters():
        if name == "local_prompts":
            prompts = drawn(names[name], (1, parameter.shape[1], depth * parameter.shape[2]))
            parameter.data = prompts.view(parameter.shape[1], depth, -1).transpose(0, 1).contiguous()
        elif name == "global_prompts":
            parameter.data = drawn(names[name], (1, *parameter.shape))[0]
        else:
            parameter.data = drawn(names[name], parameter.shape)
    method.within_frames.region_weight = drawn(f"{REGIONS}.weight", (1, 3, 5, 11, 11))
    method.within_frames.region_bias = drawn(f"{REGIONS}.bias", (1,))
    return method


@pytest.mark.slow
def test_numbers_of_the_release():
    tower, method, names = clip(STOP_SIZES).double(), build().double(), released_names()
    tower.compute_in(torch.float64)  # sums over pixels and frames lose digits in float32
    ids, pixels = inputs()[0], inputs()[1][:, :STOP_FRAMES].double()
    texts, videos = method.embed_tokens(tower, ids), method.embed_frames(tower, pixels)
    released = {key: torch.tensor(GOLDEN[key], dtype=torch.float64) for key in ("texts", "videos", "logits", "loss")}
    torch.testing.assert_close(texts, released["texts"], rtol=0, atol=1e-6)
    torch.testing.assert_close(videos.squeeze(1), released["videos"], rtol=0, atol=1e-6)
    logits = tower.log_logit_scale.exp() * F.normalize(texts, dim=-1) @ method.pool(videos).T
    torch.testing.assert_close(logits, released["logits"], rtol=0, atol=1e-6)
    loss = contrastive_loss(logits)
    torch.testing.assert_close(loss, released["loss"], rtol=0, atol=1e-5)
    loss.backward()
    gradients = {names[name]: parameter.grad for name, parameter in method.named_parameters()}
    prompts = gradients["visual_prompt_embedding"]  # (layers, P, d); in the release one row (P, layers * d)
    gradients["visual_prompt_embedding"] = prompts.transpose(0, 1)
    found = {name: pytest.approx(probe(name, gradient), rel=1e-6, abs=1e-7) for name, gradient in gradients.items()}
    assert found == GOLDEN["gradients"]
    assert GOLDEN["without_gradient"] == [f"{REGIONS}.bias", f"{REGIONS}.weight"]


def convolved(layer, x):
    """A convolution (channels, f, h, w), as a sum over the places of its kernel."""
    kernel = layer.weight.shape[2:]
    padded = F.pad(x, [side for size in reversed(kernel) for side in (size // 2, size // 2)])
    f, h, w = x.shape[1:]
    total = layer.bias[:, None, None, None]
    for t in range(kernel[0]):
        for i in range(kernel[1]):
            for j in range(kernel[2]):
                shifted = padded[:, t : t + f, i : i + h, j : j + w]
                total = total + torch.einsum("oc,cfhw->ofhw", layer.weight[:, :, t, i, j], shifted)
    return total


def prelu(layer, x):
    return torch.where(x > 0, x, layer.weight * x)


def through(module, vector):
    first, activation, second = module
    return second.weight @ prelu(activation, first.weight @ vector + first.bias) + second.bias


def regions_of(values, grid, count):
    """The classes of pixels, (y mod grid, x mod grid), with the largest means, in one frame (h, w)."""
    means = {(u, v): values[u::grid, v::grid].mean().item() for u in range(grid) for v in range(grid)}
    return set(sorted(means, key=means.get, reverse=True)[:count])


@pytest.mark.slow
def test_prompts_with_loops():
    method, grid = build(), STOP_SIZES.vision.grid
    within, between = method.within_frames, method.between_frames
    pixels = inputs()[1][0, :STOP_FRAMES]
    x = pixels.transpose(0, 1)
    first, second, act, third, last_act, fourth = within.conv
    hidden = convolved(fourth, prelu(last_act, convolved(third, prelu(act, convolved(second, convolved(first, x))))))
    chooser = torch.nn.Conv3d(3, 1, (5, 11, 11))
    chooser.weight.data, chooser.bias.data = within.region_weight, within.region_bias
    values = convolved(chooser, x)[0]
    chosen = [regions_of(frame, grid, 6) for frame in values]
    places = [(3, 0, 0), (0, 5, 9), (1, 27, 27), (2, 14, 3), *((0, u, v) for u, v in chosen[0])]
    found, regions = within(pixels[None])
    for f, y, x in [(f % STOP_FRAMES, y, x) for f, y, x in places]:
        prompt = 0.05 * through(within.mlp, hidden[:, f, y, x])
        strength = 2 if (y % grid, x % grid) in chosen[f] else 1
        torch.testing.assert_close(found[0, f, :, y, x], pixels[f, :, y, x] + strength * prompt, rtol=0, atol=1e-5)
    assert [{tuple(place) for place in frame.nonzero().tolist()} for frame in regions[0]] == chosen

    patches = drawn("patches", (STOP_FRAMES, grid**2, STOP_SIZES.vision.width), std=1)
    tokens = patches.flatten(0, 1)
    q, k, v = (tokens @ between.attention.in_proj_weight.T + between.attention.in_proj_bias).chunk(3, dim=1)
    out = between.attention.out_proj
    attended = (q @ k.T / q.shape[1] ** 0.5).softmax(dim=1) @ v @ out.weight.T + out.bias  # one head
    attended = attended.view(1, *patches.shape)
    values, weights = convolved(between.weight, attended)[0], []
    for f, frame in enumerate(values):
        sums = [patch.sum().item() * (2 if divmod(n, grid) in chosen[f] else 1) for n, patch in enumerate(frame)]
        weights.append(sum(sums) / frame.numel())
    weights = [(weight - min(weights)) / (max(weights) - min(weights)) for weight in weights]
    assert sorted(weights)[0] == 0
    hidden = convolved(between.conv[2], prelu(between.conv[1], convolved(between.conv[0], attended)))[0]
    prompts = between(patches[None], regions)[0]
    assert prompts.shape == (STOP_FRAMES, 4, STOP_SIZES.vision.width)
    for f in range(STOP_FRAMES):
        for channel in (0, 17, 63):
            expected = 0.05 * (1 + weights[f]) * through(between.mlp, hidden[f, :, channel])
            torch.testing.assert_close(prompts[f, :, channel], expected, rtol=0, atol=1e-5)


def test_adapters_are_beside_the_mlp_and_its_norm():
    tower, method = clip(STOP_SIZES).vision, build()
    x, adapter, layer = drawn("tokens", (2, 5, 64), std=1), method.vision[1], tower.layers[1]
    attended = x + layer.attention(layer.attention_norm(x))[0]
    hidden = adapter.down(attended)
    beside = 0.1 * adapter.up(torch.where(hidden > 0, hidden, adapter.activation.weight * hidden))
    expected = attended + layer.mlp(layer.mlp_norm(attended)) + beside
    torch.testing.assert_close(method.vision_blocks(tower)[1](x), expected)


@pytest.mark.slow
def test_one_frame_and_a_still_video_have_embeddings():
    tower, method = clip(STOP_SIZES), methods.create("stop", STOP_SIZES, num_frames=1)
    for pixels in (inputs()[1][:, :1], inputs()[1][:, :1].expand(-1, 3, -1, -1, -1)):
        videos = method.embed_frames(tower, pixels)
        videos.sum().backward()
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_regions_are_drawn_alike_and_not_trained():
    one, other = (methods.create("stop", STOP_SIZES) for _ in range(2))
    assert torch.equal(one.within_frames.region_weight, other.within_frames.region_weight)
    assert one.within_frames.region_weight.std() == pytest.approx((3 * 1815) ** -0.5, rel=0.05)
    assert not any("region" in name for name in (*one.state_dict(), *dict(one.named_parameters())))


def test_parameters():
    counts = count_parameters(VIT_B_32, only=["stop", "dgl-linear"])
    adapters = sum(12 * (2 * 32 * width + 32 + width + 1) for width in (768, 512))
    cube, plate = 3 * 11 * 11, 3 * 15 * 25
    within = (3 * 9 + 2 * 9 * 9 + 9 * 16) * cube + 3 * 9 + 16 + 2 + (16 * 16 + 16 + 1 + 16 * 3 + 3)
    attention = 4 * (768 * 768 + 768)
    between = attention + 2 * 9 * plate + 9 + 1 + 1 + (49 * 16 + 16 + 1 + 16 * 4 + 4) + 5 * 11 * 11 + 1
    assert counts["stop"].true_count == counts["dgl-linear"].true_count + adapters + within + between == 4_331_936


@pytest.mark.parametrize("size", [(3, 11, 11), (5, 3, 1), (3, 15, 25)])
def test_convolutions_by_frames_equal_those_in_three_dimensions(size):
    torch.manual_seed(0)
    ours = Convolution(2, 3, size=size).double()
    theirs = nn.Conv3d(2, 3, size, padding=tuple(side // 2 for side in size)).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 2, 4, 7, 9, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))
    for found, expected in zip(
        *(torch.autograd.grad(one(x).square().sum(), [x, one.weight, one.bias]) for one in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(found, expected)
