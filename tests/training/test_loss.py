from __future__ import annotations

import math

import torch

from vop.training.loss import contrastive_loss


def naive(texts, videos, ids, scale):
    """Term by term; another pair of the same video is left out of the sum below the fraction."""
    n, total = len(ids), 0.0
    for i in range(n):
        others = [j for j in range(n) if j == i or ids[j] != ids[i]]
        for one, other in ((texts, videos), (videos, texts)):
            scores = {j: scale * float(one[i] @ other[j]) for j in others}
            total += math.log(sum(math.exp(s - scores[i]) for s in scores.values()))
    return total / (2 * n)


def test_equals_the_sum_written_out():
    generator = torch.Generator().manual_seed(0)
    texts, videos = (torch.nn.functional.normalize(torch.randn(7, 5, generator=generator), dim=1) for _ in range(2))
    for ids in (torch.arange(7), torch.tensor([0, 1, 1, 2, 0, 3, 1])):
        loss = contrastive_loss(texts, videos, ids, logit_scale=20.0)
        torch.testing.assert_close(loss, torch.tensor(naive(texts, videos, ids, 20.0)), rtol=1e-5, atol=1e-5)


def test_a_batch_of_one_video_teaches_nothing():
    rows = torch.nn.functional.normalize(torch.randn(4, 5), dim=1).requires_grad_()
    loss = contrastive_loss(rows, rows.flip(0), torch.zeros(4, dtype=torch.long), logit_scale=100.0)
    loss.backward()
    assert float(loss) == 0
    assert not rows.grad.any()
