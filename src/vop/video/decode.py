"""Frames out of a video file: one pass over its packets for times, one forward pass of decoding."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

import av
import torch
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from vop.errors import UsageError, VideoError
from vop.video.pixels import frame_pixels
from vop.video.timeline import Timeline, read_timeline

DECODER_VERSION = 2  # counts changes of what `decode_frames` gives; cached frames of another version are not used

MAX_PIXELS = 64 * 2**20  # per frame; a header that claims more is taken for a broken or hostile file
MAX_BAD_SHARE = 0.5  # of the wanted frames; beyond it neighbours no longer stand in for the damaged ones

# What other frames do not refer to can be left undecoded where FFmpeg's decoder tells so from the packet.
_SKIPPING_CODECS = ("h264", "hevc")
_WHOLE_FRAMES = (0, 1)  # AVFieldOrder: unknown, progressive; interlaced packets may hold half a frame

_OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}

_TOO_LARGE = f"its header claims frames of more than {MAX_PIXELS // 2**20} megapixels, or of no size"

Span = tuple[float, float | None]  # start_seconds, end_seconds; None: the end of the video
StampedFrame = tuple[int, av.VideoFrame]


def decode_frames(
    path: str | Path,
    *,
    num_frames: int,
    size: int,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    threads: int = 1,
) -> torch.Tensor:
    """The frames on display in the middle of `num_frames` equal intervals of a video.

    Frames are chosen by presentation time. A shorter video repeats frames. Where a wanted frame is damaged, the
    nearest intact one stands in, unless more than half of the wanted ones are damaged.

    Args:
        size: height and width of the result: shorter side to `size`, bicubic, centre crop.
        start_seconds, end_seconds: the stretch of the video to divide, counted from its first frame.
        threads: of the decoder. One is fastest for usual clips; several files at once use the cores better.

    Returns:
        uint8 tensor (num_frames, 3, size, size).

    Raises:
        VideoError: no frame can be had; it names the file and the reason.
        UsageError: an argument is out of range.
    """
    path = Path(path)
    check_request(num_frames=num_frames, size=size, start_seconds=start_seconds, end_seconds=end_seconds)
    timeline = video_timeline(path)
    span = start_seconds, end_seconds
    wanted = wanted_stamps(path, timeline, span, num_frames=num_frames)
    frames = nearest_frames(path, timeline, wanted, seek=start_seconds > 0, threads=threads)
    found = _pixels(frames, size=size)
    check_damage(path, timeline, span, wanted, [stamp for stamp, _ in found])
    return torch.stack([pixels for _, pixels in found])


def video_timeline(path: str | Path) -> Timeline:
    """When the frames of a video are shown. Reads all packets, decodes nothing.

    Raises:
        VideoError: there is no such file, or no video in it.
    """
    with open_video(Path(path)) as (container, stream):
        timeline = read_timeline(packets_of(container, stream), stream)
    if timeline is None:
        raise VideoError(path, "its video stream is empty")
    return timeline


def check_request(*, num_frames: int, size: int, start_seconds: float = 0.0, end_seconds: float | None = None) -> None:
    """Raise a UsageError if an argument of `decode_frames` is out of range."""
    if num_frames < 1:
        raise UsageError(f"num_frames is {num_frames}; at least 1 is needed")
    if size < 1:
        raise UsageError(f"size is {size}; at least 1 pixel is needed")
    if not 0 <= start_seconds < float("inf"):
        raise UsageError(f"start_seconds is {start_seconds}; it counts from the first frame, 0 or later")
    if end_seconds is not None and not start_seconds < end_seconds < float("inf"):
        raise UsageError(f"end_seconds is {end_seconds}; it must come after start_seconds, {start_seconds}")


def wanted_stamps(path: Path, timeline: Timeline, span: Span, *, num_frames: int) -> list[int]:
    """The stamps of the frames that `decode_frames` chooses from a stretch.

    Raises:
        VideoError: the stretch begins after the video's end.
    """
    start, end = span
    duration = timeline.duration_seconds
    if start and start >= duration:
        raise VideoError(path, f"it ends at {duration:.3f} s, before the wanted start, {start} s")
    return timeline.midpoints(num_frames, start_seconds=start, end_seconds=end)


def check_damage(path: Path, timeline: Timeline, span: Span, wanted: Sequence[int], found: Sequence[int]) -> None:
    """Raise a VideoError if more than half of the frames found are too far from the wanted ones to stand in."""
    start, end = span
    duration = timeline.duration_seconds
    interval = (min(end or duration, duration) - start) / len(wanted)
    misses = [abs(stamp - target) * timeline.time_base for stamp, target in zip(found, wanted, strict=True)]
    bad = sum(miss > interval for miss in misses)
    if bad > MAX_BAD_SHARE * len(wanted):
        raise VideoError(path, f"{bad} of {len(wanted)} wanted frames are damaged")


def nearest_frames(
    path: Path, timeline: Timeline, wanted: Sequence[int], *, seek: bool = False, threads: int = 1
) -> Iterator[StampedFrame]:
    """For each wanted stamp (ascending) the frame nearest to it and its stamp, in one forward pass.

    Args:
        seek: begin at the key frame before the first wanted frame.

    Raises:
        VideoError: the file cannot be opened, or gives no frame.
    """
    needed = None if timeline.ordinal else set(wanted)
    since = wanted[0] if seek else None
    with closing(shown_frames(path, timeline, needed=needed, since=since, threads=threads)) as frames:
        yield from _nearest(frames, wanted)


def shown_frames(
    path: Path, timeline: Timeline, *, needed: set[int] | None = None, since: int | None = None, threads: int = 1
) -> Iterator[StampedFrame]:
    """The intact frames of a video with their stamps, in the order of presentation.

    Args:
        needed: stamps of the frames to keep; others may be missing from the result where that saves work.
        since: frames before this stamp may be missing too.

    Raises:
        VideoError: the file cannot be opened, or gives no frame.
    """
    key = None if since is None else timeline.key_before(since)
    # Not every container can seek exactly. Where it led too far, decoding begins at the beginning.
    for seek in (None,) if key is None else (key, None):
        frame = None
        with open_video(path) as (container, stream):
            codec = stream.codec_context
            codec.thread_type, codec.thread_count = "AUTO", threads
            packets = packets_of(container, stream) if seek is None else _packets_from(container, stream, seek, since)
            for frame in _stamped(_decoded(packets, codec, needed=needed), timeline):
                yield frame
            if frame is not None:
                return
            too_large = not codec.width  # FFmpeg drops a size above max_pixels, and then decodes nothing
    raise VideoError(path, _TOO_LARGE if too_large else "none of its frames can be decoded")


def _pixels(chosen: Iterable[StampedFrame], *, size: int) -> list[tuple[int, torch.Tensor]]:
    """The chosen frames' stamps and pixels, each frame converted once however often it is chosen."""
    reformatter = VideoReformatter()
    pixels: dict[int, torch.Tensor] = {}
    found = []
    for stamp, frame in chosen:
        if stamp not in pixels:
            pixels[stamp] = frame_pixels(frame, size=size, reformatter=reformatter)
        found.append((stamp, pixels[stamp]))
    return found


