"""The stage of an indexing that reads words, after all videos: subtitles first, then speech, which takes longer.

A video is read once: `words_read` tells what the library has of it. Files beside a video are read again whenever they
have changed, even if the video has not.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av

from vop.errors import VideoError
from vop.search.words.choices import WordsChoices
from vop.search.words.lines import Line, within
from vop.search.words.sidecars import Sidecar, find_sidecars
from vop.search.words.speech import Recognizer, open_recognizer, spoken_lines
from vop.search.words.subtitles import SubtitleError, SubtitleUnavailable, parse
from vop.search.words.table import SIDECARS, SPOKEN, TRACKS, Words, WordsRead, WordsVideo
from vop.search.words.tracks import READER_VERSION, NoSound, Tracks, read_sound, read_tracks
from vop.storage.address import Address, Location
from vop.storage.errors import ObjectError, StorageError
from vop.storage.scratch import Scratch
from vop.utils.progress import Progress
from vop.utils.uninterrupted import uninterrupted
from vop.video.isolated import DecodingProcesses

COMMIT_VIDEOS, COMMIT_SECONDS = 500, 5.0
TIDY_VIDEOS = 500  # with speech, each of which is a commit
_AGAIN = "again"  # the state of a source that the next indexing reads again
SUBTITLES_STAGE, SPEECH_STAGE = "subtitles", "speech"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WordsProblem:
    """Words of a video that could not be read, and the reason."""

    path: str
    reason: str


@dataclass(kw_only=True)
class WordsReport:
    """What an indexing has read of words.

    Attributes:
        videos, lines: videos that were read, and the lines that they have.
        problems: of all videos of the library that the indexing has found, also from earlier runs.
    """

    videos: int = 0
    lines: int = 0
    problems: list[WordsProblem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "videos": self.videos,
            "lines": self.lines,
            "problems": [{"path": problem.path, "reason": problem.reason} for problem in self.problems],
        }

    def by_reason(self) -> dict[str, int]:
        """Return how many problems have each reason, without the names in it."""
        return dict(Counter(problem.reason for problem in self.problems))


def read_words(
    words: Words,
    videos: Sequence[WordsVideo],
    *,
    roots: frozenset[Location],
    choices: WordsChoices,
    processes: DecodingProcesses,
    workers: int,
    progress: Progress,
) -> WordsReport:
    """Read the words of videos that the library lacks. If interrupted, what was read is kept.

    Args:
        videos: those that the indexing has found.
        roots: the paths that were indexed.
        choices: what to read.

    Raises:
        UsageError: the recognizer of speech cannot be opened.
    """
    reading = _Reading(words, processes, progress)
    if choices.subtitles:
        reading.subtitles(videos, find_sidecars([video.path for video in videos], roots), workers=workers)
    if choices.speech is not None:
        reading.speech(videos, choices.speech)
    reading.finish(videos, choices)
    return reading.report


class _Reading:
    def __init__(self, words: Words, processes: DecodingProcesses, progress: Progress) -> None:
        self._words, self._processes, self._progress = words, processes, progress
        self._states = words.states()
        self._waiting: list[WordsRead] = []
        self._last = time.monotonic()
        self._videos: set[str] = set()
        self.report = WordsReport()

    def _is_read(self, video: WordsVideo, kind: str, state: str) -> bool:
        before = self._states.get((video.video, kind))
        return (before.state if before else "") == state

    # -- subtitles

    def subtitles(
        self, videos: Sequence[WordsVideo], sidecars: Mapping[Location, Sequence[Sidecar]], *, workers: int
    ) -> None:
        """Read the tracks of new videos, and the files beside videos that are new or have changed."""
        todo = []
        for video in videos:
            beside = sidecars.get(video.path, ())
            has_tracks = self._is_read(video, TRACKS, READER_VERSION)
            state = " ".join(sidecar.state for sidecar in beside)
            if not (has_tracks and self._is_read(video, SIDECARS, state)):
                todo.append((video, beside, has_tracks))
        if not todo:
            return

        def read(job: tuple[WordsVideo, Sequence[Sidecar], bool]) -> list[WordsRead]:
            return self._read_subtitles(*job)

        with self._committing(), _threads(workers) as run:
            for number, reads in enumerate(run(read, todo), start=1):
                self._take(reads)
                self._progress(SUBTITLES_STAGE, number, len(todo))

    def _read_subtitles(self, video: WordsVideo, beside: Sequence[Sidecar], has_tracks: bool) -> list[WordsRead]:
        state = " ".join(sidecar.state for sidecar in beside)
        problems: list[str] = []
        try:
            place = video.path if isinstance(video.path, Path) else str(video.path)
            tracks = self._processes.call(read_tracks, place)
        except VideoError as error:
            tracks = Tracks(skipped=[f"its tracks cannot be read: {error.reason}"])
        except (StorageError, OSError, av.FFmpegError) as error:  # it may be readable next time
            logger.info("the subtitle tracks of %s cannot be read: %s", video.path, error)
            return [WordsRead(video.video, TRACKS, _AGAIN, problems=[f"its tracks cannot be read: {error}"])]
        reads = []
        if not has_tracks:
            lines, late = within(tracks.lines, video.duration_seconds)
            problems = [*tracks.skipped, *_late(late, "its tracks")]
            reads.append(WordsRead(video.video, TRACKS, READER_VERSION, lines, problems))
        if not self._is_read(video, SIDECARS, state):
            reads.append(_read_sidecars(video, beside, state, start_seconds=tracks.start_seconds))
        return reads

    # -- speech

    def speech(self, videos: Sequence[WordsVideo], model: str) -> None:
        """Recognize the speech of videos, one after another; each is committed by itself."""
        todo = [video for video in videos if not self._is_read(video, SPOKEN, model)]
        if not todo:
            return
        recognizer = open_recognizer(model)
        total = max(1, round(sum(video.duration_seconds for video in todo)))
        done = 0.0
        self._progress(SPEECH_STAGE, 0, total)
        with Scratch() as scratch, self._committing():
            for number, video in enumerate(todo, start=1):
                self._take([self._recognize(video, recognizer, model, scratch)])
                self._commit()
                if number % TIDY_VIDEOS == 0:
                    self._words.tidy_up()
                done += video.duration_seconds
                note = f"{number} of {len(todo)} videos"
                self._progress(SPEECH_STAGE, min(total, round(done)), total, note)

    def _recognize(self, video: WordsVideo, recognizer: Recognizer, model: str, scratch: Scratch) -> WordsRead:
        read = partial(WordsRead, video.video, SPOKEN)
        try:
            if isinstance(video.path, Address):
                with scratch.copy(video.path) as (copy, _):
                    return read(model, self._transcribe(video, copy, recognizer))
            return read(model, self._transcribe(video, video.path, recognizer))
        except NoSound as error:
            return read(model, problems=[error.reason])
        except VideoError as error:
            return read(model, problems=[f"its speech cannot be read: {error.reason}"])
        except (ObjectError, OSError) as error:  # it may be readable next time
            return read(_AGAIN, problems=[f"its speech cannot be read: {getattr(error, 'strerror', None) or error}"])
        except av.FFmpegError as error:
            return read(model, problems=[f"its speech cannot be read: {error.strerror or error}"])

    def _transcribe(self, video: WordsVideo, path: Path, recognizer: Recognizer) -> list[Line]:
        with closing(self._processes.iterate(read_sound, path)) as blocks:
            lines, _ = within(spoken_lines(recognizer, blocks), video.duration_seconds)
        return lines

    # -- writing

    def _take(self, reads: Sequence[WordsRead]) -> None:
        self._waiting += reads
        self._videos.update(read.video for read in reads)
        self.report.lines += sum(len(read.lines) for read in reads)
        if len(self._waiting) >= COMMIT_VIDEOS or time.monotonic() - self._last >= COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        with uninterrupted():
            waiting, self._waiting = self._waiting, []
            self._words.put(waiting, known=self._states.keys())
            self._states.update({(read.video, read.kind): read for read in waiting})
            self._last = time.monotonic()

    @contextmanager
    def _committing(self) -> Iterator[None]:
        self._words.drop_unfinished()
        try:
            yield
        finally:
            self._commit()

    def finish(self, videos: Sequence[WordsVideo], choices: WordsChoices) -> None:
        """Complete the report."""
        self.report.videos = len(self._videos)
        kinds = [TRACKS, SIDECARS] * choices.subtitles + [SPOKEN] * (choices.speech is not None)
        self.report.problems = [
            WordsProblem(str(video.path), reason)
            for video in sorted(videos, key=lambda one: str(one.path))
            for kind in kinds
            if (read := self._states.get((video.video, kind))) is not None
            for reason in read.problems
        ]


def _read_sidecars(video: WordsVideo, beside: Sequence[Sidecar], state: str, *, start_seconds: float) -> WordsRead:
    lines: list[Line] = []
    problems: list[str] = []
    for sidecar in beside:
        try:
            own = parse(sidecar.read(), sidecar.name, offset_seconds=start_seconds)
        except SubtitleError as error:
            logger.info("%s cannot be read: %s", sidecar.place, error)
            problems.append(f"{sidecar.name}: {error}")
            if isinstance(error, SubtitleUnavailable):
                state = _AGAIN
            continue
        kept, late = within(own, video.duration_seconds)
        lines += kept
        problems += _late(late, sidecar.name)
    return WordsRead(video.video, SIDECARS, state, lines, problems)


def _late(number: int, source: str) -> list[str]:
    return [f"{source}: lines after the end of the video were left out ({number})"] if number else []


@contextmanager
def _threads(workers: int) -> Iterator[Callable[..., Iterator[list[WordsRead]]]]:
    """Yield a function like `map` that works on some jobs at once; each waits for a decoding process."""
    if workers == 1:
        yield map
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="words") as pool:
        try:
            yield pool.map
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
