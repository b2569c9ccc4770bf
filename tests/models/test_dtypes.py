"""PyTorch's own modules in a method, beside activations in float32 and in bfloat16."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

import vop
from vop.methods.base import Method
from vop.models.dtypes import accept_any_dtype
from vop.models.pretrained import create


class Naive(Method):
    """A simple method that mentions no dtype."""

    def __init__(self, sizes, *, hidden=8, **settings):
        super().__init__(sizes, **settings)
        width = sizes.vision.width
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.mix = nn.LSTM(width, width, batch_first=True)
        self.text = nn.Linear(sizes.text.width, sizes.text.width)
        self.attention = nn.MultiheadAttention(sizes.embed_dim, 2, batch_first=True)

    def embed_tokens(self, clip, ids):
        x = clip.text.add_positions(clip.text.embed(ids))
        return clip.text.head((x + self.text(x)).mean(dim=1))

    def embed_frames(self, clip, pixels):
        x = clip.vision.pre_norm(clip.vision.embed(pixels.flatten(0, 1)))
        cls, patches = x[:, :1], x[:, 1:]
        over_time = self.mix(self.block(cls).view(*pixels.shape[:2], -1))[0]
        cls = cls + over_time.reshape(cls.shape)
        x = torch.cat([cls, patches], dim=1)
        for layer in clip.vision.layers:
            x = layer(x)
        assert x.dtype == clip.dtype
        return clip.vision.head(x[:, 0]).unflatten(0, pixels.shape[:2])

    def pool(self, frames):
        assert frames.dtype == torch.float32
        mixed = frames + self.attention(frames, frames, frames)[0]
        return super().pool(mixed)


class InsideTheBackbone(Method):
    """Insert a plain layer into the backbone."""

    def attach(self, clip):
        width = clip.sizes.vision.width
        for layer in clip.vision.layers:
            layer.mlp = nn.Sequential(layer.mlp, nn.Linear(width, width))


NAMES = [f"{__name__}:Naive", f"{__name__}:InsideTheBackbone"]


@pytest.fixture(autouse=True)
def _importable():
    assert __name__ in sys.modules


def batch(sizes):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, sizes.text.vocab_size - 2, (3, 9), generator=generator)
    ids[:, -1] = sizes.text.eos_token_id
    return ids, frames


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_methods_without_dtypes_train_save_and_open(tiny, tmp_path, name, dtype):
    torch.manual_seed(0)
    model = create(name, tiny, num_frames=4, dtype=dtype, device="cpu")
    before = {key: value.clone() for key, value in model.trainable().items()}
    optimizer = torch.optim.SGD(model.trainable().values(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.logits(*model(*batch(tiny.sizes))), torch.arange(3)).backward()
        optimizer.step()
    assert [key for key, value in model.trainable().items() if torch.equal(value, before[key])] == []
    assert all(value.dtype == torch.float32 for value in model.trainable().values())
    model.save_pretrained(tmp_path)
    again = vop.load(tmp_path, dtype=dtype, device="cpu")
    assert again.method_name == name
    assert again.method.changes_backbone == ("Backbone" in name)
    with torch.no_grad():
        for one, other in zip(model.eval()(*batch(tiny.sizes)), again(*batch(tiny.sizes)), strict=True):
            assert torch.equal(one, other)


def test_bf16_is_close_to_fp32(tiny):
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = create(NAMES[0], tiny, num_frames=4, dtype=dtype, device="cpu").eval()
        with torch.no_grad():
            found[dtype] = model(*batch(tiny.sizes))
    for exact, rounded in zip(found[torch.float32], found[torch.bfloat16], strict=True):
        torch.testing.assert_close(exact, rounded, atol=0.03, rtol=0)


def test_modules_return_the_dtype_of_their_input():
    part = nn.ModuleDict({"linear": nn.Linear(4, 4)})
    accept_any_dtype(part)
    x = torch.randn(2, 4)
    expected = nn.functional.linear(x.bfloat16().float(), part["linear"].weight, part["linear"].bias)
    assert torch.equal(part["linear"](x.bfloat16()), expected.bfloat16())
    assert part["linear"](x).dtype == torch.float32
    assert torch.equal(copy.deepcopy(part)["linear"](x), part["linear"](x))


def test_a_failed_call_restores_the_parameters():
    part = nn.ModuleDict({"linear": nn.Linear(4, 4)})
    accept_any_dtype(part)
    with pytest.raises(RuntimeError, match="shape"):
        part["linear"](torch.ones(2, 3, dtype=torch.bfloat16))
    assert part["linear"](torch.ones(2, 4)).dtype == torch.float32
