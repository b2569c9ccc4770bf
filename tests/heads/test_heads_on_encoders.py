"""Heads on encoders without layers: refused where a video has one embedding, at work where every frame has its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from head_data import NARROW

import vop
from open_clip_models import ZERO_SHOT, make_open_clip_folder
from tiny_backbones import make_pe_video_folder, make_videoprism_folder, make_x_clip_folder
from tiny_data import write_data
from vop import heads
from vop.backbones.video_native.pe_video import PeVideoFamily
from vop.errors import UsageError
from vop.models.pretrained import create
from vop.training.loss import contrastive_loss

MAKERS = {"xclip": make_x_clip_folder, "videoprism": make_videoprism_folder, "pe_video": make_pe_video_folder}
OVER_FRAMES = [name for name in heads.HEADS if name != heads.MEAN]


@pytest.fixture(scope="module", params=MAKERS)
def video_folder(request, tmp_path_factory):
    if request.param == "pe_video":
        pytest.importorskip("timm")
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("name", OVER_FRAMES)
def test_a_video_encoder_has_no_frames_for_a_head(video_folder, name):
    with pytest.raises(UsageError, match=rf"head is {name};.*one embedding.*{heads.MEAN}"):
        create("zero-shot", str(video_folder), head=name)


@pytest.mark.parametrize("name", [*OVER_FRAMES, "vop.heads.x_pool:XPool"])
def test_the_sizes_of_pe_video_are_enough_to_refuse(name):
    with pytest.raises(UsageError, match=rf"head is {name};"):
        heads.create(name, PeVideoFamily().read_sizes({}))


def test_training_and_unknown_heads_on_a_video_encoder(tmp_path):
    folder, data = make_x_clip_folder(tmp_path / "x-clip"), write_data(tmp_path / "data")
    with pytest.raises(UsageError, match="head is x-pool"):
        vop.train(method="zero-shot", head="x-pool", data=data, backbone=str(folder), out=tmp_path / "run")
    with pytest.raises(UsageError, match="x-pool"):
        create("zero-shot", str(folder), head="x-poll")


def test_the_mean_of_a_video_encoder_is_its_embedding(tmp_path):
    model = create("zero-shot", str(make_x_clip_folder(tmp_path)), device="cpu").eval()
    side = model.image_size
    pixels = torch.randn(2, 4, 3, side, side, generator=torch.Generator().manual_seed(0))
    features = model.frame_features(pixels)
    assert features.shape == (2, 1, 16)
    unit = torch.nn.functional.normalize(features[:, 0], dim=-1)
    torch.testing.assert_close(model.embed_frames(pixels), unit, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", heads.HEADS)
def test_sizes_without_layers_but_with_frames_have_all_heads(name):
    bare = replace(NARROW, vision=replace(NARROW.vision, layers=0), text=replace(NARROW.text, layers=0))
    assert heads.create(name, bare, num_frames=3).score(torch.randn(2, 16), torch.randn(4, 3, 16)).shape == (2, 4)


@pytest.mark.parametrize("name", OVER_FRAMES)
def test_an_image_encoder_without_layers_trains_a_head(name, tmp_path):
    pytest.importorskip("open_clip")
    folder, _ = make_open_clip_folder(tmp_path / "resnet", ZERO_SHOT)
    torch.manual_seed(0)
    model = create("zero-shot", str(folder), head=name, num_frames=3, device="cpu").train()
    assert not model.backbone.sizes.has_layers
    assert {key.partition(".")[0] for key in model.trainable()} == {"head"}
    frames = torch.randint(256, (2, 3, 3, 64, 64), dtype=torch.uint8)
    ids = torch.tensor([[1, 7, 513] + [0] * 21, [1, 9, 513] + [0] * 21])
    before = {key: tensor.clone() for key, tensor in model.trainable().items()}
    rows = torch.arange(2)
    contrastive_loss(model.logits(*model(ids, frames)), rows, rows).backward()
    torch.optim.SGD(model.trainable().values(), lr=0.1).step()
    assert any(not torch.equal(tensor, before[key]) for key, tensor in model.trainable().items())
    model.eval().save_pretrained(tmp_path / "run")
    opened = vop.load(tmp_path / "run", device="cpu")
    with torch.no_grad():
        assert torch.equal(opened.logits(*opened(ids, frames)), model.logits(*model(ids, frames)))
