"""Tests that every method must pass. Copy this file, and change NAME and SETTINGS.

pip install -e . && pytest
"""

from __future__ import annotations

import pytest
import torch

import vop
from vop.models.pretrained import create

NAME, SETTINGS = "frame-adapter", {"hidden": 8}
STARTS_FROM_CLIP = True  # whether the untrained method equals zero-shot CLIP
FRAMES = 4


def build(dtype=torch.float32, name=NAME, **settings):
    torch.manual_seed(0)
    return create(name, "mini", num_frames=FRAMES, dtype=dtype, device="cpu", **settings)


def batch(model, videos=3):
    generator = torch.Generator().manual_seed(0)
    side = model.image_size
    frames = torch.randint(0, 256, (videos, FRAMES, 3, side, side), dtype=torch.uint8, generator=generator)
    return model.tokenize(["a red ball", "a dog on the left", "two stars"][:videos]), frames


def embed(model):
    with torch.no_grad():
        return model.eval()(*batch(model))


def train(model, steps=2):
    optimizer = torch.optim.SGD(model.trainable().values(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model.logits(*model.train()(*batch(model)))
        torch.nn.functional.cross_entropy(logits, torch.arange(len(logits))).backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_changes_the_trained_parameters_and_nothing_else(dtype):
    model = build(dtype, **SETTINGS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(model.trainable())
    assert all(parameter.dtype == torch.float32 for parameter in model.trainable().values())


def test_a_saved_run_loads_as_the_same_model(tmp_path):
    model = build(**SETTINGS)
    train(model)
    model.save_pretrained(tmp_path)
    again = vop.load(tmp_path, device="cpu")
    assert again.method.settings == model.method.settings
    for one, other in zip(embed(model), embed(again), strict=True):
        assert torch.equal(one, other)


def test_embeddings_are_unit_vectors_in_float32():
    for embeddings in embed(build(**SETTINGS)):
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3))


def test_bf16_is_near_fp32():
    for exact, rounded in zip(embed(build(**SETTINGS)), embed(build(torch.bfloat16, **SETTINGS)), strict=True):
        torch.testing.assert_close(exact, rounded, atol=0.05, rtol=0)


def test_a_batch_gives_the_same_embeddings_as_its_items():
    model = build(**SETTINGS).eval()
    ids, frames = batch(model)
    with torch.no_grad():
        together = model(ids, frames)[1]
        apart = torch.cat([model(ids[i : i + 1], frames[i : i + 1])[1] for i in range(len(frames))])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@pytest.mark.skipif(not STARTS_FROM_CLIP, reason="this method does not start as zero-shot CLIP")
def test_the_untrained_method_equals_zero_shot_clip():
    for one, other in zip(embed(build(**SETTINGS)), embed(build(name="zero-shot")), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
