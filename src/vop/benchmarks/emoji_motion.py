"""The benchmark `emoji-motion`: short captioned videos of simple events, many with a time-reversed twin.

The sizes and the seed determine everything. Training, validation and test split share no caption, seed or content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from vop.benchmarks import rendering, stories
from vop.benchmarks.artwork import cache_folder, load_atlas
from vop.benchmarks.rendering import CAPTIONS as CAPTIONS
from vop.benchmarks.rendering import MARKER as MARKER
from vop.benchmarks.rendering import Metadata
from vop.benchmarks.rendering import twin_indices as twin_indices
from vop.benchmarks.videos import draw_clip
from vop.datasets.types import Dataset
from vop.errors import UsageError

VERSION = 1  # raise it when the same seed gives other videos


@dataclass(frozen=True)
class Plan:
    """Settings of the benchmark: videos per split, the share of them with a twin, and the seed."""

    train: int = 1024
    val: int = 200
    test: int = 500
    twins: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.test) < 0 or self.train + self.val + self.test == 0:
            raise UsageError(f"{self}: sizes must be 0 or more, and one must be above 0")
        if not 0 <= self.twins <= 1:
            raise UsageError(f"twins is {self.twins}; it must be between 0 and 1")

    @property
    def fingerprint(self) -> str:
        """Hash that identifies these videos: 10 hex digits."""
        return hashlib.sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()[:10]


FULL = Plan()
DEMO = Plan(train=600, val=0, test=150, seed=1)


@dataclass(frozen=True)
class Clip:
    """One video of the benchmark.

    Attributes:
        id: its name, such as "test-0007".
        split: "train", "val" or "test".
        caption: describes the video.
        kind: one of `stories.KINDS`.
        twin: the id of the time-reversed video, or None.
        seed: the seed of the drawing; twins share it.
        backwards: whether the frames are in reversed order.
        story: the content.
    """

    id: str
    split: str
    caption: str
    kind: str
    twin: str | None
    seed: str
    backwards: bool
    story: stories.Story

    @cached_property
    def row(self) -> dict[str, Any]:
        """The line in `captions.jsonl`."""
        fields = ("id", "split", "caption", "kind", "twin")
        return {"video": f"videos/{self.id}.mp4", **{name: getattr(self, name) for name in fields}}

    @property
    def captions(self) -> tuple[str, ...]:
        """Its only caption."""
        return (self.caption,)


def plan_clips(plan: Plan = FULL) -> list[Clip]:
    """Return all clips of the benchmark, without drawing them. Contents and captions are unique."""
    rng = Random(f"emoji-motion/{plan.seed}")
    told: set[stories.Story] = set()
    said: set[str] = set()
    clips: list[Clip] = []
    for split in ("train", "val", "test"):
        size = getattr(plan, split)
        number, paired = 0, round(size * plan.twins) // 2 * 2
        while number < size:
            count = 2 if number < paired else 1
            clips += _clips_of_story(split, number, count, rng, told, said, plan.seed)
            number += count
    return clips


def _clips_of_story(
    split: str, number: int, count: int, rng: Random, told: set[stories.Story], said: set[str], seed: int
) -> list[Clip]:
    story = stories.sample_story(rng)
    while stories.canonical(story) in told:
        story = stories.sample_story(rng)
    told.add(stories.canonical(story))
    ways = (False, True) if count == 2 else (rng.random() < 0.5,)
    ids = [f"{split}-{number + i:04d}" for i in range(count)]
    clips = []
    for i, backwards in enumerate(ways):
        caption = stories.tell(story, rng, backwards=backwards)
        while caption in said:
            caption = stories.tell(story, rng, backwards=backwards)
        said.add(caption)
        twin = ids[1 - i] if count == 2 else None
        clips.append(Clip(ids[i], split, caption, story.kind, twin, f"{seed}/{ids[0]}", backwards, story))
    return clips


def draw(clip: Clip) -> np.ndarray:
    """Return the clip's frames, uint8 (25, 96, 96, 3). Twins have the same frames in reversed order."""
    rng = Random(clip.seed)
    frames = draw_clip(stories.actors(clip.story, rng), load_atlas(), rng)
    return frames[::-1] if clip.backwards else frames


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `emoji-motion`, and render missing files; a reader of `vop.datasets.readers`."""
    rendering.check_no_videos(name, videos)
    return dataset(root)


def dataset(
    root: Path | None = None, *, plan: Plan = FULL, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Return the benchmark. Missing files are rendered into `root` first (by default the cache folder).

    `progress(done, total)` is called after every video. An interrupted rendering resumes.

    Raises:
        DataError: `root` holds the benchmark of another plan.
        VopError: the artwork's packages are not installed, or the disk is full.
    """
    root = Path(root) if root is not None else cache_folder() / f"emoji-motion-{plan.fingerprint}"
    marker = {"version": VERSION, **asdict(plan)}
    return rendering.dataset("emoji-motion", root, marker=marker, clips=plan_clips(plan), draw=draw, progress=progress)


def load_metadata(root: Path | None = None, *, plan: Plan = FULL) -> dict[str, Metadata]:
    """Return the metadata of a rendered benchmark's videos, by id.

    Raises:
        DataError: the benchmark has not been rendered there.
    """
    root = Path(root) if root is not None else cache_folder() / f"emoji-motion-{plan.fingerprint}"
    return rendering.load_metadata("emoji-motion", root)
