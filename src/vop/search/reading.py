"""What becomes of one file in an indexing: known content, a copy, or segments that are cut out and decoded."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Generator, Iterable, Mapping, Set
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import av

from vop.errors import VideoError
from vop.search.copies import Copies
from vop.search.frames import SegmentFrames
from vop.search.metadata import Metadata
from vop.search.results import VideoRecord, segment_id
from vop.search.scanner import FoundFile
from vop.search.schema import VideoFile
from vop.search.segmenting import Piece, read_segments
from vop.search.store import Store
from vop.search.volumes import volume_of
from vop.video.isolated import DecodingProcesses
from vop.video.probe import VideoInfo


@dataclass(frozen=True)
class KnownContent:
    """A file whose content is in the library already: as `video`, so far at the path `before`."""

    video: str
    before: str


@dataclass(frozen=True)
class Copy:
    """A file with the content of another one."""

    of: str


@dataclass(frozen=True)
class Decoded:
    """A file that was decoded."""

    file: VideoFile
    damaged: int  # segments
    segments: int


class Reader:
    """Reads files for a library; safe from several threads.

    Args:
        known: what the library had before, by path.
        processes: decode.
        files: those that are to be read; of several with the same content, one is decoded.
        again: paths of videos that are decoded again although their content is known.
    """

    def __init__(
        self,
        library: Store,
        known: Mapping[str, VideoRecord],
        metadata: Metadata,
        processes: DecodingProcesses,
        *,
        files: Iterable[FoundFile] = (),
        again: Set[str] = frozenset(),
    ) -> None:
        self._about, self._processes, self._again = library.manifest, processes, again
        self._known, self._metadata = known, metadata
        self._by_video = {video.video: video for video in known.values()}
        self._sizes = {video.size for path, video in known.items() if path not in again}
        self._copies = Copies(files, known=known.keys(), content_id=lambda path: content_id(path))
        self._claimed: dict[str, str] = {}
        self._claiming, self._counting = threading.Lock(), threading.Lock()
        self.seconds = 0.0  # of video that was decoded so far
        self._frames = SegmentFrames.of(library.manifest, library.path)

    def path_of(self, video: str) -> str | None:
        """Where the library had this content; None if it had none."""
        known = self._by_video.get(video)
        return None if known is None else known.path

    def decode(self, file: FoundFile) -> Generator[Piece, None, KnownContent | Copy | Decoded]:
        """The segments of a file that is new to the library; what becomes of it is returned.

        Raises:
            VideoError: the file cannot be read, or none of its segments can be decoded.
        """
        try:
            found = self._recognise(file)
            return found or (yield from self._decode(file))
        except FileNotFoundError:
            raise VideoError(file.path, "it was removed during the indexing") from None
        except PermissionError:
            raise VideoError(file.path, "permission denied") from None
        except (OSError, av.FFmpegError) as error:  # of a disk or a connection that fails, or of FFmpeg
            raise VideoError(file.path, error.strerror or str(error)) from error

    def _recognise(self, file: FoundFile) -> KnownContent | Copy | None:
        """What is known of a file without opening it as a video."""
        original = self._copies.original_of(file)
        if original is not None:
            return Copy(str(original.path))
        if file.size not in self._sizes:
            return None
        video = self._copies.content_of(file)
        return self._claim(file, video) if video in self._by_video else None

    def _decode(self, file: FoundFile) -> Generator[Piece, None, KnownContent | Copy | Decoded]:
        about = self._about
        sizes = {"num_frames": about.num_frames, "size": about.image_size}
        with closing(self._processes.iterate(read_segments, file.path, about.segmentation, **sizes)) as segments:
            # What is not a video is told from its beginning: most such files are not read through.
            info = next(segments)
            video = self._copies.content_of(file)
            return self._claim(file, video) or (yield from self._pieces(file, video, info, segments))

    def _claim(self, file: FoundFile, video: str) -> KnownContent | Copy | None:
        """What is known of a file's content; None if it is this file's to bring in."""
        path = str(file.path)
        with self._claiming:
            first = self._claimed.setdefault(video, path)
        if first != path:
            return Copy(first)
        known = self._by_video.get(video)
        if known is None or known.path in self._again:
            return None
        if known.path == path or not os.path.lexists(known.path):
            return KnownContent(video, known.path)
        return Copy(known.path) if is_as_it_was(known) else None

    def _pieces(
        self, file: FoundFile, video: str, info: VideoInfo, segments: Generator[Piece | None, None, int]
    ) -> Generator[Piece, None, Decoded]:
        damaged = 0
        count = None
        while count is None:
            try:
                piece = next(segments)
            except StopIteration as end:
                count = end.value
                continue
            if piece is None:
                damaged += 1
                continue
            with self._counting:
                self.seconds += info.duration_seconds * piece.share
            if self._frames:
                self._frames.write(segment_id(video, piece.span), piece.frames)
            yield piece
        read = VideoFile(
            video=video,
            path=file.path,
            size=file.size,
            mtime_ns=file.mtime_ns,
            duration_seconds=info.duration_seconds,
            date=info.recorded_at.astimezone(UTC).isoformat(timespec="seconds"),
            date_source=info.recorded_at_source,
            plays_in_browsers=info.plays_in_browsers,
            metadata=self.metadata_of(file),
            volume=volume_of(file.path.parent),
        )
        return Decoded(read, damaged, count)

    def metadata_of(self, file: FoundFile) -> dict[str, str]:
        """What the table says now, or else what was known at this path."""
        known = self._known.get(str(file.path))
        before = {} if known is None else {name: value for name, value in known.metadata.items() if value is not None}
        return before | dict(self._metadata.of(file.path))


def content_id(path: Path) -> str:
    """SHA-256 of a file's content, its first 32 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def is_as_it_was(known: VideoRecord) -> bool:
    """Whether a video's file has the size and time of change that it had."""
    try:
        state = os.stat(known.path)
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (known.size, known.mtime_ns)
