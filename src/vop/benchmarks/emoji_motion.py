"""The benchmark `emoji-motion`: short captioned videos of simple events, many with a time-reversed twin.

The sizes and the seed determine everything. Training, validation and test split share no caption, seed or content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from vop.benchmarks import stories
from vop.benchmarks.artwork import cache_folder, load_atlas
from vop.benchmarks.videos import draw_clip, encode
from vop.datasets.types import Dataset, Split, Video
from vop.errors import DataError, UsageError
from vop.utils.files import atomic_write

VERSION = 1  # raise it when the same seed gives other videos
CAPTIONS, MARKER = "captions.jsonl", "complete.json"
CREDIT = "Artwork: OpenMoji, the open-source emoji and icon project, CC BY-SA 4.0"  # shown with its videos


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
    if videos is not None:
        raise UsageError(f"{name} renders its own videos; give its folder as {name}:DIR")
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
    clips = plan_clips(plan)
    if not _is_complete(root, plan):
        _render(root, clips, plan, progress)
    splits = {}
    for name in ("train", "val", "test"):
        part = [clip for clip in clips if clip.split == name]
        if part:
            videos = tuple(Video(clip.id, root / clip.row["video"]) for clip in part)
            splits[name] = Split(name, videos, tuple(clip.caption for clip in part), tuple(range(len(part))))
    return Dataset("emoji-motion", splits)


def _is_complete(root: Path, plan: Plan) -> bool:
    marker = root / MARKER
    if not marker.is_file():
        return False
    found = json.loads(marker.read_text(encoding="utf-8"))
    wanted = {"version": VERSION, **asdict(plan)}
    if found != wanted:
        raise DataError(
            f"{root} holds emoji-motion with {found}, not with {wanted}: choose another folder or delete it"
        )
    return True


def _render(root: Path, clips: Sequence[Clip], plan: Plan, progress: Callable[[int, int], None] | None) -> None:
    """Render the missing videos, then write the captions and the marker."""
    started = root / "plan.json"  # files of another plan's unfinished rendering must not be reused
    wanted = json.dumps({"version": VERSION, **asdict(plan)})
    if started.is_file() and started.read_text(encoding="utf-8") != wanted:
        raise DataError(f"{root} holds an unfinished emoji-motion of another plan: choose another folder or delete it")
    _write(started, wanted)
    for done, clip in enumerate(clips, 1):
        path = root / clip.row["video"]
        if not path.is_file():
            encode(draw(clip), path)
        if progress:
            progress(done, len(clips))
    _write(root / CAPTIONS, "".join(json.dumps(clip.row) + "\n" for clip in clips))
    _write(root / MARKER, wanted)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Metadata:
    """The kind of a video's content, and the id of its twin, if it has one."""

    kind: str
    twin: str | None


def load_metadata(root: Path | None = None, *, plan: Plan = FULL) -> dict[str, Metadata]:
    """Return the metadata of a rendered benchmark's videos, by id.

    Raises:
        DataError: the benchmark has not been rendered there.
    """
    root = Path(root) if root is not None else cache_folder() / f"emoji-motion-{plan.fingerprint}"
    path = root / CAPTIONS
    if not path.is_file():
        raise DataError(f"{path} does not exist: render emoji-motion into this folder first")
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["id"]: Metadata(row["kind"], row["twin"]) for row in rows}


def twin_indices(video_ids: Sequence[str], metadata: dict[str, Metadata]) -> list[int | None]:
    """Return the index of each video's twin in `video_ids`, or None if the twin is not there."""
    places = {video_id: i for i, video_id in enumerate(video_ids)}
    twins = [metadata[video_id].twin for video_id in video_ids]
    return [None if twin is None else places.get(twin) for twin in twins]
