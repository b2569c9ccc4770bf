"""Which towers of timm have layers that methods can reach, read from modules with timm's names, without timm.

What is read from timm's own modules is compared in test_open_clip_family.py, where it is installed.
"""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_open_clip_golden import GOLDEN, read_sizes
from torch import nn

from vop.backbones.open_clip import timm_towers
from vop.backbones.sizes import Stem, VisionSizes

WIDTH, EPS = 48, 1e-6


def module(name: str, **attributes: Any) -> Any:
    """An object of a class called `name`."""
    return type(name, (), attributes)()


def norm(eps: float = EPS) -> nn.LayerNorm:
    return nn.LayerNorm(WIDTH, eps=eps)


def mlp(act: nn.Module) -> Any:
    return module("Mlp", act=act, fc1=nn.Linear(WIDTH, 4 * WIDTH), fc2=nn.Linear(4 * WIDTH, WIDTH))


def pooling(**changes: Any) -> Any:
    parts = {"latent_len": 1, "pos_embed": None, "q_norm": nn.Identity(), "q": nn.Linear(WIDTH, WIDTH), "num_heads": 3}
    return module("AttentionPoolLatent", **parts | {"norm": norm(), "mlp": mlp(nn.GELU())} | changes)


def siglip(*, head: nn.Module | None = None, **changes: Any) -> SimpleNamespace:
    """timm's vit_base_patch16_siglip_224 in the sizes of `open_clip_models`, as far as it is read."""
    attention = module(
        "Attention", q_norm=nn.Identity(), k_norm=nn.Identity(), proj=nn.Linear(WIDTH, WIDTH), num_heads=3
    )
    block = module("Block", attn=attention, mlp=mlp(nn.GELU()), norm1=norm())
    patches = module(
        "PatchEmbed",
        img_size=(48, 48),
        feat_ratio=lambda self: 16,
        norm=nn.Identity(),
        proj=nn.Conv2d(3, WIDTH, 16, stride=16),
    )
    parts = {
        "embed_dim": WIDTH,
        "blocks": [block] * 3,
        "patch_embed": patches,
        "pos_embed": torch.zeros(1, 9, WIDTH),
        "cls_token": None,
        "norm_pre": nn.Identity(),
        "norm": norm(),
        "fc_norm": nn.Identity(),
        "global_pool": "map",
        "pool_include_prefix": False,
        "attn_pool": pooling(),
        "head": nn.Identity(),
    }
    return SimpleNamespace(trunk=module("VisionTransformer", **parts | changes), head=head or nn.Sequential())


def read(visual: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> VisionSizes | None:
    monkeypatch.setattr(timm_towers, "build", lambda model: SimpleNamespace(visual=visual))
    return timm_towers.vision_sizes({})


def test_the_layers_of_siglip_are_reachable(monkeypatch):
    assert read(siglip(), monkeypatch) == read_sizes(GOLDEN["SigLIP"]["sizes"]).vision


@pytest.mark.parametrize(
    "changes",
    {
        "another activation in the pooling": {"attn_pool": pooling(mlp=mlp(nn.GELU(approximate="tanh")))},
        "another epsilon in the pooling": {"attn_pool": pooling(norm=norm(1e-5))},
        "another epsilon behind the layers": {"norm": norm(1e-5)},
        "a pooling of some of the tokens": {"cls_token": torch.zeros(1, 1, WIDTH)},
        "no norm": {"norm": nn.Identity()},
        "two norms": {"fc_norm": norm()},
        "an MLP behind the pooling": {"head": nn.Sequential(OrderedDict(mlp=nn.Linear(WIDTH, WIDTH)))},
        "registers": {"reg_token": torch.zeros(1, 1, WIDTH)},
    }.items(),
    ids=lambda item: item[0],
)
def test_other_towers_are_zero_shot_encoders(changes, monkeypatch):
    assert read(siglip(**changes[1]), monkeypatch) is None


def stage(channels: int, width: int, stride: int, *, last: bool = False, **changes: Any) -> Any:
    conv = {"kernel_size": stride, "stride": stride, "bias": last} | changes
    normalise = type("BatchNormAct2d", (nn.BatchNorm2d,), {})(width, eps=conv.pop("eps", 1e-5))
    normalise.act = conv.pop("act", nn.GELU())
    return module("ConvNormAct", conv=nn.Conv2d(channels, width, **conv), bn=nn.Sequential() if last else normalise)


@pytest.mark.parametrize(
    ("changes", "reachable"),
    [
        ({}, True),
        ({"kernel_size": 3, "padding": 1}, False),
        ({"eps": 1e-3}, False),
        ({"act": nn.ReLU()}, False),
    ],
    ids=["patches that do not overlap", "patches that overlap", "another epsilon", "another activation"],
)
def test_a_convolutional_stem(changes, reachable, monkeypatch):
    stages = [stage(3, 8, 4), stage(8, 12, 2, **changes), stage(12, WIDTH, 2, last=True)]
    patches = module(
        "HybridEmbed",
        img_size=(48, 48),
        patch_size=(1, 1),
        feat_ratio=lambda self: 16,
        proj=nn.Identity(),
        backbone=type("ConvStem", (list,), {})(stages),
    )
    sizes = read(siglip(patch_embed=patches), monkeypatch)
    assert (sizes is not None) == reachable
    if sizes is not None:
        assert (sizes.stem, sizes.patch_size) == (Stem(widths=(8, 12, WIDTH), strides=(4, 2, 2)), 16)
