"""Fast implementations against the plain formulas: outputs and gradients."""

from __future__ import annotations

import pytest
import torch

from vop.backbones import TowerSizes, layers


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
