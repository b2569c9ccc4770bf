"""The benchmark `emoji-moments`: videos of a split of `emoji-motion`, shuffled and joined to films with known times.

A query is a caption of `emoji-motion`; it happens in one part of one film. The parts of a film follow without a pause.
Twins are in different films, so that a film does not show an event and its reversal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np

from vop.benchmarks import emoji_motion, rendering
from vop.benchmarks.artwork import cache_folder
from vop.benchmarks.videos import FRAMES_PER_SECOND, NUM_FRAMES, encode
from vop.datasets.moments import MomentQuery, MomentSplit
from vop.datasets.types import Video
from vop.video.clip import Clip

PARTS = 12  # per film
SPLITS = ("test", "val")


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Mapping[str, MomentSplit]:
    """Read `emoji-moments`, and render missing films; a reader of `vop.datasets.moments`."""
    rendering.check_no_videos(name, videos)
    return _Splits(root)


class _Splits(Mapping[str, MomentSplit]):
    """The splits by name, rendered when they are used."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def __getitem__(self, split: str) -> MomentSplit:
        if split not in SPLITS:
            raise KeyError(split)
        return films(self._root, split=split)

    def __contains__(self, split: object) -> bool:
        return split in SPLITS

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


def films(
    root: Path | None = None,
    *,
    plan: emoji_motion.Plan = emoji_motion.FULL,
    parts: int = PARTS,
    split: str = "test",
) -> MomentSplit:
    """Return the films of a split of a plan. Missing ones are rendered into `root` first (by default the cache)."""
    root = Path(root) if root is not None else cache_folder() / f"emoji-moments-{plan.fingerprint}-{parts}"
    prefix = "film" if split == "test" else f"{split}-film"
    seconds = NUM_FRAMES / FRAMES_PER_SECOND
    videos, queries = [], []
    for number, film in enumerate(divide(emoji_motion.plan_clips(plan), parts, split=split)):
        video = Video(f"{prefix}-{number:03d}", root / f"{prefix}-{number:03d}.mp4")
        if not video.path.is_file():
            encode(np.concatenate([emoji_motion.draw(clip) for clip in film]), video.path)
        videos.append(video)
        for place, clip in enumerate(film):
            queries.append(MomentQuery(clip.caption, number, (Clip(place * seconds, (place + 1) * seconds),)))
    return MomentSplit(split, tuple(videos), tuple(queries))


def divide(clips: Sequence[emoji_motion.Clip], parts: int, *, split: str = "test") -> list[list[emoji_motion.Clip]]:
    """Divide the clips of a split among films of `parts` clips, twins among different ones."""
    clips = [clip for clip in clips if clip.split == split]
    shuffled = Random("emoji-moments").sample(clips, len(clips))
    films: list[list[emoji_motion.Clip]] = [[] for _ in range(len(clips) // parts)]
    for clip in shuffled:
        free = [film for film in films if len(film) < parts and all(other.id != clip.twin for other in film)]
        if free:
            min(free, key=len).append(clip)
    return films
