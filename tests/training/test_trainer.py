from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from worlds import MadeFrames, split

import vop
from forked import run_ranks
from tiny_backbones import make_siglip_folder
from vop.backbones import find_backbone
from vop.errors import UsageError, VopError
from vop.models import pretrained
from vop.training.loss import contrastive_loss, sigmoid_loss
from vop.training.recipe import Recipe, TrainingConfig, read_config
from vop.training.trainer import Trainer
from vop.utils.ranks import Ranks


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return find_backbone(str(make_siglip_folder(tmp_path_factory.mktemp("siglip"))))


METHODS = ["vop", "vop-c", "vop-f+p"]


def trainer(
    tiny,
    out,
    *,
    method="vop",
    settings=None,
    progress=lambda *_: None,
    validation=True,
    precision=torch.float32,
    given=None,
    **recipe,
):
    values = {"epochs": 3, "batch_size": 6, "learning_rate": 1e-2, "seed": 5, "workers": 0, "checkpoint_seconds": 0.0}
    values["if_worse"] = "tuned"  # so that the trained weights are saved
    torch.manual_seed(5)
    built = pretrained.create(method, tiny, device="cpu", num_frames=4, dtype=precision, **settings or {})
    held_out = split("val", videos=6, captions=1) if validation else None
    return Trainer(
        built,
        split(),
        held_out,
        Recipe(**values | recipe),
        out,
        store=MadeFrames(),
        data="made",
        progress=progress,
        **given or {},
    )


def weights(out):
    return load_file(out / "model.safetensors")


class Killed(BaseException):
    pass


def kill_at(step):
    def progress(stage, done, total, note=""):
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("method", METHODS)
def test_methods_learn(tiny, tmp_path, method):
    job = trainer(tiny, tmp_path, method=method, epochs=15, validation=False, checkpoint_seconds=1e9)
    history = job.fit().history
    blind = math.log(6 - 6 / 19)  # equal scores: 6 pairs, of which one in 19 others is of the same video
    assert history[-1]["loss"] < 0.85 * blind < history[0]["loss"]


KINDS = {
    "vop-c": {"method": "vop-c"},
    "vop-f+p in bf16": {"method": "vop-f+p", "precision": torch.bfloat16},
    "full in bf16": {"method": "full", "precision": torch.bfloat16},
    "a head with dropout": {"settings": {"head": "x-pool"}},
    "two captions a video": {"captions_per_video": 2, "batch_size": 3},
    "chunks of a batch": {"settings": {"head": "x-pool"}, "batch_size": 4, "chunk_size": 3, "accumulate": 2},
    "hard negatives": {"hard_negatives": 1, "batch_size": 4},
    "a moving average": {"method": "vop-p", "ema_decay": 0.9, "rates": {"text": 0, "*.position_prompts.*": 2.0}},
}


STOPS = [(1, 0.0), (3, 0.0), (5, 0.0), (5, 1e9), (9, 1e9)]
RESUMED = [
    *(pytest.param(KINDS["vop-c"], *stop, id=f"vop-c-{stop}") for stop in STOPS),
    *(pytest.param(kind, 5, 0.0, id=name) for name, kind in KINDS.items() if name != "vop-c"),
]


@pytest.mark.parametrize(("kind", "step", "every_seconds"), RESUMED)
def test_resumed_training_gives_the_same_bits(tiny, tmp_path, kind, step, every_seconds):
    whole = trainer(tiny, tmp_path / "whole", **kind).fit()
    with pytest.raises(Killed):
        trainer(tiny, tmp_path / "cut", **kind, progress=kill_at(step), checkpoint_seconds=every_seconds).fit()
    resumed = trainer(tiny, tmp_path / "cut", **kind, checkpoint_seconds=every_seconds).fit(resume=True)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch


