"""Writes tempme_golden.json: what TempMe's released code computes with weights that anyone can draw again.

python tests/methods/make_tempme_golden.py CHECKOUT, with a checkout of https://github.com/LunarShen/TempMe. The test
beside it needs the file alone.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from released import FRAMES, clip_state, drawn, inputs, probe, rounded

FILE = Path(__file__).with_name("tempme_golden.json")


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    layers = types.ModuleType("timm.models.layers")  # imported there, and not used
    layers.drop_path = None
    sys.modules |= {"timm": types.ModuleType("timm"), "timm.models": types.ModuleType("timm.models")}
    sys.modules["timm.models.layers"] = layers
    from tvr.models.modeling import VTRModel

    settings = types.SimpleNamespace(  # the defaults of main.py, which scripts/MSRVTT.sh keeps
        base_encoder="ViT-B/32", lora_dim=8, merge_layer="8-9-10", merge_frame_num="2-2-3", max_frames=FRAMES,
        frame_pos=1, tome_r=2, tome_tracesource=False, tome_propattn=True, merge_token_proportion="30-10",
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        torch.save(clip_state(), Path(folder) / "ViT-B-32.pt")
        model = VTRModel(types.SimpleNamespace(**vars(settings), pretrained_path=folder)).eval()
    trained = {name: parameter for name, parameter in model.named_parameters() if "TVPt" in name}
    for name, parameter in trained.items():
        parameter.data = drawn(name, parameter.shape)
    ids, pixels = inputs()
    texts, videos = model.stage1_eval(ids, (ids > 0).long(), pixels, torch.ones(len(pixels), FRAMES))
    logits = model.stage2_eval(texts, None, videos, None)
    loss = (model.loss_fct(logits) + model.loss_fct(logits.T)) / 2
    loss.backward()
    numbers = {
        "texts": texts,
        "videos": videos,
        "logits": logits,
        "loss": loss,
        "gradients": {name: probe(name, parameter.grad) for name, parameter in trained.items()},
    }
    FILE.write_text(json.dumps(rounded(numbers)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
