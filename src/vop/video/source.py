"""Opening a video file: which of its streams is the video, and why there may be none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.stream import Discard, Disposition

from vop.errors import UsageError, VideoError

MAX_PIXELS = 64 * 2**20  # per frame; a header that claims more is taken for a broken or hostile file
TOO_LARGE = f"its header claims frames of more than {MAX_PIXELS // 2**20} megapixels, or of no size"

_OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}

_PREVIEW = 1 / 8  # of the largest stream's area; what is smaller is a preview of it, whatever the file says
_ENOUGH = 5  # frames: with as many, a stream is as good as with more
_COUNTED_PACKETS = 5000  # at most, to tell pictures from videos where the header does not
_STILLS = Disposition.timed_thumbnails | Disposition.still_image


@contextmanager
def open_video(
    path: Path, *, stream: int | None = None, format_bytes: int = 2**20
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A video file's container and its video stream. Opens no address on a network.

    Of several video streams it is the one that FFmpeg's command takes: the default one, else the largest; but never a
    cover, a picture of one frame or a preview where there is more.

    Args:
        stream: another one, by its number in the file, as `ffprobe` counts.
        format_bytes: how many are read at most to tell the file's format; less is faster for files that are not videos.

    Raises:
        VideoError: there is no such file, or no video in it.
        UsageError: the stream is not a video stream of the file.
    """
    with _opened(path, format_bytes) as container:
        video = _video_stream(path, container, stream)
        for other in container.streams:
            if other.type != "audio" and other is not video:
                other.discard = Discard.all  # saves reading it
        yield container, video


def packets_of(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """The streams' packets, up to where the file breaks off."""
    try:
        yield from container.demux(streams)
    except (av.FFmpegError, IndexError):  # PyAV's own, at the end of a file in which more streams have appeared
        return


@contextmanager
def _opened(path: Path, format_bytes: int) -> Iterator[av.container.InputContainer]:
    _check_file(path)
    try:
        # As "file:" a name with a colon is a name. The whitelist keeps playlists from opening addresses.
        options = {**_OPTIONS, "formatprobesize": str(format_bytes)}
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(path, _open_reason(path, error)) from error
    with container:
        yield container


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise VideoError(path, "this is a folder, not a video file")
    if not path.exists():
        raise VideoError(path, "there is no such file")
    if not path.is_file():  # nobody may ever write into a pipe, and a device has no end
        raise VideoError(path, "this is a pipe or a device, not a file")
    if path.stat().st_size == 0:
        raise VideoError(path, "the file is empty (0 bytes)")


def _open_reason(path: Path, error: Exception) -> str:
    if isinstance(error, av.InvalidDataError):
        with open(path, "rb") as file:
            if file.read(8)[4:] == b"ftyp":
                return "the file is cut short: its index (moov) is missing"
        return "this is not a video that FFmpeg can read"
    return getattr(error, "strerror", None) or str(error)


def _video_stream(path: Path, container: av.container.InputContainer, wanted: int | None) -> av.VideoStream:
    if container.format.name == "tty":  # FFmpeg takes any .txt file for the recording of a terminal
        raise VideoError(path, "this is a text file")
    stream = _best(path, container) if wanted is None else _numbered(path, container, wanted)
    codec = stream.codec_context
    if codec is None:
        raise VideoError(path, "FFmpeg has no decoder for its video")
    if codec.width * codec.height > MAX_PIXELS:
        raise VideoError(path, TOO_LARGE)
    return stream


def _best(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({_kind(stream) for stream in container.streams})
        found = f"only {' and '.join(kinds)}" if kinds else "nor anything else: it is cut short or damaged"
        raise VideoError(path, f"there is no video in it, {found}")
    if len(streams) == 1:
        return streams[0]
    frames = _count_frames(path, streams)
    largest = max(map(_area, streams))

    def merit(stream: av.VideoStream) -> tuple:
        moves = 0 if stream.disposition & _STILLS else min(frames[stream.index], _ENOUGH)
        is_preview = _area(stream) < _PREVIEW * largest
        return moves, not is_preview, bool(stream.disposition & Disposition.default), _area(stream)

    return max(streams, key=merit)


def _area(stream: av.VideoStream) -> int:
    codec = stream.codec_context
    return codec.width * codec.height if codec else 0


def _count_frames(path: Path, streams: list[av.VideoStream]) -> dict[int, int]:
    """How many frames each stream has, up to `_ENOUGH`: from the header, or where it does not say from the packets."""
    counts = {stream.index: stream.frames for stream in streams}
    if all(counts.values()):
        return counts
    counts = dict.fromkeys(counts, 0)
    with _opened(path, 2**20) as container:  # another one, so that reading begins at the beginning
        for number, packet in enumerate(packets_of(container, *(container.streams[index] for index in counts))):
            counts[packet.stream_index] += bool(packet.size)
            if number >= _COUNTED_PACKETS or min(counts.values()) >= _ENOUGH:
                break
    return counts


def _numbered(path: Path, container: av.container.InputContainer, wanted: int) -> av.VideoStream:
    videos = {stream.index: stream for stream in container.streams.video}
    if wanted not in videos:
        known = ", ".join(map(str, videos)) or "none"
        raise UsageError(f"stream is {wanted}; the video streams of {path} are: {known}")
    return videos[wanted]


def _kind(stream: av.stream.Stream) -> str:
    return "a cover picture" if stream.type == "video" else stream.type
