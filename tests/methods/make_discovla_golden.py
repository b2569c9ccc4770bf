"""Writes discovla_golden.json: what DiscoVLA's released code computes with weights that anyone can draw again.

python tests/methods/make_discovla_golden.py CHECKOUT, with a checkout of https://github.com/LunarShen/DsicoVLA. The
test beside it needs the file alone.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from released import FRAMES, SIZES, clip_state, drawn, inputs, probe, rounded

FILE = Path(__file__).with_name("discovla_golden.json")


def rearrange(x: torch.Tensor, pattern: str, *, b: int, f: int) -> torch.Tensor:
    """The patterns of `einops` that encoding a video takes."""
    if pattern == "(b f) h p d-> b h f p d":
        return x.unflatten(0, (b, f)).transpose(1, 2)
    assert pattern == "(b f) h p d-> b h (f p) d", pattern
    return x.unflatten(0, (b, f)).transpose(1, 2).flatten(2, 3)


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    layers, einops = types.ModuleType("timm.models.layers"), types.ModuleType("einops")
    layers.drop_path, einops.rearrange = None, rearrange  # the first is imported there, and not used
    sys.modules |= {"timm": types.ModuleType("timm"), "timm.models": types.ModuleType("timm.models")}
    sys.modules |= {"timm.models.layers": layers, "einops": einops}
    from tvr.models.modeling import VTRModel

    with TemporaryDirectory() as folder:
        torch.save(clip_state(), Path(folder) / "ViT-B-32.pt")
        settings = {
            "base_encoder": "ViT-B/32",
            "lora_adapter_dim": 8,
            "alpha": 0.3,
            "beta": 1.0,
            "H_V": 4,
        }  # of main.py
        settings |= {"H_L": SIZES.text.layers, "pretrained_path": folder}
        model = VTRModel(types.SimpleNamespace(**settings)).eval()
    trained = {name: parameter for name, parameter in model.named_parameters() if "TVPt" in name}
    for name, parameter in trained.items():
        parameter.data = drawn(name, parameter.shape)
    ids, pixels = inputs()
    mask = torch.ones(len(pixels), FRAMES)
    texts = model.get_text_feat(ids, (ids > 0).long())
    videos, frames = model.get_train_video_feat(pixels.flatten(0, 1), mask)
    logits = model.stage2_eval(texts, None, videos, None)
    loss = (model.loss_fct(logits) + model.loss_fct(logits.T)) / 2  # between captions and videos
    loss.backward()
    numbers = {
        "texts": texts,
        "frames": frames[0],
        "videos": videos,
        "logits": logits,
        "loss": loss,
        "gradients": {name: probe(name, p.grad) for name, p in trained.items() if p.grad is not None},
    }
    FILE.write_text(json.dumps(rounded(numbers)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
