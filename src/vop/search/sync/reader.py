"""Read files for a library: recognize content that the library has, and decode all other files."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import av

from vop.errors import VideoError
from vop.search.frames import SegmentFrames
from vop.search.results import VideoRecord
from vop.search.schema import VideoFile, date_text, segment_id
from vop.search.segmentation import DecodedSegment, read_segments
from vop.search.store import Store
from vop.search.sync.scanner import exists, is_unchanged
from vop.storage.address import Address
from vop.storage.errors import MissingObject, ObjectError
from vop.storage.scratch import Scratch
from vop.video.find import FoundFile
from vop.video.isolated import DecodingProcesses
from vop.video.probe import VideoInfo

_FAT_SECONDS = 2  # FAT rounds modification times to 2 s, so that a copy may seem slightly older


@dataclass(frozen=True)
class KnownContent:
    """A file whose content the library has as `video`, until now at the path `before`."""

    video: str
    before: str


@dataclass(frozen=True)
class Copy:
    """A file with the content of the file at the path `of`."""

    of: str


@dataclass(frozen=True)
class DecodedVideo:
    """A file that was decoded, without the owner's metadata, and how many of its segments are damaged."""

    file: VideoFile
    damaged: int
    segments: int


Outcome = KnownContent | Copy | DecodedVideo


class Reader:
    """Reads files for a library; safe from several threads.

    Args:
        records: the videos that the library has, by path.
        processes: the processes that decode.
        scratch: where copies of objects are read.
        files: the files to read; of several files with the same content, one is decoded.
        redo: paths of videos to decode again although their content is known.

    Attributes:
        seconds: seconds of video decoded so far.
    """

    def __init__(
        self,
        library: Store,
        records: Mapping[str, VideoRecord],
        processes: DecodingProcesses,
        scratch: Scratch,
        *,
        files: Iterable[FoundFile] = (),
        redo: Set[str] = frozenset(),
    ) -> None:
        self._manifest, self._processes, self._redo = library.manifest, processes, redo
        self._scratch = scratch
        self._by_video = {record.video: record for record in records.values()}
        self._known_sizes = {record.size for path, record in records.items() if path not in redo}
        # The function is looked up at each call, so that a test can replace it.
        # Objects are not compared in advance, so that each is read once: the first one that is read is the original.
        local = [file for file in files if isinstance(file.path, Path)]
        self._copies = Copies(local, known=records.keys(), content_id=lambda path: content_id(path))
        self._claimed: dict[str, str] = {}  # paths by video
        self._claiming, self._counting = threading.Lock(), threading.Lock()
        self.seconds = 0.0
        self._frames = SegmentFrames.of(self._manifest, library.path)

    def path_of(self, video: str) -> str | None:
        """Return the path at which the library has this content; None if it does not have it."""
        record = self._by_video.get(video)
        return None if record is None else record.path

    def read_video(self, file: FoundFile) -> Generator[DecodedSegment, None, Outcome]:
        """Yield the segments of a file if its content is new to the library; return the outcome.

        Raises:
            VideoError: the file cannot be read, or none of its segments can be decoded.
        """
        if isinstance(file.path, Address):
            return (yield from self._read_object(file, file.path))
        try:
            known = self._recognize(file)
            return known or (yield from self._decode(file, file.path, lambda: self._copies.content_of(file)))
        except FileNotFoundError:
            raise VideoError(file.path, "it was deleted during the indexing") from None
        except PermissionError:
            raise VideoError(file.path, "permission denied") from None
        except (OSError, av.FFmpegError) as error:  # from a failing disk or connection, or from FFmpeg
            raise VideoError(file.path, error.strerror or str(error)) from error

    def _read_object(self, file: FoundFile, address: Address) -> Generator[DecodedSegment, None, Outcome]:
        """Read a local copy of an object as `read_video` reads a file."""
        try:
            with self._scratch.copy(address) as (path, info):
                file = replace(file, size=info.size, mtime_ns=info.version)  # it may be newer than the list
                known = None
                if file.size in self._known_sizes:
                    video = content_id(path)
                    known = self._claim(file, video) if video in self._by_video else None
                return known or (yield from self._decode(file, path, lambda: content_id(path)))
        except MissingObject:
            raise VideoError(str(address), "it was deleted during the indexing") from None
        except ObjectError as error:  # other errors of the storage concern all objects
            raise VideoError(str(address), error.reason) from None
        except VideoError as error:
            raise VideoError(str(address), error.reason) from error
        except av.FFmpegError as error:
            raise VideoError(str(address), error.strerror or str(error)) from error

    def _recognize(self, file: FoundFile) -> KnownContent | Copy | None:
        """Recognize a file by its content, without decoding it."""
        original = self._copies.original_of(file)
        if original is not None:
            return Copy(str(original.path))
        if file.size not in self._known_sizes:
            return None
        video = self._copies.content_of(file)
        return self._claim(file, video) if video in self._by_video else None

    def _claim(self, file: FoundFile, video: str) -> KnownContent | Copy | None:
        """Recognize content; return None if it is new and this file is the first one with it."""
        path = str(file.path)
        with self._claiming:
            first = self._claimed.setdefault(video, path)
        if first != path:
            return Copy(first)
        record = self._by_video.get(video)
        if record is None or record.path in self._redo:
            return None
        if record.path == path or not exists(record.path):
            return KnownContent(video, record.path)
        return Copy(record.path) if is_unchanged(record) else None

    def _decode(
        self, file: FoundFile, path: Path, content_of: Callable[[], str]
    ) -> Generator[DecodedSegment, None, Outcome]:
        manifest, before = self._manifest, _state(path)
        decoding = self._processes.iterate(
            read_segments,
            path,
            manifest.segmentation,
            num_frames=manifest.num_frames,
            resizing=manifest.resizing,
        )
        with closing(decoding) as segments:
            # Read the beginning first: a file that is not a video need not be hashed.
            info = next(segments)
            assert isinstance(info, VideoInfo)
            video = content_of()
            if _state(path) != before:  # the id may be that of other content than the decoder has opened
                raise VideoError(path, "it changed while it was read; the next indexing reads it again")
            known = self._claim(file, video)
            return known or (yield from self._segments(file, video, info, segments))

    def _segments(
        self,
        file: FoundFile,
        video: str,
        info: VideoInfo,
        segments: Generator[VideoInfo | DecodedSegment | None, None, int],
    ) -> Generator[DecodedSegment, None, DecodedVideo]:
        damaged = 0
        while True:
            try:
                segment = next(segments)
            except StopIteration as end:
                count: int = end.value
                break
            if not isinstance(segment, DecodedSegment):
                damaged += 1
                continue
            with self._counting:
                self.seconds += info.duration_seconds * segment.share
            if self._frames:
                self._frames.write(segment_id(video, segment.clip), segment.frames)
            yield segment
        decoded = VideoFile(
            video=video,
            path=file.path,
            size=file.size,
            mtime_ns=file.mtime_ns,
            duration_seconds=info.duration_seconds,
            date=date_text(info.recorded_at),
            date_source=info.recorded_at_source,
            plays_in_browsers=info.plays_in_browsers,
            metadata={},
            volume=file.volume,
            place=info.place,
        )
        return DecodedVideo(decoded, damaged, count)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def content_id(path: Path) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


