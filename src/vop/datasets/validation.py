"""Go through all videos of a data set before hours are spent on it: check, cache, sort out what cannot be read.

Files break in predictable ways (a download that stopped, a page saved under a video's name), and a batch with a hole
in it has no good repair: blanks teach nonsense, fewer items change the loss, substitutes change the epoch. So every
video is decoded once before training begins, into the cache if there is one. What fails then is left out of the split
and listed, or ends the run; batches of the rest are always full and the same in every run. A file that breaks later,
between screening and its turn, raises its VideoError: the run stops, and resumes once the file is back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vop.datasets.frames import FrameStore
from vop.datasets.types import Dataset, Split, Video
from vop.errors import DataError, UsageError, VideoError
from vop.utils.text import count, on_one_line
from vop.utils.threads import free_cores
from vop.video.ahead import map_ahead
from vop.video.frames import check_timeline
from vop.video.isolated import DecodingProcesses

Result = TypeVar("Result")
POLICIES = ("skip", "fail")
Progress = Callable[[int, int], None]  # videos done, videos in all; called in the caller's thread
_SHOWN = 5  # bad videos that an error message names


@dataclass(frozen=True)
class BadVideo:
    """A video that cannot be used. `missing`: there is no file at all."""

    id: str
    path: str
    reason: str
    missing: bool


@dataclass(frozen=True)
class CacheReport:
    """What `cache_dataset` did: how many videos were decoded, found in the cache, and failed."""

    decoded: int
    reused: int
    failed: tuple[BadVideo, ...]

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found. `splits` gives videos and captions by split; `videos` counts distinct files."""

    name: str
    splits: dict[str, dict[str, int]]
    videos: int
    missing: tuple[BadVideo, ...]
    unreadable: tuple[BadVideo, ...]
    notes: tuple[str, ...]

    @property
    def captions(self) -> int:
        return sum(split["captions"] for split in self.splits.values())

    def to_dict(self) -> dict:
        return {**asdict(self), "captions": self.captions}


@dataclass(frozen=True)
class ScreenReport:
    """What `screen` left out of a split."""

    split: str
    kept: int
    skipped: tuple[BadVideo, ...]

    def to_dict(self) -> dict:
        return asdict(self)


def cache_dataset(
    dataset: Dataset, store: FrameStore, *, workers: int | None = None, progress: Progress | None = None
) -> CacheReport:
    """Decode every video of a data set into the store's cache; what is there already and sound is left alone.

    Raises:
        VopError: the cache cannot be written.
    """
    if store.cache is None:
        raise UsageError("the FrameStore has no cache folder; give it one: FrameStore(…, cache=DIR)")

    with store.isolated() as safe:

        def work(video: Video) -> bool:
            reused = safe.is_cached(video)
            if not reused:
                safe.load_array(video)
            return reused

        results = _run(dataset.videos, work, workers=workers, progress=progress)
    reused = [result for result in results if not isinstance(result, BadVideo)]
    return CacheReport(decoded=reused.count(False), reused=reused.count(True), failed=_bad(results))


def check_dataset(
    dataset: Dataset,
    *,
    decode: bool = False,
    num_frames: int = 12,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Count videos, captions, missing and unreadable files.

    Args:
        decode: decode each file as training would. Otherwise its packets are read, which is many times faster and
            finds everything but damage inside the pictures.
    """
    with FrameStore(num_frames=num_frames, size=32).isolated() as store:
        work = _touch(store) if decode else partial(_read_through, store.processes)
        bad = _bad(_run(dataset.videos, work, workers=workers, progress=progress))
    return CheckReport(
        name=dataset.name,
        splits={
            name: {"videos": len(split.videos), "captions": len(split.captions)}
            for name, split in dataset.splits.items()
        },
        videos=len(dataset.videos),
        missing=tuple(video for video in bad if video.missing),
        unreadable=tuple(video for video in bad if not video.missing),
        notes=dataset.notes,
    )


def screen(
    split: Split,
    store: FrameStore,
    *,
    policy: str = "skip",
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Split, ScreenReport]:
    """The split without the videos that cannot be decoded, and the list of those.

    Every video is decoded once. With a cache this is what fills it; without one it costs as much as an epoch's
    decoding.

    Args:
        policy: "skip" leaves bad videos out; "fail" raises if there are any.

    Raises:
        DataError: there are bad videos under "fail", or no good ones.
    """
    if policy not in POLICIES:
        raise UsageError(f"the policy for bad videos is {policy!r}; known: {', '.join(POLICIES)}")
    with store.isolated() as safe:
        bad = _bad(_run(split.videos, _touch(safe), workers=workers, progress=progress))
    if bad and (policy == "fail" or len(bad) == len(split.videos)):
        raise DataError(_complaint(split, bad, policy))
    kept = split.keep({video.id for video in split.videos} - {video.id for video in bad}) if bad else split
    return kept, ScreenReport(split=split.name, kept=len(kept.videos), skipped=bad)


# Neither of these returns what it read: that of a whole data set would fill the memory.


def _touch(store: FrameStore) -> Callable[[Video], None]:
    def work(video: Video) -> None:
        store.load_array(video)

    return work


def _read_through(processes: DecodingProcesses, video: Video) -> None:
    processes.call(check_timeline, video.path)


def _complaint(split: Split, bad: tuple[BadVideo, ...], policy: str) -> str:
    lines = [on_one_line(f"  {video.path}: {video.reason}") for video in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN:,} more")
    remedy = "; --on-bad-video skip goes on without them" if policy == "fail" else ""
    head = f"{len(bad):,} of {count('video', len(split.videos))} of the split {split.name!r} cannot be read{remedy}:"
    return "\n".join([head, *lines])


def _bad(results: Iterable[object]) -> tuple[BadVideo, ...]:
    return tuple(result for result in results if isinstance(result, BadVideo))


def _run(
    videos: Sequence[Video],
    work: Callable[[Video], Result],
    *,
    workers: int | None,
    progress: Progress | None,
) -> list[Result | BadVideo]:
    """The results of `work`, over threads that wait for processes, in the order of the videos."""
    results: dict[int, Result | BadVideo] = {}
    workers = workers or free_cores()
    with closing(map_ahead(videos, work, workers=workers, ahead=2 * workers, in_order=False)) as finished:
        for done in finished:
            if isinstance(done.result, VideoError):
                video = done.job
                missing = not Path(video.path).exists()
                results[done.place] = BadVideo(video.id, str(video.path), done.result.reason, missing)
            elif isinstance(done.result, Exception):
                raise done.result  # no space left, say: it ends the whole run at once
            else:
                results[done.place] = done.result
            if progress is not None:
                progress(len(results), len(videos))
    return [results[place] for place in range(len(videos))]