def _nearest(frames: Iterable[StampedFrame], wanted: Sequence[int]) -> Iterator[StampedFrame]:
    """For each wanted stamp (ascending) the frame nearest to it, in one pass; nothing if there are no frames."""
    remaining = deque(wanted)
    before = None
    for stamp, frame in frames:
        while remaining and stamp >= remaining[0]:
            target = remaining.popleft()
            yield before if before and target - before[0] < stamp - target else (stamp, frame)
        if not remaining:
            return
        before = stamp, frame
    if before:
        yield from (before for _ in remaining)


def _stamped(frames: Iterable[av.VideoFrame], timeline: Timeline) -> Iterator[StampedFrame]:
    last = len(timeline.stamps) - 1
    for position, frame in enumerate(frames):
        stamp = timeline.stamps[min(position, last)] if timeline.ordinal else frame.pts
        if stamp is not None and not frame.is_corrupt:
            yield stamp, frame


def _decoded(
    packets: Iterable[av.Packet], codec: av.VideoCodecContext, *, needed: set[int] | None
) -> Iterator[av.VideoFrame]:
    """Frames in the order of presentation, without those that are damaged.

    `needed` are the stamps of frames to keep: others may be missing from the result where that saves work.
    """
    can_skip = needed is not None and codec.name in _SKIPPING_CODECS and codec.field_order in _WHOLE_FRAMES
    for packet in chain(packets, [None]):  # None: give what is held back
        if can_skip:
            stamp = None if packet is None else packet.pts
            codec.skip_frame = "DEFAULT" if stamp in needed or stamp is None else "NONREF"
        try:
            yield from codec.decode(packet)
        except av.FFmpegError:
            continue


def packets_of(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """The streams' packets, up to where the file breaks off."""
    try:
        yield from container.demux(streams)
    except (av.FFmpegError, IndexError):  # PyAV's own, at the end of a file in which more streams have appeared
        return


def _packets_from(
    container: av.container.InputContainer, stream: av.VideoStream, seek: int, wanted: int
) -> Iterator[av.Packet]:
    """The packets after a seek; none where it failed, or led past the wanted frame."""
    try:
        container.seek(seek, stream=stream)
    except av.FFmpegError:
        return
    packets = packets_of(container, stream)
    first = next(packets, None)
    if first is not None and first.pts is not None and first.pts <= wanted:
        yield from chain([first], packets)


@contextmanager
def open_video(
    path: Path, *, format_bytes: int = 2**20
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A video file's container and its first video stream that is no cover picture. Opens no address on a network.

    Args:
        format_bytes: up to so many are read to tell the file's format; less is faster for files that are no videos.

    Raises:
        VideoError: there is no such file, or no video in it.
    """
    _check_file(path)
    try:
        # As "file:" a name with a colon is a name. The whitelist keeps playlists from opening addresses.
        options = {**_OPTIONS, "formatprobesize": str(format_bytes)}
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(path, _open_reason(path, error)) from error
    with container:
        yield container, _video_stream(path, container)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise VideoError(path, "this is a folder, not a video file")
    if not path.exists():
        raise VideoError(path, "there is no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(path, "the file is empty (0 bytes)")


def _open_reason(path: Path, error: Exception) -> str:
    if isinstance(error, av.InvalidDataError):
        with open(path, "rb") as file:
            if file.read(8)[4:] == b"ftyp":
                return "the file is cut short: its index (moov) is missing"
        return "this is not a video that FFmpeg can read"
    return getattr(error, "strerror", None) or str(error)


def _video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if container.format.name == "tty":  # FFmpeg takes any .txt file for the recording of a terminal
        raise VideoError(path, "this is a text file")
    if not streams:
        kinds = sorted({_kind(stream) for stream in container.streams})
        found = f"only {' and '.join(kinds)}" if kinds else "nor anything else: it is cut short or damaged"
        raise VideoError(path, f"there is no video in it, {found}")
    codec = streams[0].codec_context
    if codec is None:
        raise VideoError(path, "FFmpeg has no decoder for its video")
    if codec.width * codec.height > MAX_PIXELS:
        raise VideoError(path, _TOO_LARGE)
    return streams[0]


def _kind(stream: av.stream.Stream) -> str:
    return "a cover picture" if stream.type == "video" else stream.type
