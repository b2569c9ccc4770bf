"""Make batches for the pre-training: pixels, tokens and facts of one step. They depend only on seed and step."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from tools.mini.motion_groups import Picture, paint
from tools.mini.settings import WORLDS, Settings
from vop.benchmarks import scenes
from vop.benchmarks.artwork import CONCEPTS, Atlas, load_atlas
from vop.benchmarks.scenes import Example

UNSAID = -100  # cross-entropy's index for facts that a caption does not state


@dataclass(frozen=True)
class Batch:
    """One step's data.

    Attributes:
        pixels: uint8 (n, 3, side, side).
        ids: int64 (n, length), padded with the end mark.
        caption: int64 (n,), the same number for equal captions.
        shift: int64 (n,), the number of positions by which the words are moved (see `positions`).
        facts: int64 (n, facts of the world), `UNSAID` where the caption does not state the fact.
        present: float (n, concepts), 1 where a concept is in the picture.
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    caption: torch.Tensor
    shift: torch.Tensor
    facts: torch.Tensor
    present: torch.Tensor


class Batches(torch.utils.data.Dataset):
    """Makes the batch of step i at index i, on every access, so that a resumed run sees the same data."""

    def __init__(self, tokenizer, settings: Settings) -> None:
        self.tokenizer, self.settings = tokenizer, settings

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Batch:
        s, world = self.settings, WORLDS[self.settings.version]
        if not 0 <= step < s.steps:
            raise IndexError(step)
        examples = world.sample_batch(s.batch, Random(f"{s.seed}/{step}"))
        rng = np.random.default_rng([s.seed, step])
        captions = [e.caption for e in examples]
        ids = tokenize(self.tokenizer, captions)
        return Batch(
            pixels=draw(examples, pixels=s.image_size, rng=rng),
            ids=ids,
            caption=torch.from_numpy(np.unique(captions, return_inverse=True)[1]),
            shift=_shifts(len(ids), self.tokenizer.model_max_length - ids.shape[1], s.shifts, rng),
            facts=_facts(examples, world.facts),
            present=_present(examples),
        )


def _shifts(count: int, room: int, share: float, rng: np.random.Generator) -> torch.Tensor:
    moved = rng.random(count) < share
    return torch.from_numpy(rng.integers(0, room + 1, count) * moved)


def positions(ids: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return the positions of tokens (n, length): 0 for the first mark, and those of the words moved by `shift` (n,).

    Prompts in front of the words move them in the same way.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) + shift[:, None]
    places[:, 0] = 0
    return places


def tokenize(tokenizer, captions: list[str]) -> torch.Tensor:
    """Return the ids of captions, int64 (n, longest)."""
    return tokenizer(captions, padding=True, truncation=True, return_tensors="pt")["input_ids"]


def draw(examples: list[Example], *, pixels: int, rng: np.random.Generator) -> torch.Tensor:
    """Draw the examples with varied brightness, saturation, sharpness and noise: uint8 (n, 3, pixels, pixels)."""
    atlas = load_atlas()
    images = np.stack([_render(e, atlas, pixels) for e in examples])
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    n = len(examples)
    vary = lambda low, high: torch.from_numpy(rng.uniform(low, high, (n, 1, 1, 1)).astype(np.float32))  # noqa: E731
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(grey, x, vary(0.75, 1.1))
    x = torch.lerp(x, torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False), vary(-0.3, 0.6).relu())
    x = (x - 0.5) * vary(0.8, 1.1) + 0.5 + vary(-0.08, 0.08)
    grain = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    x = x + grain * vary(-0.02, 0.06).relu()
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


def _render(example: Example, atlas: Atlas, pixels: int) -> np.ndarray:
    canvas = scenes.render(example.stickers, example.background, atlas, pixels)
    if isinstance(example, Picture):
        paint(canvas, example.bars)
    return canvas


def _facts(examples: list[Example], facts: dict[str, int]) -> torch.Tensor:
    return torch.tensor([[e.facts.get(fact, UNSAID) for fact in facts] for e in examples])


def _present(examples: list[Example]) -> torch.Tensor:
    present = torch.zeros(len(examples), len(CONCEPTS))
    for row, example in zip(present, examples, strict=True):
        row[[s.concept for s in example.stickers]] = 1
    return present