def test_the_run_keeps_the_best_epoch(tiny, tmp_path, monkeypatch):
    scores = iter([5.0, 10.0, 30.0, 20.0])  # the untuned model's, and three epochs'
    monkeypatch.setattr(
        Trainer, "_validate", lambda self, model, split: ({"t2v": {"r1": next(scores), "mnr": 1.0}}, [0.5] * 6)
    )
    seen = []
    monkeypatch.setattr(
        Trainer,
        "_end_epoch",
        lambda self, epoch, original=Trainer._end_epoch: (
            seen.append({name: p.detach().clone() for name, p in self.trained.items()}),
            original(self, epoch),
        ),
    )
    job = trainer(tiny, tmp_path)
    monkeypatch.setattr("vop.training.trainer.card_of", lambda *_, **__: {})
    assert job.fit().best_epoch == 2
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in weights(tmp_path).items())
    assert not all(torch.equal(tensor, seen[2][name]) for name, tensor in weights(tmp_path).items())


def test_without_a_proven_gain_the_untuned_model_is_kept(tiny, tmp_path):
    """Three steps on random pairs teach nothing."""
    job = trainer(tiny, tmp_path / "run", if_worse="untuned")
    result = job.fit()
    assert result.selection == "untuned"
    assert result.p > 0.05
    opened = vop.load(tmp_path / "run")
    assert opened.method_name == job.model.method_name == "zero-shot"
    assert opened.num_frames == 4
    plain = pretrained.create("zero-shot", tiny, device="cpu", num_frames=4)
    assert torch.equal(opened.encode_text(["a", "b c"]), plain.encode_text(["a", "b c"]))
    assert (opened.card["epoch"], opened.card["selection"]) == (0, "untuned")
    assert "no better than the untuned model" in (tmp_path / "run" / "README.md").read_text()
    assert opened.card["validation"] == result.untuned


def test_tuned_weights_can_be_kept_without_a_gain(tiny, tmp_path):
    trainer(tiny, tmp_path / "run", if_worse="untuned").fit()
    tuned = trainer(tiny, tmp_path / "run", if_worse="tuned")
    assert tuned.fit(resume=True).selection == "validation-selected"
    other = trainer(tiny, tmp_path / "other", if_worse="tuned")
    other.fit()
    one, two = weights(tmp_path / "run"), weights(tmp_path / "other")
    assert one
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_proven_gains_are_kept(tiny, tmp_path, monkeypatch):
    found = iter([[0.2] * 6, [0.9] * 6, [0.8] * 6, [0.7] * 6])
    metrics = {"t2v": {"r1": 50.0, "mnr": 1.0}}
    monkeypatch.setattr(Trainer, "_validate", lambda self, model, split: (metrics, next(found)))
    job = trainer(tiny, tmp_path, if_worse="untuned")
    monkeypatch.setattr("vop.training.trainer.card_of", lambda *_, **__: {})
    result = job.fit()
    assert (result.selection, result.best_epoch, result.is_proven) == ("validation-selected", 1, True)
    assert weights(tmp_path)


def test_too_few_videos_prove_nothing(tiny, tmp_path, monkeypatch):
    metrics = {"t2v": {"r1": 50.0, "mnr": 1.0}}
    monkeypatch.setattr(Trainer, "_validate", lambda self, model, split: (metrics, [0.5] * 4))
    job = trainer(tiny, tmp_path, if_worse="untuned")
    monkeypatch.setattr("vop.training.trainer.card_of", lambda *_, **__: {})
    result = job.fit()
    assert (result.selection, result.p, result.is_proven) == ("validation-selected", None, False)


def test_trainings_of_earlier_versions_are_resumed_unproven(tiny, tmp_path):
    job = trainer(tiny, tmp_path)
    job.fit()
    job.state.scores, job.state.untuned, job.state.untuned_scores = [], None, []
    job._save()
    result = trainer(tiny, tmp_path, if_worse="untuned").fit(resume=True)
    assert (result.selection, result.p) == ("validation-selected", None)


def test_training_stopped_in_validation_resumes(tiny, tmp_path, monkeypatch):
    whole = trainer(tiny, tmp_path / "whole").fit()
    job = trainer(tiny, tmp_path / "cut")
    validate, calls = Trainer._validate, []

    def stop(self, model, split):
        calls.append(model)
        if len(calls) == 3:  # the untuned model, the first epoch, the second
            raise Killed
        return validate(self, model, split)

    monkeypatch.setattr(Trainer, "_validate", stop)
    with pytest.raises(Killed):
        job.fit()
    monkeypatch.setattr(Trainer, "_validate", validate)
    assert trainer(tiny, tmp_path / "cut").fit(resume=True).history == whole.history


