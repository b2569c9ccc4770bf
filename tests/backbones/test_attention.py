from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vop.backbones.layers import attend, attend_by_frame
from vop.backbones.rope import patch_angles, rotate
from vop.backbones.sizes import Rope


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


@pytest.mark.parametrize("rope", [None, Rope(reference=2)])
def test_attention_by_frame_is_that_of_each_frame(rope):
    """Two shared tokens and three frames of five tokens, the last four of which are patches."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 2 + 3 * 5, 8, generator=generator) for _ in range(3))
    angles = None
    if rope is not None:  # of each frame
        angles = patch_angles(rope, grid=2, head_width=8, before=1, frames=1, device=q.device, dtype=q.dtype)
    got = attend_by_frame(q, k, v, shared=2, frames=3, angles=angles)
    places = [slice(2 + 5 * j, 7 + 5 * j) for j in range(3)]
    if angles is not None:
        q, k = (torch.cat([x[:, :, :2], *(rotate(x[:, :, place], angles) for place in places)], dim=2) for x in (q, k))
    expected = [attend(q[:, :, :2], k, v)]
    for place in places:
        expected.append(attend(q[:, :, place], *(torch.cat([x[:, :, :2], x[:, :, place]], dim=2) for x in (k, v))))
    torch.testing.assert_close(got, torch.cat(expected, dim=2), rtol=0, atol=1e-6)
    read = attend_by_frame(q, k, v, shared=2, frames=3, read=1)  # they are rotated already
    torch.testing.assert_close(read, attend(q[:, :, :1], k, v), rtol=0, atol=1e-6)
