"""The benchmark `emoji-motion-2`: short videos with several captions each, most of them told by what a frame shows.

The sizes and the seed determine everything. Training, validation and test split share no story; a part of the
validation and test videos shows things that training never shows. The videos differ on purpose from the pictures that
`mini-2` was trained on: small things that no caption mentions, distance, pale colours, moving backgrounds, compression.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from vop.benchmarks import rendering
from vop.benchmarks.artwork import cache_folder, load_atlas
from vop.benchmarks.emoji_motion_2 import stories
from vop.benchmarks.emoji_motion_2.stories import SEEN, UNSEEN, Story
from vop.benchmarks.videos import draw_clip
from vop.datasets.types import Dataset
from vop.errors import UsageError

NAME = "emoji-motion-2"
VERSION = 1  # raise it when the same seed gives other videos
_SATURATIONS, _CONTRASTS = (0.25, 0.8), (0.45, 0.85)


@dataclass(frozen=True)
class Plan:
    """Settings of the benchmark.

    Attributes:
        train, val, test: videos per split.
        captions: captions of each training video; the others have one, as in MSR-VTT 1k-A.
        timed: the share of videos that are told by what happens over time. Each of them has a twin: its reversal.
        unseen: the share of validation and test stories with things that no training video shows.
        seed: the seed.
    """

    train: int = 2400
    val: int = 300
    test: int = 1000
    captions: int = 3
    timed: float = 1 / 3
    unseen: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.test) < 0 or self.train + self.val + self.test == 0:
            raise UsageError(f"{self}: sizes must be 0 or more, and one must be above 0")
        if self.captions < 1:
            raise UsageError(f"captions is {self.captions}; it must be at least 1")
        for name in ("timed", "unseen"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")

    @property
    def fingerprint(self) -> str:
        """Hash that identifies these videos: 10 hex digits."""
        return hashlib.sha256(json.dumps(self.marker).encode()).hexdigest()[:10]

    @property
    def marker(self) -> dict[str, Any]:
        """What identifies these videos in their folder."""
        return {"benchmark": NAME, "version": VERSION, **asdict(self)}


FULL = Plan()
DEMO = Plan(train=600, val=0, test=150, captions=1, seed=1)


@dataclass(frozen=True)
class Clip:
    """One video of the benchmark.

    Attributes:
        id: its name, such as "test-0007".
        split: "train", "val" or "test".
        captions: descriptions of the video in different words.
        twin: the id of the time-reversed video, or None.
        seed: the seed of the drawing; twins share it.
        backwards: whether its frames are those of `story` in reversed order.
        story: the content that is drawn.
        unseen: whether it shows things that no training video shows.
    """

    id: str
    split: str
    captions: tuple[str, ...]
    twin: str | None
    seed: str
    backwards: bool
    story: Story
    unseen: bool

    @property
    def kind(self) -> str:
        """The kind of its story."""
        return self.story.kind

    @property
    def row(self) -> dict[str, Any]:
        """The part of its lines in `captions.jsonl` without the caption."""
        fields = ("id", "split", "kind", "twin", "unseen")
        return {"video": f"videos/{self.id}.mp4", **{name: getattr(self, name) for name in fields}}


def plan_clips(plan: Plan = FULL) -> list[Clip]:
    """Return all clips of the benchmark, without drawing them. Stories and captions are unique."""
    planner = _Planner(plan)
    return [clip for split in ("train", "val", "test") for clip in planner.clips_of(split)]


class _Planner:
    """Draws stories and captions that were not used before."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = Random(f"{NAME}/{plan.seed}")
        self.told: set[Story] = set()
        self.said: set[str] = set()

    def clips_of(self, split: str) -> Iterable[Clip]:
        size = getattr(self.plan, split)
        timed = round(size * self.plan.timed) // 2 * 2
        clips: list[Clip] = []
        while len(clips) < timed:
            clips += self._twins(split, len(clips))
        while len(clips) < size:
            clips += self._siblings(split, len(clips))
        return clips[:size]

    def _pool(self, split: str) -> tuple[tuple[int, ...], bool]:
        unseen = split != "train" and self.rng.random() < self.plan.unseen
        return (UNSEEN if unseen else SEEN), unseen

    def _twins(self, split: str, number: int) -> list[Clip]:
        pool, unseen = self._pool(split)
        (story,) = self._new(lambda: [stories.sample_timed(self.rng, pool)])
        ids = f"{split}-{number:04d}", f"{split}-{number + 1:04d}"
        return [
            self._clip(split, ids[i], story, unseen, seed=ids[0], backwards=bool(i), twin=ids[1 - i]) for i in range(2)
        ]

    def _siblings(self, split: str, number: int) -> list[Clip]:
        pool, unseen = self._pool(split)
        group = self._new(lambda: stories.sample_still(self.rng, pool))
        names = [f"{split}-{number + i:04d}" for i in range(len(group))]
        return [self._clip(split, name, story, unseen) for name, story in zip(names, group, strict=True)]

    def _new(self, sample: Callable[[], list[Story]]) -> list[Story]:
        while True:
            group = sample()
            keys = {stories.canonical(story) for story in group}
            if len(keys) == len(group) and not keys & self.told:
                self.told |= keys
                return group

    def _clip(
        self,
        split: str,
        name: str,
        story: Story,
        unseen: bool,
        *,
        seed: str = "",
        backwards: bool = False,
        twin: str | None = None,
    ) -> Clip:
        told = story.reversed() if backwards else story
        count = self.plan.captions if split == "train" else 1
        captions = tuple(self._caption(told) for _ in range(count))
        return Clip(name, split, captions, twin, f"{NAME}/{self.plan.seed}/{seed or name}", backwards, story, unseen)

    def _caption(self, story: Story) -> str:
        caption = stories.tell(story, self.rng)
        while caption in self.said:
            caption = stories.tell(story, self.rng)
        self.said.add(caption)
        return caption


def draw(clip: Clip) -> np.ndarray:
    """Return the clip's frames, uint8 (25, 96, 96, 3). Twins have the same frames in reversed order."""
    rng = Random(clip.seed)
    actors = stories.actors(clip.story, rng)
    frames = _faded(draw_clip(actors, load_atlas(), rng, colour=clip.story.colour), rng)
    return frames[::-1] if clip.backwards else frames


def _faded(frames: np.ndarray, rng: Random) -> np.ndarray:
    """Give the frames the paler colours and the weaker contrast of some camera."""
    saturation, contrast = np.float32(rng.uniform(*_SATURATIONS)), np.float32(rng.uniform(*_CONTRASTS))
    pixels = frames.astype(np.float32) / 255
    grey = pixels.mean(-1, keepdims=True)
    pixels = ((grey + (pixels - grey) * saturation) - 0.5) * contrast + 0.5
    faded: np.ndarray = (pixels * 255).clip(0, 255).astype(np.uint8)
    return faded


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `emoji-motion-2`, and render missing files; a reader of `vop.datasets.readers`."""
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
    root = Path(root) if root is not None else cache_folder() / f"{NAME}-{plan.fingerprint}"
    return rendering.dataset(NAME, root, marker=plan.marker, clips=plan_clips(plan), draw=draw, progress=progress)