def test_default_epochs_give_enough_steps(tiny, tmp_path):
    job = trainer(tiny, tmp_path, epochs=None)
    assert job.schedule.total_steps == 300  # of 3 in each epoch
    assert not [line for line in job.plan() if "steps are few" in line]
    few = trainer(tiny, tmp_path, epochs=2)
    assert any("6 steps are few" in line and "--epochs 100" in line for line in few.plan())


def test_short_epochs_are_not_all_validated(tiny, tmp_path):
    result = trainer(tiny, tmp_path, epochs=45, checkpoint_seconds=1e9).fit()
    validated = [record["epoch"] for record in result.history if "validation" in record]
    assert validated == [*range(3, 46, 3)]
    assert result.best_epoch in validated


def test_checkpoints_are_due_after_epochs_without_validation(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("vop.training.trainer.SAVING_SHARE", 0)
    one_step = {"epochs": 45, "batch_size": 18}
    with pytest.raises(Killed):
        trainer(tiny, tmp_path, **one_step, progress=kill_at(2)).fit()  # the first validation is after epoch 3
    resumed = trainer(tiny, tmp_path, **one_step)
    resumed._load(tmp_path / "training" / "state.safetensors")
    assert (resumed.schedule.steps_per_epoch, resumed.state.step) == (1, 1)


def test_without_validation_the_last_epoch_is_kept(tiny, tmp_path):
    result = trainer(tiny, tmp_path, validation=False).fit()
    assert (result.best_epoch, result.selection) == (3, "last")
    assert "selection: last" in (tmp_path / "README.md").read_text()


def test_non_finite_loss_keeps_the_best_epoch(tiny, tmp_path):
    job = trainer(tiny, tmp_path)
    original = job.criterion

    def breaks(*args, **kwargs):
        loss = original(*args, **kwargs)
        return loss * math.nan if job.state.step == 4 else loss

    job.criterion = breaks
    with pytest.raises(VopError, match=r"loss became nan at step 5 of 9.*epoch 1"):
        job.fit()
    assert all(torch.equal(tensor, job.best[name]) for name, tensor in weights(tmp_path).items())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("step", [0, 4])
def test_out_of_memory_in_a_step_names_the_batch(tiny, tmp_path, error, step):
    """The batch is part of the loss: no smaller one is tried."""
    job = trainer(tiny, tmp_path)
    sizes, original = [], job.criterion

    def full(texts, *args, **kwargs):
        sizes.append(len(texts))
        if job.state.step == step:
            raise error
        return original(texts, *args, **kwargs)

    job.criterion = full
    kept = "the weights of epoch 1" if step else "no weights yet"
    what = rf"batch_size 6 \(6 videos x 4 frames x 5 tokens .*float32\) at step {step + 1} of 9.*{kept}"
    with pytest.raises(VopError, match=rf"{what}.*--batch-size.*--num-frames.*bf16") as caught:
        job.fit()
    assert sizes == [6] * (step + 1)
    assert caught.value.__cause__ is caught.value.__context__ is None  # whose traceback would keep tensors alive
    assert (tmp_path / "model.safetensors").exists() == bool(step)


def test_other_errors_of_a_step_keep_their_traceback(tiny, tmp_path):
    job = trainer(tiny, tmp_path)
    job.criterion = lambda *_: torch.ones(2, 3) @ torch.ones(2)
    with pytest.raises(RuntimeError, match="size mismatch"):
        job.fit()


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("step", [4, 5])  # the second epoch's middle and end
def test_non_finite_gradients_are_not_applied(tiny, tmp_path, validation, step):
    job = trainer(tiny, tmp_path, validation=validation)
    original = job.criterion

    def breaks(texts, *args, **kwargs):
        if job.state.step == step:
            texts.register_hook(lambda gradient: gradient * math.nan)
        return original(texts, *args, **kwargs)

    job.criterion = breaks
    with pytest.raises(VopError, match=rf"norm became nan at step {step + 1} of 9.*epoch 1"):
        job.fit()
    assert all(torch.equal(tensor, job.best[name]) for name, tensor in weights(tmp_path).items())
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "training" / "state.safetensors").values())


