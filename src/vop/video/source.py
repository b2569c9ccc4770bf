"""Open a video file, and read its packets in order, by seeking, or through the index of an MP4 file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
from av.codec.context import Flags
from av.stream import Discard, Disposition

from vop.errors import UsageError, VideoError
from vop.utils.names import existing_path
from vop.video.clip import Clip
from vop.video.timeline import Timeline, TimelineReader, is_mp4

if TYPE_CHECKING:
    from av.stream import Stream

MAX_PIXELS = 64 * 2**20  # per frame; a file whose header claims more is broken or hostile
TOO_LARGE = f"its header claims frames of more than {MAX_PIXELS // 2**20} megapixels, or without a size"

OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}

_PREVIEW = 1 / 8  # of the largest stream's area; a smaller stream counts as a preview of it
_ENOUGH = 5  # a stream with at least this many frames is a video
_COUNTED_PACKETS = 5000  # to read at most, if the header does not tell pictures from videos
_STILLS = Disposition.timed_thumbnails | Disposition.still_image

_IVF = b"DKIF"  # the beginning of a file

_SEEK_BYTES = 4 * 2**20  # a packet that is nearer is reached by reading, without seeking

FEW_PACKETS = 2000  # reading this many takes no longer than looking up a dozen times
_MOST_BYTES = 64 * 2**20  # of packets in memory
_FAR_SECONDS = 10  # between decoding and presentation; larger differences must be corrected, which takes all packets


@contextmanager
def open_video(
    path: Path, *, stream: int | None = None, format_bytes: int = 2**20
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file and yield its container and video stream. Never opens a network address.

    If there are several video streams, choose the default one, else the largest, like FFmpeg's command; but never a
    cover, a still picture or a preview if there is a video.

    Args:
        stream: the number of another video stream in the file, as `ffprobe` shows it.
        format_bytes: maximum number of bytes for detecting the format. Less is faster for files that are not videos.

    Raises:
        VideoError: the file does not exist, or is not a video.
        UsageError: the stream is not a video stream of the file.
    """
    with _opened(path, format_bytes) as container:
        video = _video_stream(path, container, stream)
        # Else the decoder rounds a crop at the left, so that pixels stay aligned in memory.
        video.codec_context.flags |= Flags.unaligned
        for other in container.streams:
            if other.type != "audio" and other is not video:
                other.discard = Discard.all  # saves reading its packets
        yield container, video


def packets_of(container: av.container.InputContainer, *streams: Stream) -> Iterator[av.Packet[Stream]]:
    """Yield the packets of these streams, up to the point where the file breaks off."""
    try:
        yield from container.demux(streams)
    except (av.FFmpegError, IndexError):  # PyAV raises an IndexError at the end of a file that has gained streams
        return


def check_joined(path: Path, container: av.container.InputContainer, packet: av.Packet[Stream]) -> None:
    """Refuse IVF files joined byte by byte. FFmpeg takes the second one's header for a frame, and loses its frames.

    Args:
        packet: a packet that is cut short, as a frame of the size in this header is.

    Raises:
        VideoError: the packet is the header of an IVF file.
    """
    if container.format.name != "ivf" or packet.pos is None:
        return
    with path.open("rb") as file:
        file.seek(packet.pos)
        if file.read(len(_IVF)) == _IVF:
            reason = f"it is several IVF files in one; the second begins at byte {packet.pos:,}"
            raise VideoError(path, f"{reason}: convert each of them to WebM or MP4, and join these with FFmpeg")


@contextmanager
def _opened(path: Path, format_bytes: int) -> Iterator[av.container.InputContainer]:
    path = existing_path(path)
    _check_file(path)
    try:
        # The prefix "file:" keeps FFmpeg from reading a name with a colon as a URL. The whitelist keeps playlists from
        # opening network addresses.
        options = {**OPTIONS, "formatprobesize": str(format_bytes)}
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(path, _open_reason(path, error)) from error
    with container:
        yield container


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise VideoError(path, "this is a folder, not a video file")
    if not path.exists():
        raise VideoError(path, "the file does not exist")
    if not path.is_file():  # reading a pipe may wait forever, and a device has no end
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
        found = f"only {' and '.join(kinds)}" if kinds else "and no other stream: it is cut short or damaged"
        raise VideoError(path, f"it contains no video, {found}")
    if len(streams) == 1:
        return streams[0]
    frames = _count_frames(path, streams)
    largest = max(map(_area, streams))

    def merit(stream: av.VideoStream) -> tuple[int, bool, bool, int]:
        moves = 0 if stream.disposition & _STILLS else min(frames[stream.index], _ENOUGH)
        is_preview = _area(stream) < _PREVIEW * largest
        return moves, not is_preview, bool(stream.disposition & Disposition.default), _area(stream)

    return max(streams, key=merit)


