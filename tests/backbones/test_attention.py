from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vop.backbones.layers import attend


@pytest.mark.parametrize(("queries", "causal"), [(9, False), (9, True), (2, False)])
def test_written_out_and_fused_attention_agree(queries, causal):
    """With gradients in bf16, attention is written out; in fp32 it is PyTorch's fused kernel."""
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(3, 2, n, 8, generator=generator).requires_grad_() for n in (queries, 9, 9)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    expected = F.scaled_dot_product_attention(*exact, is_causal=causal)
    got = attend(*rounded, causal=causal)
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.05)
    expected.square().sum().backward()
    got.float().square().sum().backward()
    for one, other in zip(rounded, exact, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=0.05, atol=0.1)


def test_without_gradients_the_fused_kernel_is_used():
    q, k, v = torch.randn(3, 3, 2, 9, 8).bfloat16()
    assert torch.equal(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
