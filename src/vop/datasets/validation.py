"""Validation of inputs: check all videos of a data set before a long training, and cache their frames.

Data sets often contain broken files (an incomplete download, a web page saved under a video's name). A batch cannot
replace a missing video well: blank frames teach nonsense, fewer items change the loss, other videos change the epoch.
So every video is decoded once before training begins, into the cache if there is one. Videos that fail are left out of
the split and listed, or end the run. Batches of the remaining videos are always full, and the same in every run. If a
file breaks after this check, its VideoError stops the run. The run can be resumed after the file is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, TypeVar
from uuid import uuid4

from vop.datasets.augmentation import Augmentation
from vop.datasets.frames import FrameStore
from vop.datasets.types import Dataset, Split, Video
from vop.datasets.views import candidates
from vop.errors import DataError, FileFailure, UsageError, VideoError, unknown_name
from vop.utils.ranks import ALONE, Ranks
from vop.utils.text import count, first_few
from vop.utils.threads import free_cores
from vop.video.ahead import map_ahead
from vop.video.frames import check_timeline
from vop.video.isolated import DecodingProcesses
from vop.video.resizing import Resizing

Result = TypeVar("Result")
ON_BAD_VIDEO = ("skip", "fail")
OnVideo = Callable[[int, int], None]  # called in the caller's thread with the videos done and their total


@dataclass(frozen=True)
class CacheReport:
    """Result of `cache_dataset`: numbers of videos decoded and found in the cache, and the failures."""

    decoded: int
    reused: int
    failed: tuple[FileFailure, ...]

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "failed": _in_json(self.failed)}


@dataclass(frozen=True)
class CheckReport:
    """Result of `check_dataset`. `splits` counts videos and captions by split; `videos` counts distinct files."""

    name: str
    splits: dict[str, dict[str, int]]
    videos: int
    missing: tuple[FileFailure, ...]
    unreadable: tuple[FileFailure, ...]
    notes: tuple[str, ...]

    @property
    def captions(self) -> int:
        return sum(split["captions"] for split in self.splits.values())

    def to_dict(self) -> dict[str, object]:
        failures = {"missing": _in_json(self.missing), "unreadable": _in_json(self.unreadable)}
        return {**asdict(self), **failures, "captions": self.captions}


def cache_dataset(
    dataset: Dataset,
    store: FrameStore,
    *,
    augmentation: Augmentation | None = None,
    workers: int | None = None,
    progress: OnVideo | None = None,
) -> CacheReport:
    """Decode every video of a data set into the store's cache, except those with an undamaged copy there.

    Args:
        augmentation: also decode what a training with these random views needs, from the split `train`.

    Raises:
        VopError: the cache cannot be written.
    """
    if store.cache is None:
        raise UsageError("the FrameStore has no cache folder; give it one: FrameStore(…, cache=DIR)")
    work = [(store, dataset.videos)]
    if augmentation and "train" in dataset.splits and (views := candidates(store, augmentation)) != store:
        work.append((views, dataset.split("train").videos))
    total = sum(len(videos) for _, videos in work)
    results: list[bool | FileFailure] = []
    for frames, videos in work:
        show = _shifted(progress, by=len(results), total=total)
        with frames.isolated() as safe:
            results += _run(videos, partial(_reused, safe), workers=workers, progress=show)
    reused = [result for result in results if not isinstance(result, FileFailure)]
    failed = {failure.path: failure for failure in _bad(results)}  # a file may fail in both
    return CacheReport(decoded=reused.count(False), reused=reused.count(True), failed=tuple(failed.values()))


def _reused(store: FrameStore, video: Video) -> bool:
    """Decode a video into the cache; return whether it was there."""
    reused = store.is_cached(video)
    if not reused:
        store.load_array(video)
    return reused


def _shifted(progress: OnVideo | None, *, by: int, total: int) -> OnVideo | None:
    return None if progress is None else lambda done, _: progress(by + done, total)


def check_dataset(
    dataset: Dataset,
    *,
    decode: bool = False,
    num_frames: int = 12,
    workers: int | None = None,
    progress: OnVideo | None = None,
) -> CheckReport:
    """Count videos, captions, missing and unreadable files.

    Args:
        decode: decode each file as training would. Otherwise its packets are read, which is many times faster and
            finds everything but damage inside the pictures.
    """
    with FrameStore(num_frames, Resizing(32)).isolated() as store:
        work = _touch(store) if decode or store.processes is None else partial(_read_through, store.processes)
        bad = _bad(_run(dataset.videos, work, workers=workers, progress=progress))
    return CheckReport(
        name=dataset.name,
        splits={
            name: {"videos": len(split.videos), "captions": len(split.captions)}
            for name, split in dataset.splits.items()
        },
        videos=len(dataset.videos),
        missing=tuple(video for video in bad if video.kind == "missing"),
        unreadable=tuple(video for video in bad if video.kind != "missing"),
        notes=dataset.notes,
    )


def readable_part(
    split: Split,
    store: FrameStore,
    *,
    on_bad_video: str = "skip",
    workers: int | None = None,
    progress: OnVideo | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Split, tuple[FileFailure, ...]]:
    """Return the split without the videos that cannot be decoded, and the list of those videos.

    This decodes every video once, into the cache if there is one.

    Args:
        on_bad_video: "skip" leaves bad videos out; "fail" raises if there are any.
        ranks: the processes that share the work; each gets the same result. If they do not share the folder of the
            cache, the processes of each machine fill the one there.

    Raises:
        DataError: there are bad videos under "fail", or no good ones.
    """
    if on_bad_video not in ON_BAD_VIDEO:
        raise unknown_name("on_bad_video", on_bad_video, ON_BAD_VIDEO)
    with store.isolated() as safe:
        videos = ranks.part(split.videos) if _share_cache(store, ranks) else ranks.local_part(split.videos)
        workers = workers or max(1, free_cores() // ranks.local_size)
        show = progress and ranks.estimate(progress, len(split.videos))
        found = ranks.gather(_bad(_run(videos, _touch(safe), workers=workers, progress=show)))
    by_id = {failure.id: failure for failures in found for failure in failures}
    bad = tuple(by_id[video.id] for video in split.videos if video.id in by_id)
    if bad and (on_bad_video == "fail" or len(bad) == len(split.videos)):
        raise DataError(_unreadable_message(split, bad, on_bad_video))
    return split.keep({video.id for video in split.videos} - {video.id for video in bad}) if bad else split, bad


def _share_cache(store: FrameStore, ranks: Ranks) -> bool:
    """Return whether all processes see the same folder of the cache."""
    if ranks.size == 1 or store.cache is None:
        return True
    probe = store.cache / f".{ranks.gather(uuid4().hex)[0]}"
    if ranks.is_first:
        store.cache.mkdir(parents=True, exist_ok=True)
        probe.touch()
    ranks.gather(None)
    seen = ranks.gather(probe.exists())
    if ranks.is_first:
        probe.unlink(missing_ok=True)
    return all(seen)


# The next two functions return no frames, because those of a whole data set would fill the memory.


def _touch(store: FrameStore) -> Callable[[Video], None]:
    def work(video: Video) -> None:
        store.load_array(video)

    return work


def _read_through(processes: DecodingProcesses, video: Video) -> None:
    processes.call(check_timeline, video.path)


def _unreadable_message(split: Split, bad: tuple[FileFailure, ...], on_bad_video: str) -> str:
    lines = first_few([f"{video.path}: {video.reason}" for video in bad])
    remedy = "; --on-bad-video skip leaves them out" if on_bad_video == "fail" else ""
    head = f"{len(bad):,} of {count('video', len(split.videos))} of the split {split.name!r} cannot be read{remedy}:"
    return "\n".join([head, *lines])


def _failure(video: Video, error: VideoError) -> FileFailure:
    is_missing = not video.path.exists()
    kind: Literal["missing", "unreadable"] = "missing" if is_missing else "unreadable"
    return FileFailure(path=str(video.path), reason=error.reason, kind=kind, id=video.id)


def _in_json(failures: Iterable[FileFailure]) -> list[dict[str, object]]:
    return [
        {"id": video.id, "path": video.path, "reason": video.reason, "missing": video.kind == "missing"}
        for video in failures
    ]


def _bad(results: Iterable[object]) -> tuple[FileFailure, ...]:
    return tuple(result for result in results if isinstance(result, FileFailure))


def _run(
    videos: Sequence[Video],
    work: Callable[[Video], Result],
    *,
    workers: int | None,
    progress: OnVideo | None,
) -> list[Result | FileFailure]:
    """Return the results of `work` in the order of the videos. Its threads wait for decoding processes."""
    results: dict[int, Result | FileFailure] = {}
    workers = workers or free_cores()
    with closing(map_ahead(videos, work, workers=workers, ahead=2 * workers, in_order=False)) as finished:
        for done in finished:
            if isinstance(done.result, VideoError):
                video = done.job
                results[done.place] = _failure(video, done.result)
            elif isinstance(done.result, Exception):
                raise done.result  # for example a full disk: stop at once
            else:
                results[done.place] = done.result
            if progress is not None:
                progress(len(results), len(videos))
    return [results[place] for place in range(len(videos))]
