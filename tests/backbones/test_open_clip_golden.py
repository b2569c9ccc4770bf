"""open_clip's towers against numbers that open_clip computed (make_open_clip_golden.py), where it is not installed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import vop
from open_clip_models import GOLDEN as FILE
from open_clip_models import LAYERED, draw, draw_state, make_golden_folder
from vop import methods
from vop.backbones import Sizes, TextSizes, VisionSizes, find_backbone
from vop.backbones.open_clip import timm_towers
from vop.backbones.open_clip.family import OpenClipFamily
from vop.backbones.sizes import Rope, Stem
from vop.backbones.towers import CLIP
from vop.models.params import count_model
from vop.models.pretrained import create

GOLDEN = json.loads(FILE.read_text())


def read_sizes(values: dict) -> Sizes:
    rope, stem = values["vision"]["rope"], values["vision"]["stem"]
    parts = {"rope": Rope(**rope) if rope else None}
    parts["stem"] = Stem(widths=tuple(stem["widths"]), strides=tuple(stem["strides"])) if stem else None
    vision = VisionSizes(**values["vision"] | parts)
    return Sizes(**values | {"vision": vision, "text": TextSizes(**values["text"])})


@pytest.mark.parametrize("name", LAYERED)
def test_embeddings(name):
    golden = GOLDEN[name]
    sizes = read_sizes(golden["sizes"])
    clip = CLIP(sizes).eval()
    clip.load_state_dict(OpenClipFamily().rename(draw_state(golden["shapes"]), sizes, source=name))
    pixels, ids = draw(sizes)
    with torch.no_grad():
        texts, images = clip.embed_tokens(ids), clip.embed_frames(pixels[:, None])[:, 0]
    torch.testing.assert_close(texts, torch.tensor(golden["texts"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(images, torch.tensor(golden["images"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, config in LAYERED.items() if isinstance(config["vision_cfg"], dict)])
def test_its_own_towers_need_no_open_clip(name):
    assert OpenClipFamily().read_sizes({"model_cfg": LAYERED[name]}) == read_sizes(GOLDEN[name]["sizes"])


@pytest.fixture
def mobile_clip(tmp_path, monkeypatch):
    """A folder of MobileCLIP's ViT. timm would read its sizes; here the golden file has them."""
    golden = GOLDEN["MobileCLIP"]
    monkeypatch.setattr(timm_towers, "vision_sizes", lambda model: read_sizes(golden["sizes"]).vision)
    folder = tmp_path / "mobile-clip"
    return make_golden_folder(folder, "MobileCLIP", vision={"timm_model_name": "vit_base_mci_224"})


@pytest.mark.parametrize("method", methods.available())
def test_every_method_runs_behind_a_convolutional_stem(method, mobile_clip, tmp_path):
    torch.manual_seed(0)
    settings = {"num_frames": 2} | ({"text_prompts": 4} if method.startswith("vop") else {})
    model = create(method, str(mobile_clip), device="cpu", **settings).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pixels, ids = draw(model.backbone.sizes, images=4)
    ids, frames, trained = ids[:2, :16], pixels.unflatten(0, (2, 2)), model.trainable()
    if trained:
        model.logits(model.embed_tokens(ids), model.embed_frames(frames)).log_softmax(1).diagonal().sum().backward()
        torch.optim.SGD(trained.values(), lr=0.01).step()
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} <= trained.keys()
    count = count_model(method, model.backbone.sizes, settings=settings).true_count
    assert sum(tensor.numel() for tensor in trained.values()) == count
    model.eval().save_pretrained(tmp_path / "run")
    opened = vop.load(tmp_path / "run", device="cpu")
    torch.testing.assert_close(opened.embed_frames(frames), model.embed_frames(frames))


def test_the_stem_is_the_same_in_training_and_in_bf16(mobile_clip):
    backbone = find_backbone(str(mobile_clip))
    clip = backbone.load()
    pixels, _ = draw(backbone.sizes)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in clip.modules())
    exact = clip.vision.embed(pixels)
    assert torch.equal(clip.train().vision.embed(pixels), exact)
    clip.eval().compute_in(torch.bfloat16)
    rounded = clip.vision.embed(pixels)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)