class Copies:
    """Finds the originals among the local files of an indexing; safe from several threads.

    Only files of the same size are hashed, each once. The first one by `preference` is the original, whatever the order
    in which threads ask.

    Args:
        known: paths of the library's videos, which are preferred as originals.
        content_id: hashes a file.
    """

    def __init__(
        self, files: Iterable[FoundFile], *, known: Set[str] = frozenset(), content_id: Callable[[Path], str]
    ) -> None:
        self._content_id = content_id
        groups: dict[int, list[FoundFile]] = defaultdict(list)
        for file in files:
            groups[file.size].append(file)
        self._groups = {
            size: sorted(group, key=lambda file: (str(file.path) not in known, preference(file)))
            for size, group in groups.items()
            if len(group) > 1
        }
        self._hashing = {size: threading.Lock() for size in self._groups}
        self._ids: dict[Path, str] = {}

    def original_of(self, file: FoundFile) -> FoundFile | None:
        """Return the preferred file with the content of this one; None if that is the file itself.

        Raises:
            OSError: the file cannot be read.
        """
        group = self._groups.get(file.size, [])
        if not group or group[0] == file:
            return None
        own = self.content_of(file)
        for other in group[: group.index(file)]:
            try:
                if self.content_of(other) == own:
                    return other
            except OSError:
                continue
        return None

    def content_of(self, file: FoundFile) -> str:
        """Return the id of a file's content.

        Raises:
            OSError: the file cannot be read.
        """
        path = file.path
        assert isinstance(path, Path), f"{path} is not local"
        if file.size not in self._groups:
            return self._content_id(path)
        with self._hashing[file.size]:
            if path not in self._ids:
                self._ids[path] = self._content_id(path)
            return self._ids[path]


def preference(file: FoundFile) -> tuple[int, int, int, str]:
    """Return the sort key of copies: the earliest modification time, the shortest name, the fewest folders."""
    seconds = file.mtime_ns // (_FAT_SECONDS * 10**9)
    return seconds, len(file.path.name), len(file.path.parts), str(file.path)
