"""Fast implementations against the plain formulas: outputs and gradients."""

from __future__ import annotations

import pytest
import torch

from vop.backbones import Sizes, TowerSizes, VisionSizes, layers
from vop.backbones.rope import patch_angles
from vop.backbones.sizes import Rope
from vop.backbones.towers import VisionTower


def test_quick_gelu_equals_its_formula():
    x = torch.linspace(-8, 8, 101, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layers.quick_gelu(x), x * torch.sigmoid(1.702 * x))
    assert torch.autograd.gradcheck(layers.quick_gelu, x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("read", [1, 4])
def test_a_layer_may_compute_only_some_tokens(causal, read):
    torch.manual_seed(0)
    layer = layers.Layer(TowerSizes(width=16, layers=1, heads=2, mlp_width=32))
    x = torch.randn(3, 9, 16)
    torch.testing.assert_close(layer(x, causal=causal, read=read), layer(x, causal=causal)[:, :read])


@pytest.mark.parametrize("rope", [None, Rope(reference=2)])
@pytest.mark.parametrize("number", [1, 2])
def test_a_layer_by_frame_is_the_layer_itself_for_one_frame(rope, number):
    torch.manual_seed(0)
    vision = VisionSizes(width=16, layers=2, heads=2, mlp_width=32, image_size=8, patch_size=4, rope=rope)
    tower = VisionTower(Sizes(vision=vision, embed_dim=8))
    shared, frame = torch.randn(3, 2, 16), torch.randn(3, 1, 1 + 4, 16)
    angles = None
    if rope is not None:  # of two shared tokens, [CLS] and the patches
        place = {"device": shared.device, "dtype": shared.dtype}
        angles = patch_angles(rope, grid=2, head_width=8, before=3, frames=1, **place)
    expected = tower.layers[number - 1](torch.cat([shared, frame[:, 0]], dim=1), angles=angles)
    found_shared, found_frame = tower.run_layer_by_frame(number, shared, frame)
    torch.testing.assert_close(found_shared, expected[:, :2])
    assert found_frame.shape[2] == (5 if number == 1 else 0)  # the last layer leaves the frames out
    if number == 1:
        torch.testing.assert_close(found_frame[:, 0], expected[:, 2:])
