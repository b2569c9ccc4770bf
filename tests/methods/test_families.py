"""Every method on every family of backbones with accessible layers."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import vop
from open_clip_models import make_golden_folder
from tiny_backbones import make_altclip_folder, make_chinese_clip_folder, make_metaclip2_folder, make_siglip_folder
from tiny_clip import make_clip_folder
from vop import methods
from vop.models.params import count_model
from vop.models.pretrained import create

FAMILIES = {
    "clip": make_clip_folder,
    "metaclip_2": make_metaclip2_folder,
    "siglip": make_siglip_folder,
    "siglip 2": partial(make_siglip_folder, version=2),
    "chinese_clip": make_chinese_clip_folder,
    "altclip": make_altclip_folder,
    "open_clip": partial(make_golden_folder, name="an MLP of an odd width"),
}
FRAMES = 2
TEXTS = ["a man cuts an onion", "a dog"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp("family")) for name, make in FAMILIES.items()}


def frames_for(model) -> torch.Tensor:
    side = model.image_size
    return torch.randint(0, 256, (2, FRAMES, 3, side, side), dtype=torch.uint8)


def embed(model, frames) -> tuple[torch.Tensor, torch.Tensor]:
    return model(model.tokenize(TEXTS), frames)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", methods.available())
def test_every_method_trains_saves_and_opens(method, family, folders, tmp_path):
    torch.manual_seed(0)
    settings = {"num_frames": FRAMES} | ({"text_prompts": 4} if method.startswith("vop") else {})
    model = create(method, str(folders[family]), device="cpu", **settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frames = frames_for(model)
    trained = model.trainable()
    if trained:
        texts, videos = embed(model, frames)
        logits = model.logits(texts, videos)
        (logits.logsumexp(dim=1) - logits.diagonal()).mean().backward()
        torch.optim.SGD(trained.values(), lr=0.01).step()
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} <= trained.keys()
    assert sum(tensor.numel() for tensor in trained.values()) == (
        count_model(method, model.backbone.sizes, settings=settings).true_count
    )
    model.eval().save_pretrained(tmp_path)
    opened = vop.load(tmp_path, device="cpu")
    for ours, expected in zip(embed(opened, frames), embed(model, frames), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_change_both_embeddings(family, folders):
    torch.manual_seed(0)
    plain = vop.load(folders[family], device="cpu")
    frames = frames_for(plain)
    prompted = create("vop", str(folders[family]), num_frames=FRAMES, text_prompts=4, device="cpu")
    for changed, same in zip(embed(prompted, frames), embed(plain, frames), strict=True):
        assert (changed - same).abs().max() > 1e-4
