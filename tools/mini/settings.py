"""The settings of the pre-training and what belongs to each version of `mini`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tools.mini import groups, motion_groups
from vop.benchmarks import scenes
from vop.benchmarks.scenes import Example


@dataclass(frozen=True)
class Settings:
    """The settings of a run, recorded beside the weights. The defaults are those of version 1.

    Attributes:
        start: a folder with a smaller model to start from, or "mini"; empty for random weights.
        shifts: the share of captions whose words are moved to later positions, by a random number.
    """

    version: int = 1
    start: str = ""
    steps: int = 6000
    batch: int = 256
    image_size: int = 48
    patch_size: int = 8
    vision_width: int = 128
    vision_layers: int = 6
    text_width: int = 128
    text_layers: int = 4
    projection: int = 128
    head_width: int = 64
    merges: int = 1400
    learning_rate: float = 1e-3
    position_factor: float = 5.0
    weight_decay: float = 0.1
    warmup: int = 400
    auxiliary: float = 0.5
    auxiliary_until: float = 0.85
    shifts: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class World:
    """The pictures of a version: how to sample a batch, the facts that captions state, and the required checks."""

    sample_batch: Callable[[int, Random], list[Example]]
    sample_group: Callable[..., list[Example]]
    facts: dict[str, int]
    required: dict[str, float]
    settings: Settings


_REQUIRED = {"image_to_text_r1": 80.0, "text_to_image_r1": 80.0, "position_swap": 95.0, "size_swap": 95.0}
WORLDS = {
    1: World(groups.sample_batch, groups.sample_group, scenes.FACTS, _REQUIRED, Settings()),
    2: World(
        motion_groups.sample_batch,
        motion_groups.sample_group,
        motion_groups.FACTS,
        # Chance is 50 % for swaps; a model that has learned the words is far above it.
        {**_REQUIRED, "order_swap": 80.0, "change_swap": 80.0, "direction_swap": 80.0, "r1_lost_by_shift": 3.0},
        Settings(
            version=2, start="mini", steps=3000, vision_layers=12, text_layers=8, merges=1800, shifts=0.5,
            learning_rate=8e-4,
        ),
    ),
}  # fmt: skip
