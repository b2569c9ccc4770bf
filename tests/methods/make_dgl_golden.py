"""Writes dgl_golden.json: what the released code of DGL computes with weights that anyone can draw again.

python tests/methods/make_dgl_golden.py CHECKOUT, a checkout of knightyxp/DGL. The test beside it needs the file alone.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import torch

FILE = Path(__file__).with_name("dgl_golden.json")
WIDTHS, LAYERS, FRAMES, WORDS = {"vision": 128, "text": 64}, 3, 3, 12  # heads have a width of 64
OPTIONS = {
    "global_visual_prompt_length": 4,
    "local_each_frame_prompt_length": 4,
    "text_prompt_length": 8,
    "unified_transformer_layers": LAYERS,
    "visual_output_type": "global_prompt0",
    "max_words": WORDS,
    "time_embedding": 0,
}
# What trains (params.py), apart from the backbone.
TRAINED = (
    *("prompt_embeddings", "visual_prompt_embedding", "text_prompt_proj_layer"),
    *("PromptTransformer", "unified_prompt_mlp", "unified_prompt_embedding"),
)


def draw_tensor(name: str, shape: list[int], *, std: float = 1) -> torch.Tensor:
    """A tensor that depends on its name and shape alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * std


def draw_state(shapes: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    state = {}
    for name, shape in shapes.items():
        is_scale = "ln_" in name and name.endswith("weight")
        state[name] = draw_tensor(name, shape, std=0.3 if "embedding" in name else 0.1) + (1 if is_scale else 0)
    state["logit_scale"] = torch.tensor(2.0)
    return state


def draw_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids, [EOS] being the highest, and pixels."""
    ids = torch.zeros(3, WORDS, dtype=torch.long)
    for row, end in enumerate((4, 7, WORDS)):
        ids[row, :end] = draw_tensor(f"ids {row}", [end]).mul(20).abs().long() + 1
        ids[row, end - 1] = 99
    return ids, draw_tensor("pixels", [3, FRAMES, 3, 32, 32])


def probe(name: str, gradient: torch.Tensor) -> list[float]:
    """The gradient's products with itself and with two tensors that anyone can draw again."""
    others = [draw_tensor(f"{name} {i}", list(gradient.shape)) for i in range(2)]
    return [float((gradient.double() * other.double()).sum()) for other in (gradient, *others)]


def import_release(checkout: Path) -> tuple[ModuleType, ModuleType, ModuleType]:
    """Modules of the release, without its package's `__init__` and the libraries that only its downloads need."""
    package = ModuleType("modules")
    package.__path__ = [str(checkout / "modules")]
    sys.modules["modules"] = package
    for name in ("boto3", "botocore", "botocore.exceptions", "einops"):
        sys.modules.setdefault(name, MagicMock())
    clip, clip4clip, losses = (import_module(f"modules.{name}") for name in ("clip", "clip4clip", "losses"))
    return clip, clip4clip, losses


def main(checkout: Path) -> None:
    clip, clip4clip, losses = import_release(checkout)
    ids, pixels = draw_batch()
    golden = {}
    for space in ("linear", "transformer"):
        options = SimpleNamespace(**OPTIONS, shared_latent_space=space)
        vision, text = WIDTHS["vision"], WIDTHS["text"]
        model = clip.CLIP(
            32, 32, LAYERS, vision, 16, WORDS, 100, text, text // 64, LAYERS, video_frames=FRAMES, args=options
        )
        # The release writes the width of ViT-B into this parameter.
        model.visual.prompt_embeddings = torch.nn.Parameter(torch.empty(1, 4, vision))
        shapes = {name: list(tensor.shape) for name, tensor in model.named_parameters()}
        model.load_state_dict(draw_state(shapes), strict=False)
        trained = {name: p for name, p in model.named_parameters() if any(part in name for part in TRAINED)}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        prompts = model.encode_prompt(len(ids), "cpu")
        texts = model.encode_text(ids, prompts[0])
        videos = model.encode_image(pixels.flatten(0, 1), prompts[1], video_frame=FRAMES)
        task = SimpleNamespace(sim_header="meanP", training=False, pre_visual_pooling=0, clip=model)
        scores = clip4clip.CLIP4Clip._loose_similarity(task, texts[:, None], videos, None, None)
        loss = (losses.CrossEn()(scores) + losses.CrossEn()(scores.T)) / 2
        loss.backward()
        golden[space] = {
            "shapes": shapes,
            "texts": texts.tolist(),
            "videos": videos[:, 0].tolist(),
            "scores": scores.tolist(),
            "loss": loss.item(),
            "gradients": {name: probe(name, parameter.grad) for name, parameter in trained.items()},
        }
        if len(sys.argv) > 2:  # keep everything, for a comparison of whole gradients
            torch.save({name: p.grad for name, p in trained.items()}, Path(sys.argv[2]) / f"{space}.pt")
    rounded = json.loads(json.dumps(golden), parse_float=lambda value: float(f"{float(value):.9g}"))
    FILE.write_text(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
