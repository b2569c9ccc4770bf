from __future__ import annotations

import math

import pytest
import torch

from vop.training.loss import contrastive_loss, sigmoid_loss

CASES = [
    ([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
    ([0, 1, 2, 3, 4, 5, 6], [0, 1, 1, 2, 0, 3, 1]),  # several pairs of one video
    ([0, 0, 0, 1, 2, 2], [4, 5, 6]),  # several captions of a video
    ([0, 0, 1, 1, 2, 3], [4, 5, 4, 6]),  # two groups of captions of the same video
]


def naive(logits, text_rows, ids):
    """Term by term; other pairs of the same video are not in the denominator."""
    texts, rows = range(len(text_rows)), range(len(ids))
    total = 0.0
    for i in texts:
        own, video = int(text_rows[i]), ids[int(text_rows[i])]
        by_text = [float(logits[i, r]) for r in rows if r == own or ids[r] != video]
        by_video = [float(logits[j, own]) for j in texts if j == i or ids[int(text_rows[j])] != video]
        for scores in (by_text, by_video):
            total += math.log(sum(math.exp(score - float(logits[i, own])) for score in scores))
    return total / (2 * len(text_rows))


@pytest.mark.parametrize(("text_rows", "ids"), CASES)
def test_infonce_equals_a_naive_sum(text_rows, ids):
    text_rows, ids = torch.tensor(text_rows), torch.tensor(ids)
    logits = 5 * torch.randn(len(text_rows), len(ids), generator=torch.Generator().manual_seed(0))
    loss = contrastive_loss(logits, text_rows, ids)
    torch.testing.assert_close(loss, torch.tensor(naive(logits, text_rows, ids)), rtol=1e-5, atol=1e-5)


def test_infonce_of_pairs_equals_the_papers_loss():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    each = torch.arange(6)
    both = (torch.nn.functional.cross_entropy(part, each) for part in (logits, logits.T))
    torch.testing.assert_close(contrastive_loss(logits, each, each), sum(both) / 2)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 0, 1, 1]])
def test_batches_of_one_video_have_no_gradient(rows):
    logits = (100 * torch.randn(4, max(rows) + 1)).requires_grad_()
    loss = contrastive_loss(logits, torch.tensor(rows), torch.zeros(max(rows) + 1, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def naive_sigmoid(logits, text_rows, ids):
    """Term by term; other pairs of the same video are skipped."""
    total = 0.0
    for i, own in enumerate(text_rows.tolist()):
        for row in range(len(ids)):
            if row == own:
                total -= math.log(1 / (1 + math.exp(-float(logits[i, row]))))
            elif ids[row] != ids[own]:
                total -= math.log(1 / (1 + math.exp(float(logits[i, row]))))
    return total / len(text_rows)


@pytest.mark.parametrize(("text_rows", "ids"), CASES)
def test_sigmoid_loss_equals_a_naive_sum(text_rows, ids):
    text_rows, ids = torch.tensor(text_rows), torch.tensor(ids)
    logits = 5 * torch.randn(len(text_rows), len(ids), generator=torch.Generator().manual_seed(0)) - 2
    fixed = logits.double()
    logits = fixed.clone().requires_grad_()
    loss = sigmoid_loss(logits, text_rows, ids)
    assert loss.item() == pytest.approx(naive_sigmoid(fixed, text_rows, ids), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, logits)
    for i, j in [(0, 0), (1, 1), (2, 0), (5, 2)]:
        step = torch.zeros_like(fixed)
        step[i, j] = 1e-6
        above, below = (naive_sigmoid(moved, text_rows, ids) for moved in (fixed + step, fixed - step))
        assert gradient[i, j].item() == pytest.approx((above - below) / 2e-6, abs=1e-7)


def test_sigmoid_loss_of_pairs_equals_siglip(tmp_path):
    from transformers import SiglipModel

    import vop
    from tiny_backbones import make_siglip_folder

    theirs = SiglipModel.from_pretrained(make_siglip_folder(tmp_path)).eval()
    model = vop.load(str(tmp_path))
    pixels = torch.randn(4, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids, each = model.tokenize(["a dog", "a man", "cut", "run"]), torch.arange(4)
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=pixels[:, 0], return_loss=True).loss
        loss = sigmoid_loss(model.logits(model.embed_tokens(ids), model.embed_frames(pixels)), each, each)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_sigmoid_loss_of_large_logits_is_finite():
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)
    loss = sigmoid_loss(logits, torch.arange(2), torch.arange(2))
    loss.backward()
    assert loss.item() == 1e4
    assert logits.grad.tolist() == [[0, 0], [0.5, -0.5]]
