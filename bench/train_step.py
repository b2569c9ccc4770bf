"""Measure a training step of a prompt method: ours in bf16 and fp32, and a plain CLIP in fp32.

    python bench/train_step.py [--method vop] [--videos 4] [--repeats 7] [--threads 2] [--json]
    python bench/train_step.py --profile bf16

Weights are random, because only time is measured. The plain CLIP uses nn.MultiheadAttention, like common fine-tuning
code. It has the same prompts and weights and must give the same loss. The output has the elapsed time, and the CPU
time summed over threads. With `--threads 1` other jobs on the machine hardly change the CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vop import methods
from vop.backbones import Backbone, Sizes
from vop.backbones.clip.family import ClipFamily
from vop.backbones.sizes import VIT_B_32
from vop.backbones.towers import CLIP
from vop.models.model import TextVideoModel
from vop.video.resizing import Resizing

PLAIN = "plain fp32"


class RandomBackbone(Backbone):
    """A backbone without a folder."""

    def load(self) -> CLIP:
        torch.manual_seed(0)
        return CLIP(self.sizes).eval().requires_grad_(False)

    def tokenizer(self) -> None:
        return None


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (n, b, d) to (n, b, d)."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.c_fc(self.ln_2(x))
        return x + self.c_proj(y * torch.sigmoid(1.702 * y))


class PlainVoP(nn.Module):
    """Basic VoP on a plain CLIP that copies the weights of `ours`."""

    def __init__(self, ours: TextVideoModel) -> None:
        super().__init__()
        self.clip = clip = ours.clip
        self.blocks = nn.ModuleDict()
        for name, tower in (("vision", clip.vision), ("text", clip.text)):
            size = getattr(clip.sizes, name)
            self.blocks[name] = nn.ModuleList(PlainBlock(size.width, size.heads) for _ in tower.layers)
            for plain, layer in zip(self.blocks[name], tower.layers, strict=True):
                plain.ln_1.load_state_dict(layer.attention_norm.state_dict())
                plain.ln_2.load_state_dict(layer.mlp_norm.state_dict())
                plain.attn.in_proj_weight.data.copy_(layer.attention.in_proj.weight)
                plain.attn.in_proj_bias.data.copy_(layer.attention.in_proj.bias)
                plain.attn.out_proj.load_state_dict(layer.attention.out_proj.state_dict())
                plain.c_fc.load_state_dict(layer.mlp.fc1.state_dict())
                plain.c_proj.load_state_dict(layer.mlp.fc2.state_dict())
        self.requires_grad_(False)
        self.visual_prompts = nn.Parameter(ours.method.shared_prompts.tokens.detach().clone())
        self.text_prompts = nn.Parameter(ours.method.text_prompts.tokens.detach().clone())

    def forward(self, ids: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.texts(ids), self.videos(pixels)

    def videos(self, pixels: Tensor) -> Tensor:
        vision = self.clip.vision
        x = vision.embed(pixels.flatten(0, 1))
        for i, block in enumerate(self.blocks["vision"]):
            prompts = self.visual_prompts[i].repeat(len(x), 1, 1)
            x = torch.cat([x[:, :1], prompts, x[:, 1:]], dim=1)
            x = vision.pre_norm(x) if i == 0 else x
            x = block(x.permute(1, 0, 2)).permute(1, 0, 2)
            x = torch.cat([x[:, :1], x[:, 1 + prompts.shape[1] :]], dim=1)
        frames = F.normalize(vision.head(x[:, 0]), dim=-1).unflatten(0, pixels.shape[:2])
        return F.normalize(frames.mean(dim=1), dim=-1)

    def texts(self, ids: Tensor) -> Tensor:
        text = self.clip.text
        x = text.embed(ids)
        for i, block in enumerate(self.blocks["text"]):
            prompts = self.text_prompts[i].repeat(len(x), 1, 1)
            x = torch.cat([x[:, :1], prompts, x[:, 1:]], dim=1)
            x = text.add_positions(x) if i == 0 else x
            mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
            x = block(x.permute(1, 0, 2), mask).permute(1, 0, 2)
            x = torch.cat([x[:, :1], x[:, 1 + prompts.shape[1] :]], dim=1)
        return F.normalize(text.head(x[torch.arange(len(x)), text.eos_index(ids)]), dim=-1)


def build(method: str, sizes: Sizes, *, frames: int, dtype: torch.dtype) -> TextVideoModel:
    backbone = RandomBackbone(
        name="random",
        folder=Path(),
        revision=None,
        family=ClipFamily(),
        sizes=sizes,
        stored_image_size=sizes.vision.image_size,
        resizing=Resizing(sizes.vision.image_size),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    torch.manual_seed(1)
    part = methods.create(method, sizes, num_frames=frames)
    return TextVideoModel(backbone, method, part, dtype=dtype).train()


def make_batch(sizes: Sizes, *, videos: int, frames: int, tokens: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, sizes.text.eos_token_id, (videos, tokens), generator=generator)
    ids[:, -1] = sizes.text.eos_token_id
    side = sizes.vision.image_size
    return ids, torch.randint(0, 256, (videos, frames, 3, side, side), dtype=torch.uint8, generator=generator)


class Step:
    """Does one training step per call: forward, symmetric InfoNCE, backward, AdamW."""

    def __init__(self, model: TextVideoModel | PlainVoP, ids: Tensor, pixels: Tensor) -> None:
        self.model, self.ids, self.pixels = model, ids, pixels
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.2)

    def loss(self) -> Tensor:
        if isinstance(self.model, PlainVoP):
            texts, videos = self.model(self.ids, self.pixels)
        else:
            texts, videos = self.model.embed_tokens(self.ids), self.model.embed_frames(self.pixels)
        scores, targets = 100 * texts @ videos.T, torch.arange(len(texts))
        return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2

    def __call__(self) -> dict[str, float]:
        start, start_cpu = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu}


def make_steps(args: argparse.Namespace) -> dict[str, Step]:
    sizes = VIT_B_32
    exact = build(args.method, sizes, frames=args.frames, dtype=torch.float32)
    ids, frames = make_batch(sizes, videos=args.videos, frames=args.frames, tokens=args.tokens)
    pixels = exact.normalise(frames)
    steps = {
        "bf16": Step(build(args.method, sizes, frames=args.frames, dtype=torch.bfloat16), ids, pixels),
        "fp32": Step(exact, ids, pixels),
    }
    if args.method == "vop":
        steps[PLAIN] = Step(PlainVoP(exact), ids, pixels)
        with torch.no_grad():
            torch.testing.assert_close(steps["fp32"].loss(), steps[PLAIN].loss(), rtol=1e-3, atol=1e-3)
    return steps


def measure(steps: dict[str, Step], repeats: int) -> dict:
    """Return the medians of both clocks, and their ratios to bf16."""
    for step in steps.values():
        step()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for _ in range(repeats):  # alternate, so that a busy machine disturbs all of them
        for name, step in steps.items():
            runs[name].append(step())
    result = {}
    for clock in ("seconds", "cpu_seconds"):
        medians = {name: statistics.median(run[clock] for run in runs[name]) for name in steps}
        result[clock] = medians
        result[f"{clock}_ratio"] = {name: value / medians["bf16"] for name, value in medians.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="vop", help="Method to train. The plain CLIP exists only for vop.")
    parser.add_argument("--videos", type=int, default=4, help="Number of videos and of captions.")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=32, help="Tokens of a caption.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="Print one JSON document instead of lines.")
    parser.add_argument("--profile", metavar="NAME", help="Print a profile of bf16, fp32 or 'plain fp32'.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = make_steps(args)
    if args.profile:
        steps[args.profile]()
        with torch.profiler.profile() as profile:
            steps[args.profile]()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
        return
    result = measure(steps, args.repeats)
    if args.json:
        settings = {key: getattr(args, key) for key in ("method", "videos", "frames", "tokens", "repeats", "threads")}
        print(json.dumps({**settings, **result, "torch": torch.__version__}))
        return
    for clock in ("seconds", "cpu_seconds"):
        for name, value in result[clock].items():
            print(f"{clock:12} {name:12} {value:8.3f}  {result[f'{clock}_ratio'][name]:5.2f} x bf16")


if __name__ == "__main__":
    main()