def test_trained_logit_scale_keeps_clips_limit(tiny, tmp_path):
    job = trainer(tiny, tmp_path, method="full", epochs=1, validation=False, learning_rate=1e-5)
    job.model.clip.log_logit_scale.data.fill_(9.0)
    job.fit()
    assert weights(tmp_path)["clip.log_logit_scale"].exp().item() <= 100.001


def test_two_captions_per_video_halve_the_videos_of_a_batch(tiny, tmp_path):
    seen = []
    job = trainer(tiny, tmp_path, captions_per_video=2, batch_size=5, epochs=1)
    assert job.schedule.steps_per_epoch == 2  # ten videos with two captions each
    original = job.model.embed_frames
    job.model.embed_frames = lambda pixels: (
        seen.append(len(pixels)) if job.model.training else None,
        original(pixels),
    )[1]
    job.fit()
    assert seen == [5, 5]


def test_all_captions_are_seen_when_uneven(tiny, tmp_path, monkeypatch):
    whole = split()
    kept = [row for row in range(len(whole)) if row % 4 != 1]  # every other video keeps one caption
    uneven = dataclasses.replace(
        whole, captions=[whole.captions[row] for row in kept], targets=[whole.targets[row] for row in kept]
    )
    monkeypatch.setitem(trainer.__globals__, "split", lambda *_, **__: uneven)
    job = trainer(tiny, tmp_path, captions_per_video=2, batch_size=5, epochs=1, validation=False)
    seen, tokenize = [], job.model.tokenize
    job.model.tokenize = lambda texts: (seen.extend(texts), tokenize(texts))[1]
    job.fit()
    assert sorted(seen) == sorted(uneven.captions)


def test_too_many_captions_per_video_are_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match="captions_per_video is 3, but no video of train has more than 2 captions"):
        trainer(tiny, tmp_path, captions_per_video=3)


def test_trials_leave_no_files_and_report_each_epoch(tiny, tmp_path):
    seen = []
    job = trainer(tiny, tmp_path / "run", given={"keep": False, "on_epoch": seen.append})
    job.fit()
    assert [record["epoch"] for record in seen] == [1, 2, 3]
    assert all("validation" in record for record in seen)
    assert not (tmp_path / "run").exists()


def test_worker_processes_change_no_bit(tiny, tmp_path):
    trainer(tiny, tmp_path / "here", epochs=1).fit()
    trainer(tiny, tmp_path / "there", epochs=1, workers=2).fit()
    one, other = weights(tmp_path / "here"), weights(tmp_path / "there")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_trainings_with_other_captions_are_not_resumed(tiny, tmp_path):
    job = trainer(tiny, tmp_path)
    job.fit()
    again = trainer(tiny, tmp_path)
    again.train = dataclasses.replace(again.train, captions=again.train.captions[::-1])
    with pytest.raises(VopError, match="with content = "):
        again.fit(resume=True)


def test_non_finite_loss_at_first_leaves_no_weights(tiny, tmp_path):
    job = trainer(tiny, tmp_path)
    job.criterion = lambda logits, *_: logits.sum() * math.inf
    with pytest.raises(VopError, match=r"at step 1 of 9.*holds no weights yet"):
        job.fit()
    assert not (tmp_path / "model.safetensors").exists()


