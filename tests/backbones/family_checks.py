"""What the tests of several families check in the same way, and how they damage a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vop
from vop.backbones import find_backbone
from vop.errors import VopError
from vop.models.pretrained import create
from vop.training.loss import LOSSES


def change_tower(folder: Path, tower: str, **values: object) -> None:
    """Write other values of "text_config" or "vision_config"."""
    config = json.loads((folder / "config.json").read_text())
    config[tower] |= values
    (folder / "config.json").write_text(json.dumps(config))


def check_a_trained_run(folder: Path, run: Path) -> None:
    """One step of vop-f+c moves the embeddings, and the run that is saved then loads as the same model."""
    model = create("vop-f+c", str(folder), num_frames=2, text_prompts=2, visual_prompts=2, specific_prompts=1)
    frames = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = model.encode_frames(frames)
    optimizer = torch.optim.SGD(model.trainable().values(), lr=1.0)
    texts, videos = model.train()(model.tokenize(["a dog", "собака"]), frames)
    rows = torch.arange(2)
    LOSSES[model.backbone.sizes.loss](model.logits(texts, videos), rows, rows).backward()
    optimizer.step()
    model.eval().save_pretrained(run)
    loaded = vop.load(run)
    assert torch.equal(loaded.encode_text(["a dog"]), model.encode_text(["a dog"]))
    assert torch.equal(loaded.encode_frames(frames), model.encode_frames(frames))
    assert not torch.allclose(model.encode_frames(frames), before)


def check_a_missing_tensor(folder: Path, name: str, *, kind: str) -> None:
    """Weights without a tensor are refused, with its name and the class of `transformers` that has it."""
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VopError, match=rf"'{re.escape(name)}'.*{kind}"):
        find_backbone(str(folder)).load()


def check_image_gradients(ours, theirs) -> None:
    """The gradients of pixels are those of a model of `transformers`."""
    first = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    second = first.detach().clone().requires_grad_()
    ours.vision(first).square().sum().backward()
    theirs.get_image_features(second).pooler_output.square().sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=0, atol=1e-4)
