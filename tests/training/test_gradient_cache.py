"""Batches in parts: the gradient is that of the whole batch."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_trainer import KINDS, first_gradient, siglip, trainer  # noqa: F401 (a fixture)
from torch import nn

from vop.backbones.layers import Layer
from vop.errors import UsageError, VopError
from vop.training.gradient_cache import cached_gradient
from vop.training.recipe import Recipe

GIVEN = {
    "vop": {"method": "vop"},
    "vop-f+p, matryoshka": {"method": "vop-f+p", "matryoshka": (4, 8)},
    "vop-f+c": {"method": "vop-f+c"},
    "adapter-ffn": {"method": "adapter-ffn"},
    "tempme": {"method": "tempme"},
    "full, seqTransf": {"method": "full", "settings": {"head": "seqTransf"}},
    "full, x-pool": {"method": "full", "settings": {"head": "x-pool", "head.dropout": 0.0}},
    "the head alone": {"settings": {"head": "seqLSTM"}, "rates": {"text": 0, "video": 0}},
    "several captions": {"method": "vop-c", "captions_per_video": 2, "batch_size": 5},
    "sigmoid": {"backbone": "siglip", "method": "full"},
}


def compare(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert one
    for name in one:
        scale = one[name].abs().max().clamp_min(1e-12)
        torch.testing.assert_close(other[name] / scale, one[name] / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 4])  # 4 does not divide the batch
@pytest.mark.parametrize("name", GIVEN)
def test_chunks_have_the_gradient_of_the_batch(tiny, siglip, tmp_path, name, chunk_size):  # noqa: F811
    kind = dict(GIVEN[name])
    backbone = siglip if kind.pop("backbone", "tiny") == "siglip" else tiny
    whole = first_gradient(trainer(backbone, tmp_path, **kind))
    compare(whole, first_gradient(trainer(backbone, tmp_path, **kind, chunk_size=chunk_size)))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_accumulated_gradients_are_means(tiny, tmp_path, chunk_size):
    kind = {"method": "vop-f+p", "batch_size": 6}
    job = trainer(tiny, tmp_path, **kind)
    steps, of_batches = job._steps(0, start=0), []
    for batches in itertools.islice(steps, 3):
        job.optimizer.zero_grad()
        job._add_gradients(batches, rate=1.0)
        of_batches.append({name: p.grad.clone() for name, p in job.trained.items()})
    mean = {name: torch.stack([gradient[name] for gradient in of_batches]).mean(dim=0) for name in of_batches[0]}
    accumulating = trainer(tiny, tmp_path, **kind, accumulate=3, chunk_size=chunk_size)
    assert accumulating.schedule.steps_per_epoch == 1
    compare(mean, first_gradient(accumulating))


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.video = nn.Linear(3, 4), nn.Linear(5, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, texts, videos):
        return self.dropout(self.text(texts)), self.dropout(self.video(videos))


def test_dropout_is_replayed():
    torch.manual_seed(0)
    towers, scale = Towers(), nn.Parameter(torch.tensor(2.0))
    chunks = [(torch.randn(n, 3), torch.randn(n, 5)) for n in (2, 2, 1)]
    parameters = [*towers.parameters(), scale]

    def loss(texts, videos):
        return (scale * nn.functional.dropout(texts, 0.5) @ videos.T).exp().mean()

    def embed(chunk):
        return towers(*chunk)

    def naive(seeds):
        parts = []
        for chunk, seed in zip(chunks, seeds, strict=False):
            torch.manual_seed(seed)
            parts.append(embed(chunk))
        texts, videos = map(torch.cat, zip(*parts, strict=True))
        torch.manual_seed(seeds[-1])
        value = loss(texts, videos)
        return value.item(), torch.autograd.grad(value, parameters)

    expected_loss, expected = naive([7, 8, 9, 10])
    assert cached_gradient(chunks, embed, loss, seeds=[7, 8, 9, 10]) == expected_loss
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert naive([1, 2, 3, 4])[0] != expected_loss


def test_steps_count_accumulated_batches(tiny, tmp_path):
    job = trainer(tiny, tmp_path, batch_size=4, accumulate=2, validation=False)  # five batches an epoch
    assert job.schedule.total_steps == 3 * 2
    job.fit()
    assert {moments["step"].item() for moments in job.optimizer.state.values()} == {6}
    with pytest.raises(UsageError, match="accumulate is 6, but an epoch has only 5 batches of 4"):
        trainer(tiny, tmp_path / "few", batch_size=4, accumulate=6)


def test_a_resumed_training_may_have_other_chunks(tiny, tmp_path):
    job = trainer(tiny, tmp_path)
    original = job.criterion
    calls = []

    def full(*arguments):
        calls.append(job.state.step)
        if job.state.step == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*arguments)

    job.criterion = full
    with pytest.raises(VopError, match=r"6 videos x 4 frames.*--resume --chunk-size 3,"):
        job.fit()
    resumed = trainer(tiny, tmp_path, chunk_size=3, recompute="layers")
    assert len(resumed.fit(resume=True).history) == 3
    with pytest.raises(VopError, match="with accumulate = 1, this one has 2"):
        trainer(tiny, tmp_path, accumulate=2, epochs=3).fit(resume=True)


def saved_bytes(job) -> int:
    """The bytes that the first step keeps for its gradient."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)  # so that no address is used twice
        return tensor

    alive = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        batch = next(iter(job._batches(0, start=0)))
        job._loss(batch)
    return sum(kept.values())


@pytest.mark.parametrize("method", ["vop-f+p", "adapter-ffn", "full"])
def test_recomputed_layers_keep_less_for_the_same_gradient(tiny, tmp_path, method):
    usual = trainer(tiny, tmp_path, method=method)
    recomputing = trainer(tiny, tmp_path, method=method, recompute="layers")
    assert saved_bytes(recomputing) < 0.5 * saved_bytes(usual)
    one, other = first_gradient(usual), first_gradient(recomputing)
    assert all(torch.equal(one[name], other[name]) for name in one)
    recomputing.fit()
    assert not any(layer.recomputed for layer in recomputing.model.modules() if isinstance(layer, Layer))


@pytest.mark.parametrize(
    ("values", "says"),
    [({"chunk_size": 0}, "chunk_size is 0"), ({"accumulate": 0}, "accumulate is 0"), ({"recompute": "all"}, "'all'")],
)
def test_wrong_parts_are_named(values, says):
    with pytest.raises(UsageError, match=says):
        Recipe(**values)