def _area(stream: av.VideoStream) -> int:
    codec = stream.codec_context
    return codec.width * codec.height if codec else 0


def _count_frames(path: Path, streams: list[av.VideoStream]) -> dict[int, int]:
    """Return the number of frames of each stream, from the header or else by counting packets up to `_ENOUGH`."""
    counts = {stream.index: stream.frames for stream in streams}
    if all(counts.values()):
        return counts
    counts = dict.fromkeys(counts, 0)
    with _opened(path, 2**20) as container:  # opened again, to read from the beginning
        for number, packet in enumerate(packets_of(container, *(container.streams[index] for index in counts))):
            counts[packet.stream_index] += bool(packet.size)
            if number >= _COUNTED_PACKETS or min(counts.values()) >= _ENOUGH:
                break
    return counts


def _numbered(path: Path, container: av.container.InputContainer, wanted: int) -> av.VideoStream:
    videos = {stream.index: stream for stream in container.streams.video}
    if wanted not in videos:
        known = ", ".join(map(str, videos)) or "none"
        raise UsageError(f"stream is {wanted}; {path} has these video streams: {known}")
    return videos[wanted]


def _kind(stream: Stream) -> str:
    return "a cover picture" if stream.type == "video" else stream.type


# -- packets by position


class FromMemory:
    """Packets that are kept in memory."""

    def __init__(self, packets: list[av.Packet[Stream]], timeline: Timeline) -> None:
        self._packets = packets
        _stamp(packets, 0, timeline)

    def since(self, place: int) -> Iterator[av.Packet[Stream]]:
        return islice(self._packets, place, None)


class FromFile:
    """Packets that are read from the file again when needed."""

    def __init__(
        self,
        path: Path,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        timeline: Timeline,
    ) -> None:
        self._path, self._container, self._stream, self._timeline = path, container, stream, timeline
        self._index = stream.index
        self._closing = ExitStack()
        self._next = len(timeline.packets.stamps)  # the position of the next packet to read
        self._reading: Iterator[av.Packet[Stream]] = iter(())

    def since(self, place: int) -> Iterator[av.Packet[Stream]]:
        if self._is_far(place):
            self._seek(place)
        for packet in self._reading:
            self._next += 1
            if self._next > place:
                _stamp([packet], self._next - 1, self._timeline)
                yield packet

    def _is_far(self, place: int) -> bool:
        ends = self._timeline.packets.ends
        return place < self._next or (ends[place] - ends[self._next] > _SEEK_BYTES and self._can_seek())

    def _can_seek(self) -> bool:
        return not (self._timeline.ordinal or self._timeline.packets.corrected)

    def _seek(self, place: int) -> None:
        """Go to a packet at or before this position."""
        packets = self._timeline.packets
        key = bisect_right(packets.keys, place) - 1
        for back in (0, 1) if self._can_seek() else ():
            if key - back > 0 and self._try(key - back):
                return
        self._closing.close()
        self._container, self._stream = self._closing.enter_context(open_video(self._path, stream=self._index))
        self._reading, self._next = self._own_packets(), 0

    def _try(self, key: int) -> bool:
        """Seek to a key frame. Return whether its packet was found."""
        packets = self._timeline.packets
        place, stamp = packets.keys[key], packets.stamps[packets.keys[key]]
        later = {packets.stamps[other] for other in packets.keys[key + 1 : key + 9]}
        try:
            self._container.seek(packets.decoded[key], stream=self._stream)
        except av.FFmpegError:
            return False
        reading = self._own_packets()
        for packet in reading:
            if packet.is_keyframe and packet.pts == stamp:
                self._reading, self._next = chain([packet], reading), place
                return True
            if packet.is_keyframe and packet.pts in later:
                return False
        return False

    def _own_packets(self) -> Iterator[av.Packet[Stream]]:
        return (packet for packet in packets_of(self._container, self._stream) if packet.size)


