"""The moving average of the trained parameters."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import trainer, weights
from torch import nn

import vop
from vop.errors import UsageError, VopError
from vop.training.averaging import MovingAverage
from vop.training.recipe import Recipe
from vop.training.trainer import Trainer


def parameters() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {"matrix": nn.Parameter(torch.randn(3, 4)), "scale": nn.Parameter(torch.randn(()))}


def written_out(steps: list[torch.Tensor], decay: float) -> torch.Tensor:
    average = steps[0].double()
    for number, value in enumerate(steps[1:], start=2):
        kept = min(decay, number / (number + 9))
        average = kept * average + (1 - kept) * value.double()
    return average.float()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_equals_the_average_written_out(decay):
    trained = parameters()
    average, seen = MovingAverage(trained, decay=decay), {name: [] for name in trained}
    for _ in range(30):
        for name, parameter in trained.items():
            parameter.data.add_(torch.randn_like(parameter))
            seen[name].append(parameter.detach().clone())
        average.update()
    for name, tensor in average.tensors().items():
        torch.testing.assert_close(tensor, written_out(seen[name], decay), rtol=0, atol=1e-5)
        assert torch.equal(tensor, trained[name]) == (decay == 0)


def test_the_average_of_constant_weights_is_the_weights():
    trained = parameters()
    average = MovingAverage(trained, decay=0.99)
    for _ in range(20):
        average.update()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in average.tensors().items())


def test_parameters_get_their_own_values_back():
    trained = parameters()
    average = MovingAverage(trained, decay=0.9)
    average.update()
    first = {name: parameter.detach().clone() for name, parameter in trained.items()}
    trained["matrix"].data.zero_()
    with average.applied():
        assert torch.equal(trained["matrix"], first["matrix"])
    assert not trained["matrix"].any()
    assert torch.equal(average.tensors()["matrix"], first["matrix"])


@pytest.mark.parametrize("validation", [True, False])
def test_validation_and_the_run_use_the_average(tiny, tmp_path, monkeypatch, validation):
    seen, validated = [], []
    optimize, validate = Trainer._optimize, Trainer._validate

    def recorded(self, batch):
        loss = optimize(self, batch)
        seen.append({name: p.detach().clone() for name, p in self.trained.items()})
        return loss

    def watched(self, model, split):
        if model is self.model:
            validated.append({name: p.detach().clone() for name, p in self.trained.items()})
        return validate(self, model, split)

    monkeypatch.setattr(Trainer, "_optimize", recorded)
    monkeypatch.setattr(Trainer, "_validate", watched)
    result = trainer(tiny, tmp_path, validation=validation, ema_decay=0.6).fit()
    steps = 3 * result.best_epoch
    for name, tensor in weights(tmp_path).items():
        expected = written_out([step[name] for step in seen[:steps]], 0.6)
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)
        assert not torch.equal(tensor, seen[steps - 1][name])
        if validation:
            assert torch.equal(validated[result.best_epoch - 1][name], tensor)
    assert len(validated) == (3 if validation else 0)
    assert vop.load(tmp_path).card["ema_decay"] == 0.6


def test_averaging_changes_no_step(tiny, tmp_path):
    for name, decay in (("plain", None), ("averaged", 0.9), ("zero", 0.0)):
        trainer(tiny, tmp_path / name, ema_decay=decay).fit()
    plain, averaged = (load_file(tmp_path / name / "training/state.safetensors") for name in ("plain", "averaged"))
    own = {name for name in plain if not name.startswith("best.")}
    assert all(torch.equal(plain[name], averaged[name]) for name in own)
    assert {name.partition(".")[0] for name in averaged} - {name.partition(".")[0] for name in plain} == {"average"}
    assert all(
        torch.equal(tensor, weights(tmp_path / "zero")[name]) for name, tensor in weights(tmp_path / "plain").items()
    )


def test_the_decay_belongs_to_the_training(tiny, tmp_path):
    trainer(tiny, tmp_path, epochs=1, ema_decay=0.9).fit()
    with pytest.raises(VopError, match=r"ema_decay = 0\.9, this one has None"):
        trainer(tiny, tmp_path, epochs=1).fit(resume=True)


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), "0.9", True])
def test_other_decays_are_refused(value):
    with pytest.raises(UsageError, match="ema_decay is"):
        Recipe(ema_decay=value)
