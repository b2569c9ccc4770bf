"""Pre-training of a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tools.mini import export as exporting
from tools.mini import pretrain
from tools.mini.batches import Batches, positions
from tools.mini.grow import _copy_words, grow
from tools.mini.pretrain import Auxiliary, Trainer
from tools.mini.settings import WORLDS, Settings

TOY = Settings(
    version=2, shifts=0.5, steps=6, batch=12,
    image_size=16, patch_size=8, vision_width=16, vision_layers=1, text_width=16, text_layers=1,
    projection=8, head_width=8, merges=50, warmup=2,
)  # fmt: skip
FACTS = WORLDS[2].facts


@pytest.fixture(scope="module")
def tokenizer():
    return pretrain.build_tokenizer(TOY)


@pytest.fixture(autouse=True)
def _one_tokenizer(monkeypatch, tokenizer):
    monkeypatch.setattr(pretrain, "build_tokenizer", lambda settings: tokenizer)
    monkeypatch.setattr(exporting, "build_tokenizer", lambda settings: tokenizer)


def _batches(tokenizer):
    return Batches(tokenizer, TOY)


def test_batches_depend_only_on_the_step(tokenizer):
    again = _batches(tokenizer)
    for step in (3, 0, 3):
        first, second = _batches(tokenizer)[step], again[step]
        assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
    assert not torch.equal(again[0].pixels, again[1].pixels)
    assert again[0].pixels.shape == (12, 3, 16, 16)
    with pytest.raises(IndexError, match="6"):
        again[6]


def test_equal_captions_have_the_same_number(tokenizer):
    batch, words = _batches(tokenizer)[0], {}
    for ids, number in zip(batch.ids.tolist(), batch.caption.tolist(), strict=True):
        assert words.setdefault(number, ids) == ids
    assert len({tuple(ids) for ids in words.values()}) == len(words)


def test_unknown_facts_have_no_gradient(tokenizer):
    batch = _batches(tokenizer)[0]
    batch.facts.fill_(-100)
    auxiliary = Auxiliary(8, FACTS)
    auxiliary(torch.randn(12, 8), batch).backward()
    assert auxiliary.present.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in auxiliary.facts.parameters())


def test_positions_learn_faster_and_do_not_decay(tokenizer):
    model = pretrain.build_model(TOY, tokenizer)
    optimizer = pretrain.build_optimizer(model, Auxiliary(8, FACTS), TOY)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert len(names) <= len(group_of)
    for tower in ("text_model", "vision_model"):
        group = group_of[id(names[f"{tower}.embeddings.position_embedding.weight"])]
        assert (group["lr"], group["weight_decay"]) == (5e-3, 0)
    assert group_of[id(names["text_projection.weight"])]["weight_decay"] == 0.1
    assert group_of[id(names["logit_scale"])]["weight_decay"] == 0


def test_resumed_runs_give_the_same_weights_and_export(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain.acceptance, "check", lambda *args, **kwargs: {})
    whole = Trainer(TOY, tmp_path / "whole")
    whole.out.mkdir()
    whole.run(check_every=3, log_every=2)

    part = Trainer(TOY, tmp_path / "part")
    part.out.mkdir()
    for step in range(3):
        part.train_step(_batches(tokenizer)[step])
    part.save()
    resumed = Trainer(TOY, tmp_path / "part")
    resumed.resume()
    assert resumed.step == 3
    resumed.run(check_every=3, log_every=2)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name

    steps = [json.loads(line)["step"] for line in (whole.out / "log.jsonl").read_text().splitlines()]
    assert steps[-1] == 6
    monkeypatch.setattr(exporting.acceptance, "check_folder", lambda *args, count=500: {"count": count, **GOOD})
    record = exporting.export(whole.out, tmp_path / "mini")
    assert record["images"] == 72
    assert "--version 2" in record["command"]
    assert "--image-size 16" in record["command"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json", "README.md"} <= {
        path.name for path in (tmp_path / "mini").iterdir()
    }


GOOD = dict.fromkeys(WORLDS[2].required, 99.5)


def test_checkpoints_of_other_settings_are_refused(tmp_path):
    Trainer(TOY, tmp_path).save()
    with pytest.raises(ValueError, match="'steps': 6"):
        Trainer(Settings(**{**vars(TOY), "steps": 7}), tmp_path).resume()


def test_words_of_moved_captions_stand_at_later_positions(tokenizer):
    batch = _batches(tokenizer)[0]
    places = positions(batch.ids, batch.shift)
    assert 0 < (batch.shift > 0).sum() < len(batch.shift)
    assert places[:, 0].tolist() == [0] * 12
    assert torch.equal(places[:, 1] - 1, batch.shift)
    assert places.max() < 77


def test_version_1_moves_no_words_and_draws_no_panels():
    settings = replace(TOY, version=1, shifts=0.0)
    batch = Batches(pretrain.build_tokenizer(settings), settings)[0]
    assert batch.shift.sum() == 0
    assert batch.facts.shape[1] == len(WORLDS[1].facts)


def test_a_deeper_model_starts_with_the_same_embeddings(tokenizer):
    small = pretrain.build_model(TOY, tokenizer).eval()
    for layer in small.vision_model.encoder.layers:  # biases are zero at first, which would hide a wrong copy
        layer.mlp.fc1.bias.data.normal_()
    large = pretrain.build_model(replace(TOY, vision_layers=3, text_layers=2, seed=1), tokenizer).eval()
    grow(small, tokenizer, large, tokenizer)
    batch = _batches(tokenizer)[0]
    inputs = {"input_ids": batch.ids, "pixel_values": pretrain.normalise(batch.pixels)}
    with torch.no_grad():
        first, second = small(**inputs), large(**inputs)
    torch.testing.assert_close(first.image_embeds, second.image_embeds, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(first.text_embeds, second.text_embeds, atol=1e-6, rtol=1e-5)
    new = large.vision_model.encoder.layers[1].self_attn.out_proj
    assert new.weight.abs().sum() == 0
    assert large.vision_model.encoder.layers[1].mlp.fc1.weight.abs().sum() > 0


def test_a_depth_that_is_no_multiple_is_refused(tokenizer):
    small = pretrain.build_model(replace(TOY, vision_layers=2), tokenizer)
    large = pretrain.build_model(replace(TOY, vision_layers=3), tokenizer)
    with pytest.raises(ValueError, match="3 layers"):
        grow(small, tokenizer, large, tokenizer)


def test_words_of_both_vocabularies_keep_their_embeddings():
    target = torch.zeros(3, 2)
    _copy_words(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), {"cat": 0, "dog": 1}, target, {"dog": 0, "bird": 1, "cat": 2})
    assert target.tolist() == [[2, 2], [0, 0], [1, 1]]