def test_learning_rate_rises_and_falls(tiny, tmp_path):
    job = trainer(tiny, tmp_path, epochs=10)  # 30 steps, 3 of warm-up
    rates = [job.schedule.learning_rate(step) for step in range(31)]
    assert rates[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert rates[3] == pytest.approx(1e-2)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[30] == pytest.approx(0, abs=1e-9)
    assert rates[3 + 27 // 2] == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 13 / 27)))


def test_other_trainings_are_not_resumed(tiny, tmp_path):
    trainer(tiny, tmp_path).fit()
    with pytest.raises(VopError, match="with epochs = 3, this one has 4"):
        trainer(tiny, tmp_path, epochs=4).fit(resume=True)


def test_the_default_loss_is_the_backbones(tiny, siglip, tmp_path):
    for backbone, given, expected in [
        (tiny, {}, contrastive_loss),
        (siglip, {}, sigmoid_loss),
        (siglip, {"loss": "infonce"}, contrastive_loss),
        (siglip, {"loss": "sigmoid"}, sigmoid_loss),
    ]:
        job = trainer(backbone, tmp_path, **given)
        assert job.criterion is expected
        assert job.recipe.loss == {contrastive_loss: "infonce", sigmoid_loss: "sigmoid"}[expected]


def test_the_sigmoid_loss_needs_a_bias(tiny, tmp_path):
    with pytest.raises(UsageError, match="loss is 'sigmoid'.*'infonce'"):
        trainer(tiny, tmp_path, loss="sigmoid")
    assert trainer(tiny, tmp_path, loss="sigmoid", settings={"head": "tightTransf"}).criterion is sigmoid_loss


def test_siglip_learns_with_sigmoid_loss(siglip, tmp_path):
    job = trainer(siglip, tmp_path, method="vop-c", epochs=8, validation=False, checkpoint_seconds=1e9)
    history = job.fit().history
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert "clip.logit_bias" not in weights(tmp_path)


def test_logit_scale_and_bias_train_without_decay_or_limit(siglip, tmp_path):
    job = trainer(siglip, tmp_path, method="full", epochs=1, validation=False, learning_rate=1e-5)
    job.model.clip.log_logit_scale.data.fill_(5.0)
    assert job.optimizer.param_groups[1]["params"] == [job.model.clip.log_logit_scale, job.model.clip.logit_bias]
    assert job.optimizer.param_groups[1]["weight_decay"] == 0
    bias = job.model.clip.logit_bias.item()
    job.fit()
    assert weights(tmp_path)["clip.log_logit_scale"].item() == pytest.approx(5, abs=0.01)
    assert weights(tmp_path)["clip.logit_bias"].item() != bias


def test_checkpoints_record_their_loss(tiny, siglip, tmp_path):
    trainer(siglip, tmp_path / "new", epochs=1).fit()
    with pytest.raises(VopError, match="loss = 'sigmoid', this one has 'infonce'"):
        trainer(siglip, tmp_path / "new", epochs=1, loss="infonce").fit(resume=True)
    whole = trainer(tiny, tmp_path / "old", epochs=1).fit()
    path = tmp_path / "old/training/state.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    identity = json.loads(metadata["identity"])
    assert identity.pop("loss") == "infonce"  # earlier versions did not write it
    save_file(load_file(path), path, metadata=metadata | {"identity": json.dumps(identity)})
    assert trainer(tiny, tmp_path / "old", epochs=1).fit(resume=True).history == whole.history


def test_damaged_checkpoints_are_named(tiny, tmp_path):
    trainer(tiny, tmp_path).fit()
    path = tmp_path / "training" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(VopError, match="state.safetensors: damaged"):
        trainer(tiny, tmp_path).fit(resume=True)


class Elsewhere(Ranks):
    def gather(self, value):
        return [value, False]


def test_all_processes_must_see_the_checkpoint(tiny, tmp_path):
    trainer(tiny, tmp_path, epochs=1).fit()
    job = trainer(tiny, tmp_path, epochs=1)
    job.ranks = Elsewhere()
    with pytest.raises(VopError, match=r"state.safetensors does not exist for rank 1 of 2: .*--out"):
        job.fit(resume=True)


def test_full_disks_keep_the_last_checkpoint(tiny, tmp_path, monkeypatch):
    from vop.training import checkpoint

    original = checkpoint.save_file

    def full(*args, **kwargs):
        if len(list(tmp_path.glob("training/state.safetensors"))):
            raise OSError(28, "No space left on device")
        original(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(VopError, match="no space left"):
        trainer(tiny, tmp_path).fit()
    monkeypatch.setattr(checkpoint, "save_file", original)
    trainer(tiny, tmp_path).fit(resume=True)
    trainer(tiny, tmp_path / "whole").fit()
    one, other = weights(tmp_path), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_trackers_log_losses_and_validations(tiny, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer(tiny, tmp_path / "run", given={"track": ["tensorboard"]}).fit()
    (folder,) = {path.parent for path in tmp_path.glob("run/training/tensorboard/vop/events.*")}
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 10))
    assert [event.step for event in events.Scalars("validation/t2v_r1")] == [3, 6, 9]


def test_trackers_can_be_disabled(tiny, tmp_path):
    trainer(tiny, tmp_path, given={"track": ["none"]}).fit()
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["state.safetensors"]


def test_unknown_and_missing_trackers_are_named(tiny, tmp_path):
    with pytest.raises(UsageError, match="'tensorbord': did you mean tensorboard"):
        trainer(tiny, tmp_path, given={"track": ["tensorbord"]})
    if importlib.util.find_spec("clearml") is None:
        with pytest.raises(UsageError, match="pip install clearml"):
            trainer(tiny, tmp_path, given={"track": ["clearml"]})


def test_zero_shot_trains_nothing(tiny, tmp_path):
    with pytest.raises(UsageError, match="zero-shot has no trainable parameters"):
        trainer(tiny, tmp_path, method="zero-shot")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"on_bad_video": "blank"}, "'blank'"),
        ({"loss": "hinge"}, "'hinge'"),
        ({"seed": 2**63}, str(2**63)),
    ],
)
def test_invalid_recipes_are_named(values, says):
    with pytest.raises(UsageError, match=says):
        Recipe(**values)


