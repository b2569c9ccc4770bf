"""open_clip's towers against numbers that open_clip computed (make_open_clip_golden.py), where it is not installed."""

from __future__ import annotations

import json

import pytest
import torch
from make_open_clip_golden import FILE, draw_state

from open_clip_models import LAYERED, draw
from vop.backbones import Sizes, TextSizes, VisionSizes
from vop.backbones.open_clip.family import OpenClipFamily
from vop.backbones.sizes import Rope, Stem
from vop.backbones.towers import CLIP

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