def _stamp(packets: Sequence[av.Packet[Stream]], first: int, timeline: Timeline) -> None:
    """Set the packets' timestamps to those of the timeline. The decoder copies them to the frames."""
    if timeline.packets.corrected and not timeline.ordinal:
        for packet, stamp in zip(packets, timeline.packets.stamps[first:], strict=False):
            packet.pts = stamp
            packet.dts = None


# -- reading a few short parts of a long MP4 file through its index
#
# The index lists all packets, and FFmpeg uses it for exact seeks. It has the decoding times of the packets, but not the
# presentation times of their frames. The frame on display at a given time is among the packets from the key frame
# before that time to the first packet that is decoded after it.


class Unsure(Exception):
    """A part of the file is not enough: the whole file must be read."""


def look_up(
    container: av.container.InputContainer, stream: av.VideoStream, clip: Clip, num_frames: int
) -> tuple[Timeline, list[av.Packet[Stream]]]:
    """Return a timeline of the frames around the middles of `num_frames` equal intervals, and their packets.

    The timeline has the duration of the whole video, and at these middles the same frames on display.

    Raises:
        Unsure: this cannot be guaranteed.
    """
    if not is_mp4(container) or len(stream.index_entries) < FEW_PACKETS:
        raise Unsure
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    try:
        return _Lookup(container, stream).run(clip, num_frames)
    except av.FFmpegError as error:
        raise Unsure from error


class _Timed(NamedTuple):
    """A packet with its presentation and decoding times, in the stream's units."""

    packet: av.Packet[Stream]
    shown: int
    decoded: int


class _Lookup:
    """Reads the packets around wanted times, and keeps them by their positions in the file."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._container, self._stream = container, stream
        self._found: dict[int | None, _Timed] = {}
        self._bytes = 0

    def run(self, clip: Clip, num_frames: int) -> tuple[Timeline, list[av.Packet[Stream]]]:
        entries = self._stream.index_entries
        self._read_first(entries[0].timestamp)
        self._read_last(entries[-1].timestamp)
        ends, _ = self._so_far()
        for middle in ends.middles(num_frames, clip):
            self._read_around(int(middle))
        return self._so_far()

    def _read_first(self, decoded: int) -> None:
        """Read until no later packet can have a frame that is shown before the first one."""
        first = None
        for timed in self._packets(decoded):
            if first is not None and timed.decoded > first:
                return
            first = timed.shown if first is None else min(first, timed.shown)

    def _read_last(self, decoded: int) -> None:
        last = [None, *self._packets(decoded)][-1]
        if last is None or (last.decoded < decoded and self._stream.index_entries[-1].size):
            raise Unsure  # the file is shorter than its index claims

    def _read_around(self, stamp: int) -> None:
        for number, timed in enumerate(self._packets(stamp)):
            if number == 0 and (not timed.packet.is_keyframe or timed.shown > stamp):
                raise Unsure
            if timed.decoded > stamp:
                return

    def _packets(self, stamp: int) -> Iterator[_Timed]:
        """Yield the packets from the last key frame before a time on, and keep them."""
        self._container.seek(stamp, stream=self._stream)
        for packet in packets_of(self._container, self._stream):
            if not packet.size:
                continue
            if packet.pts is None or packet.dts is None or packet.is_discard:
                raise Unsure  # an edit list must be read as a whole
            if abs(packet.pts - packet.dts) * packet.time_base > _FAR_SECONDS:
                raise Unsure
            timed = _Timed(packet, packet.pts, packet.dts)
            if packet.pos not in self._found:
                self._found[packet.pos] = timed
                self._bytes += packet.size
            elif self._found[packet.pos].decoded != packet.dts:  # shown twice
                raise Unsure
            if self._bytes > _MOST_BYTES:
                raise Unsure
            yield timed

    def _so_far(self) -> tuple[Timeline, list[av.Packet[Stream]]]:
        found = sorted(self._found.values(), key=lambda timed: (timed.decoded, timed.packet.pos or 0))
        packets = [timed.packet for timed in found]
        reader = TimelineReader(self._stream)
        for packet in packets:
            reader.take(packet)
        reader.take_index(self._container)
        timeline = reader.timeline()
        if timeline is None or timeline.ordinal or timeline.packets.corrected:
            raise Unsure
        return timeline, packets
