"""Writes stop_golden.json: what STOP's released code computes with weights that anyone can draw again.

python tests/methods/make_stop_golden.py CHECKOUT, with a checkout of https://github.com/zhoujiahuan1991/CVPR2025-STOP.
The test beside it needs the file alone. The released files hold the sizes of ViT-B/32 and both sides of a merge; the
script reads the first side, whose linear prompts fit together, with the tiny sizes in their place.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from released import STOP_FRAMES, STOP_SIZES, clip_state, drawn, inputs, probe, rounded

FILE = Path(__file__).with_name("stop_golden.json")
TRAINED = ("prompt_embedding", "text_prompt_proj_layer", "TemporalPrompt", "LoRA")  # of params.py
SMALL = {
    "modules.temporal_prompting": {
        "768": "64",
        "num_heads = 12": "num_heads = 1",
        "reshape(B, T, 32, 7, 32, 7)": "reshape(B, T, 4, 7, 4, 7)",
        "repeat(1, 1, 32, 1, 32, 1)": "repeat(1, 1, 4, 1, 4, 1)",
        "224, 224": "28, 28",
        "repeat(12, 1, 1, 1)": "repeat(3, 1, 1, 1)",
    },
    "modules.clip": {"prompt_dim = 768": "prompt_dim = 64", "torch.float32": "torch.float64"},
}


def released(checkout: Path, name: str) -> types.ModuleType:
    source = (checkout / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
    if source.startswith("<<<<<<< HEAD\n"):
        source = source.removeprefix("<<<<<<< HEAD\n").split("\n=======\n")[0]
    for large, small in SMALL.get(name, {}).items():
        assert large in source, large
        source = source.replace(large, small)
    module = types.ModuleType(name)
    module.__package__ = "modules"
    sys.modules[name] = module
    exec(compile(source, name, "exec"), vars(module))
    return module


def main(checkout: Path) -> None:
    package = types.ModuleType("modules")
    package.__path__ = []
    sys.modules["modules"] = package
    for name in ("modules.utils", "modules.temporal_prompting", "modules.clip", "modules.losses"):
        released(checkout, name)
    vision, text, ids = STOP_SIZES.vision, STOP_SIZES.text, inputs()[0]
    args = types.SimpleNamespace(  # the defaults of params.py; `linear` and `group2-2` of scripts/msrvtt.sh
        temporal_prompt="group2-2", shared_latent_space="linear", lora=True, time_embedding=0,
        global_visual_prompt_length=4, local_each_frame_prompt_length=4, text_prompt_length=8,
        unified_transformer_layers=vision.layers, visual_output_type="global_prompt0", max_words=ids.shape[1],
    )  # fmt: skip
    model = sys.modules["modules.clip"].CLIP(
        STOP_SIZES.embed_dim, vision.image_size, vision.layers, vision.width, vision.patch_size, text.positions,
        text.vocab_size, text.width, text.heads, text.layers, video_frames=STOP_FRAMES, args=args,
    )  # fmt: skip
    model.load_state_dict(clip_state(STOP_SIZES), strict=False)
    model.eval()
    trained = {name: p for name, p in model.named_parameters() if any(part in name for part in TRAINED)}
    for name, parameter in trained.items():
        parameter.data = drawn(name, parameter.shape)
    pixels = inputs()[1][:, :STOP_FRAMES].double()
    model.double()  # sums over pixels and frames lose digits in float32
    torch.set_default_dtype(torch.float64)
    texts = model.encode_text(ids, model.encode_prompt(len(ids), "cpu")[0])
    # One by one: the released code scales by the smallest and the largest value of a batch.
    videos = [model.encode_image(one, model.encode_prompt(1, "cpu")[1], video_frame=STOP_FRAMES) for one in pixels]
    videos = torch.cat(videos).squeeze(1)
    logits = model.logit_scale.exp() * F.normalize(texts, dim=-1) @ F.normalize(videos, dim=-1).T
    cross_entropy = sys.modules["modules.losses"].CrossEn()
    loss = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    loss.backward()
    torch.set_default_dtype(torch.float32)
    numbers = {
        "texts": texts,
        "videos": videos,
        "logits": logits,
        "loss": loss,
        "gradients": {name: probe(name, p.grad) for name, p in trained.items() if p.grad is not None},
        "without_gradient": sorted(name for name, parameter in trained.items() if parameter.grad is None),
    }
    FILE.write_text(json.dumps(rounded(numbers)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