def test_recipes_are_read_from_yaml(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("method: vop\nlearning_rate: 1e-3\nepochs: 2\n")
    assert read_config(path) == TrainingConfig(method="vop", recipe=Recipe(learning_rate=1e-3, epochs=2))
    path.write_text("epoch: 2\n")
    with pytest.raises(UsageError, match="'epoch': did you mean epochs"):
        read_config(path)


def first_gradient(job) -> dict[str, torch.Tensor]:
    """The gradient of the first batch, before any step."""
    job._add_gradients(next(job._steps(0, start=0)), rate=1.0)
    return {name: parameter.grad.clone() for name, parameter in job.trained.items() if parameter.requires_grad}


SHARED: dict[str, tuple[str, dict]] = {
    "vop-f+c": ("tiny", {"method": "vop-f+c"}),
    "full-seqTransf": ("tiny", {"method": "full", "settings": {"head": "seqTransf"}}),
    "full-x-pool": ("tiny", {"method": "full", "settings": {"head": "x-pool", "head.dropout": 0.0}}),
    "vop-two-captions": ("tiny", {"method": "vop", "captions_per_video": 2, "batch_size": 4}),
    "siglip-two-captions": ("siglip", {"method": "vop-c", "captions_per_video": 2, "batch_size": 4}),
    "vop-p-averaged": ("tiny", {"method": "vop-p", "ema_decay": 0.9, "rates": {"text": 0, "video": 0.5}}),
    "siglip-full": ("siglip", {"method": "full", "hard_negatives": 1, "batch_size": 4}),
    "vop-f+p-chunked": ("tiny", {"method": "vop-f+p", "chunk_size": 2, "matryoshka": (8,), "recompute": "layers"}),
    "x-pool-chunked": (
        "tiny",
        {"method": "full", "settings": {"head": "x-pool", "head.dropout": 0.0}, "chunk_size": 1, "accumulate": 2},
    ),
    "siglip-full-chunked": (
        "siglip",
        {"method": "full", "captions_per_video": 2, "batch_size": 4, "chunk_size": 1, "accumulate": 2},
    ),
}
TWO_PROCESSES = """
import json
import sys
sys.path[:0] = {tests!r}
from pathlib import Path
import torch
from accelerate import PartialState
from safetensors.torch import save_file
torch.set_num_threads(1)
from test_trainer import SHARED, first_gradient, trainer
from vop.backbones import find_backbone
for name, (backbone, kind) in SHARED.items():
    out = Path({out!r}) / name
    job = trainer(find_backbone({folders!r}[backbone]), out, **kind, epochs=1)
    assert job.accelerator.num_processes == 2
    gradient = first_gradient(job)
    result = job.fit()
    known = {{"untuned": job.state.untuned, "scores": job.state.untuned_scores}}
    assert result.history[0]["validation"], "every process knows the result of the validation"
    (out / f"validation-{{job.ranks.rank}}.json").write_text(json.dumps(known))
    if job.accelerator.is_main_process:
        save_file(gradient, out / "gradient.safetensors")
PartialState().destroy_process_group()
"""


@pytest.fixture(scope="module")
def backbones(tiny, siglip):
    return {"tiny": tiny, "siglip": siglip}


@pytest.fixture(scope="module")
def trained_by_two_processes(backbones, tmp_path_factory):
    """The folder with a run and the first gradient of each training in `SHARED`."""
    folder = tmp_path_factory.mktemp("two")
    here = Path(__file__).parent
    folders = {name: str(backbone.folder) for name, backbone in backbones.items()}
    code = TWO_PROCESSES.format(tests=[str(here), str(here.parent)], folders=folders, out=str(folder))
    done = run_ranks(code, ranks=2)
    assert [rank.returncode for rank in done] == [0, 0], [rank.stderr[-3000:] for rank in done]
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_train_like_one(backbones, trained_by_two_processes, tmp_path, name):
    """Embeddings are gathered with gradients; each process sees half of the batch, at once or in chunks."""
    backbone, kind = SHARED[name]
    job = trainer(backbones[backbone], tmp_path, **kind | {"chunk_size": None, "recompute": "none"}, epochs=1)
    expected = first_gradient(job)
    job.fit()
    two_folder = trained_by_two_processes / name
    for rank in range(2):
        known = json.loads((two_folder / f"validation-{rank}.json").read_text())
        assert known == {"untuned": job.state.untuned, "scores": job.state.untuned_scores}
    gradient = load_file(two_folder / "gradient.safetensors")
    for parameter in expected:
        scale = expected[parameter].abs().max()
        torch.testing.assert_close(gradient[parameter] / scale, expected[parameter] / scale, rtol=0, atol=1e-5)
    if kind["method"] == "full":  # some gradients are near 0, where AdamW's steps depend on rounding
        return
    one, two = weights(tmp_path), weights(two_folder)
    for parameter in one:
        torch.testing.assert_close(two[parameter], one[parameter], rtol=0, atol=1e-3)


TWO_NODES = """
import os, signal, sys
sys.path[:0] = {tests!r}
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_trainer import SHARED, trainer
from vop.backbones import find_backbone
from vop.utils.ranks import join, leave
from vop.utils.watch import watched
dying = sys.argv[1] == "dying"

def progress(stage, done, total, note=""):
    if dying and done == 2 and os.environ["RANK"] == "1":
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

with watched():
    join()
    backbone, kind = SHARED[{name!r}]
    job = trainer(find_backbone({folder!r}), Path({out!r}), **kind, epochs=1, progress=progress)
    job.fit(resume=not dying)
leave()
"""


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
def test_two_nodes_resume_after_one_has_died(tiny, trained_by_two_processes, tmp_path):
    """Two launchers on loopback. One is killed with its process; the other one ends and names the dead rank."""
    here, name = Path(__file__).parent, "vop-f+p-chunked"
    script = tmp_path / "job.py"
    given = {"name": name, "folder": str(tiny.folder), "out": str(tmp_path / "run")}
    script.write_text(TWO_NODES.format(tests=[str(here), str(here.parent)], **given))

    def launch(how: str) -> list[tuple[int, str]]:
        with socket.socket() as some:
            some.bind(("127.0.0.1", 0))
            port = some.getsockname()[1]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
        launcher += ["--master_addr=127.0.0.1", f"--master_port={port}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        nodes = [
            subprocess.Popen(
                [*launcher, f"--node_rank={rank}", str(script), how], stderr=subprocess.PIPE, text=True, env=environment
            )
            for rank in range(2)
        ]
        try:
            return [(node.returncode, said) for node in nodes for _, said in [node.communicate(timeout=300)]]
        finally:
            for node in nodes:
                node.kill()

    (status, said), (killed, _) = launch("dying")
    assert (status, killed) == (1, -9)
    assert "rank 1 of 2 failed: it ended without a message" in said
    assert (tmp_path / "run/training/state.safetensors").exists()
    assert not (tmp_path / "run/model.safetensors").exists()
    resumed = launch("resuming")
    assert [status for status, _ in resumed] == [0, 0], resumed
    whole, resumed = weights(trained_by_two_processes / name), weights(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
