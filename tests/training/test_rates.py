"""Learning rates of the parts of a model."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_trainer import trainer, weights

import vop
from vop import methods
from vop.cli.common import add_recipe_options
from vop.cli.parser import Parser
from vop.errors import UsageError, VopError
from vop.models.pretrained import create
from vop.training.rates import LOSS_PARAMETERS, factors_of, group_of, optimizer_groups
from vop.training.recipe import Recipe, read_config
from vop.training.trainer import Trainer

CHECKPOINT = "training/state.safetensors"


@pytest.mark.parametrize("method", [name for name in methods.available() if name != "zero-shot"])
def test_groups_are_the_towers_that_use_a_parameter(tiny, method):
    """What both towers use belongs to the video, except the tokens of texts to which those of frames attend in DGL."""
    model = create(method, tiny, num_frames=2)
    named = {name: p for name, p in model.trainable().items() if name not in (*LOSS_PARAMETERS, "method.text_tokens")}
    outputs = model.text_features(model.tokenize(["a b"])), model.frame_features(torch.rand(1, 2, 3, 32, 32))
    of_text, of_video = (
        {name: gradient is not None for name, gradient in zip(named, gradients, strict=True)}
        for gradients in (torch.autograd.grad(one.sum(), list(named.values()), allow_unused=True) for one in outputs)
    )
    groups = {name: group_of(name) for name in named}
    assert groups == {name: "text" if of_text[name] and not of_video[name] else "video" for name in named}
    assert set(groups.values()) == {"text", "video"}
    assert any(of_video.values())


def test_parameters_belong_to_the_tower_that_they_change():
    assert [
        group_of(name)
        for name in (
            "method.text_prompts.tokens",
            "method.text.0.down.weight",
            "method.to_text.weight",
            "clip.text.layers.0.attention.in_proj.lora_A.default.weight",
            "method.video_prompts.tokens",
            "method.context.fc.weight",
            "clip.vision.projection",
            "head.text_position",
            "clip.log_logit_scale",
        )
    ] == ["text"] * 4 + ["video"] * 3 + ["head", "scale"]


def test_factors_of_all_parts_are_multiplied():
    names = ["method.text_prompts.tokens", "method.shared_prompts.tokens", "head.lstm.weight_hh_l0"]
    rates = {"text": 0.5, "*prompts*": 4.0, "scale": 7.0}
    assert factors_of(names, rates) == dict(zip(names, (2.0, 4.0, 1.0), strict=True))
    assert factors_of(names, None) == dict.fromkeys(names, 1)


def test_parts_without_parameters_are_named():
    names = [f"clip.text.layers.{n}.mlp.fc1.bias" for n in range(3)]
    with pytest.raises(UsageError) as caught:
        factors_of(names, {"tekst": 2.0})
    assert all(
        known in str(caught.value) for known in ("'tekst'", "did you mean text", "clip.text.layers.*.mlp.fc1.bias")
    )
    with pytest.raises(UsageError, match="nothing is left to train"):
        factors_of(names, {"text": 0.0})


@pytest.mark.parametrize(("method", "rates"), [("vop-f+p", {"text": 1, "*": 1.0}), ("full", {"scale": 1, "head": 3})])
def test_rates_of_1_change_no_bit(tiny, tmp_path, method, rates):
    trainer(tiny, tmp_path / "plain", method=method, epochs=1).fit()
    trainer(tiny, tmp_path / "rates", method=method, epochs=1, rates=rates).fit()
    one, other = (load_file(tmp_path / name / CHECKPOINT) for name in ("plain", "rates"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_rate_of_0_keeps_the_bits(tiny, tmp_path):
    job = trainer(tiny, tmp_path, method="vop-c", rates={"text": 0, "*lstm*": 0.0})
    before = {name: parameter.detach().clone() for name, parameter in job.trained.items()}
    job.fit()
    after = weights(tmp_path)
    assert after.keys() == before.keys()
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert frozen == {name for name in before if ".text_" in name or "lstm" in name}
    assert not any(f"exp_avg.{name}" in load_file(tmp_path / CHECKPOINT) for name in frozen)
    assert job.model.trainable().keys() == before.keys()
    assert torch.equal(vop.load(tmp_path).encode_text(["a b"]), job.model.encode_text(["a b"]))


def test_a_frozen_part_has_no_share_in_the_clipped_norm(tiny, tmp_path, monkeypatch):
    seen = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: seen.append(clip(*given)) or seen[-1])
    trainer(tiny, tmp_path / "both", epochs=1).fit()
    trainer(tiny, tmp_path / "video", epochs=1, rates={"text": 0}).fit()
    assert seen[3] < 0.99 * seen[0]  # of the first step of each


def test_steps_are_adamws_with_rates_of_their_own(tiny, tmp_path):
    """Against one AdamW for each part."""
    rates = {"text": 0.25, "method.position_prompts.*": 3.0}
    job = trainer(tiny, tmp_path, method="vop-p", epochs=1, validation=False, rates=rates)
    own = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in job.trained.items()}
    factors = {"text_prompts": 0.25, "shared_prompts": 1.0, "position_prompts": 3.0}
    optimizers = [
        (factors[name.split(".")[1]], torch.optim.AdamW([parameter], lr=1.0, weight_decay=0.2))
        for name, parameter in own.items()
    ]
    step = job.optimizer.step

    def both():
        rate = job.schedule.learning_rate(job.state.step)
        for name, parameter in own.items():
            parameter.grad = job.trained[name].grad.clone()
        for factor, optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = factor * rate
            optimizer.step()
        step()

    job.optimizer.step = both
    job.fit()
    assert all(torch.equal(parameter, job.trained[name]) for name, parameter in own.items())


def test_weight_decay_of_the_loss_parameters_stays_0(tiny):
    trained = create("full", tiny, num_frames=2).trainable()
    groups = optimizer_groups(trained, factors_of(trained, {"scale": 2.0, "text": 2.0}), weight_decay=0.2)
    assert [(group["weight_decay"], group["factor"], len(group["params"]) == 1) for group in groups] == [
        (0.2, 1.0, False),
        (0.2, 2.0, False),
        (0.0, 2.0, True),
    ]
    assert sum(len(group["params"]) for group in groups) == len(trained)


def test_checkpoints_know_their_rates(tiny, tmp_path):
    """Those of earlier versions had none."""
    whole = trainer(tiny, tmp_path, epochs=1).fit()
    path = tmp_path / CHECKPOINT
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    identity = json.loads(metadata["identity"])
    assert (identity.pop("rates"), identity.pop("ema_decay")) == (None, None)
    save_file(load_file(path), path, metadata=metadata | {"identity": json.dumps(identity)})
    assert trainer(tiny, tmp_path, epochs=1).fit(resume=True).history == whole.history
    with pytest.raises(VopError, match=r"rates = None, this one has \{'text': 0\.5\}"):
        trainer(tiny, tmp_path, epochs=1, rates={"text": 0.5}).fit(resume=True)


def test_cards_tell_the_rates(tiny, tmp_path):
    trainer(tiny, tmp_path / "rates", epochs=1, rates={"video": 2, "text": 0.5}).fit()
    assert "rates: text 0.5, video 2\n" in (tmp_path / "rates/README.md").read_text()
    trainer(tiny, tmp_path / "plain", epochs=1).fit()
    assert {"rates", "ema_decay"}.isdisjoint(vop.load(tmp_path / "plain").card)


def test_unknown_parts_are_refused_before_training(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"'\*\.context\.\*'"):
        trainer(tiny, tmp_path, rates={"*.context.*": 2.0})


def test_recipes(tmp_path):
    (tmp_path / "recipe.yaml").write_text("rates: {video: 2, text: 5e-1}\nema_decay: 99e-2\n")
    recipe = read_config(tmp_path / "recipe.yaml").recipe
    assert (recipe.rates, recipe.ema_decay) == ({"text": 0.5, "video": 2}, 0.99)
    assert Recipe(rates={}) == Recipe()
    parser = Parser()
    add_recipe_options(parser)
    assert parser.parse_args(["--rates", "text=0.5,method.*=2"]).rates == {"text": 0.5, "method.*": 2.0}
    for value in ([0.5], {"text": -1}, {"text": "much"}, {1: 2.0}, {"text": float("inf")}):
        with pytest.raises(UsageError, match="rates"):
            Recipe(rates=value)


def test_trials_of_a_search_use_them(tiny, tmp_path, monkeypatch):
    seen = []
    step = Trainer._optimize
    monkeypatch.setattr(
        Trainer, "_optimize", lambda self, batch: (seen.append(self.average is not None), step(self, batch))[1]
    )
    job = trainer(tiny, tmp_path / "run", epochs=1, ema_decay=0.9, rates={"text": 0}, given={"keep": False})
    assert job.fit().history[-1]["validation"]
    assert seen == [True] * 3
    assert not (tmp_path / "run").exists()
