"""Decode frames of a video file: first read the times of all packets, then decode only the packets that are needed."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
from av.video.frame import PictureType

from vop.errors import VideoError
from vop.utils.names import existing_path
from vop.video.clip import DISPLAY, Clip
from vop.video.clock import Clock
from vop.video.colour import ColourConverter, alpha_decoder
from vop.video.completing import FrameCompleter
from vop.video.picture import is_animation
from vop.video.shape import PixelConverter
from vop.video.source import TOO_LARGE, FromFile, FromMemory, Unsure, check_joined, look_up, open_video, packets_of
from vop.video.timeline import Packets, Timeline, TimelineReader, is_mp4

if TYPE_CHECKING:
    from av.stream import Stream

    from vop.video.resizing import Resizing

# Decoders that can skip the packets of frames to which no other frame refers.
_SKIPPING_CODECS = ("h264", "hevc")
_WHOLE_FRAMES = (0, 1)  # AVFieldOrder: unknown, progressive; interlaced packets may hold half a frame

_HELD_BYTES = 64 * 2**20  # packets up to this size are kept while the times are read; larger ones are read again

# How many key frames to go back if a frame is incomplete. A key frame may be damaged, and in a stream with intra
# refresh, pictures are complete only one "key frame" later.
_STEPS_BACK = (0, 1, 3, 7)
_MOST_LOST = 3  # frames that are incomplete even after going back; then the file is decoded in one pass

StampedFrame = tuple[int, av.VideoFrame]


class VideoDecoder:
    """An open video file. Gives its timeline, and its frames by their timestamps.

    Attributes:
        container, stream, codec: PyAV's objects.
        colours: converts the frames to RGB.

    Raises:
        VideoError: the file does not exist, or is not a video.
        UsageError: `stream` is not one of its video streams.
    """

    def __init__(self, path: str | Path, *, stream: int | None = None, threads: int = 1) -> None:
        self.path = existing_path(path)
        self._closing = ExitStack()
        self._open(stream)
        self.codec = alpha_decoder(self.stream) or self.stream.codec_context
        self.colours = ColourConverter(self.codec, path=self.path)
        self._completer = FrameCompleter(self.stream)
        self.codec.thread_type, self.codec.thread_count = "AUTO", threads
        self._timeline: Timeline | None = None
        self._is_partial = False
        self._source: FromMemory | FromFile | None = None

    def _open(self, stream: int | None) -> None:
        self._closing.close()
        self.container, self.stream = self._closing.enter_context(open_video(self.path, stream=stream))

    def __enter__(self) -> VideoDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def timeline(self) -> Timeline:
        """The presentation times of the frames. The first access reads the file.

        Raises:
            VideoError: the video has no frames.
        """
        if self._timeline is None:
            self._timeline = self._read()
        return self._timeline

    def look_up(self, clip: Clip, num_frames: int) -> None:
        """Read only the packets for the frames in the middle of equal intervals of a clip.

        This is possible for long files with an index; for others it does nothing. The timeline then contains only the
        frames around these middles.
        """
        try:
            self._timeline, packets = look_up(self.container, self.stream, clip, num_frames)
        except Unsure:
            self._open(self.stream.index)
        else:
            self._source, self._is_partial = FromMemory(packets, self._timeline), True

    def converter(self, *, resizing: Resizing, picture_size: int = 160, aspect: str = DISPLAY) -> PixelConverter:
        """Return a converter of the frames to squares and pictures."""
        return PixelConverter(self.stream, self.colours, resizing=resizing, picture_size=picture_size, aspect=aspect)

    def nearest(self, wanted: Sequence[int]) -> Iterator[StampedFrame]:
        """Yield the nearest intact frame to each wanted timestamp, with its own timestamp.

        Decodes only from a key frame to the last wanted frame before the next key frame.

        Args:
            wanted: timestamps in ascending order.

        Raises:
            VideoError: no frame can be decoded.
        """
        remaining = deque(wanted)
        places = _places(self.timeline.packets, set(wanted))
        if self._needs_one_pass() or len(places) < len(set(wanted)):
            yield from self._in_one_pass(0, remaining)
            return
        step = lost = 0
        while remaining:
            run = self._plan(remaining, places, _STEPS_BACK[step])
            yield from self._exactly(run, remaining)
            if not remaining or remaining[0] not in run.wanted:
                continue
            if self._is_partial:  # packets that were not read may help
                self._open(self.stream.index)
                self._timeline = self._read()
                yield from self.nearest(remaining)
                return
            if run.first > 0 and step + 1 < len(_STEPS_BACK):
                step += 1
                continue
            step, lost = 0, lost + 1
            yield from self._in_one_pass(run.first, remaining, most=None if lost > _MOST_LOST else 1)

    def shown(self) -> Iterator[StampedFrame]:
        """Yield all intact frames with their timestamps, in presentation order.

        Raises:
            VideoError: no frame can be decoded.
        """
        found = None
        for found in self._frames(0, None):
            yield found
        if found is None:
            raise self._undecodable()

    # -- which packets to decode

    def _needs_one_pass(self) -> bool:
        """Return whether decoding must begin with the first frame: frames have no times, or a palette that changes."""
        has_palette = self.codec.format is not None and self.codec.format.has_palette
        return self.timeline.ordinal or has_palette

    def _plan(self, remaining: Sequence[int], places: dict[int, int], back: int) -> _Run:
        """Return the packets to decode next, from `back` key frames before the next wanted frame's own."""
        packets = self.timeline.packets
        key = _key_before(packets, places[remaining[0]], remaining[0])
        group: list[int] = []
        last = 0
        for stamp in remaining:
            begin = _key_before(packets, places[stamp], stamp)
            # If the next run would begin within this one, continuing is faster.
            if group and begin != key and packets.keys[max(begin - back, 0)] > last:
                break
            group.append(stamp)
            last = max(last, places[stamp])
        first = key - back
        return _Run(packets.keys[first] if first > 0 else 0, last, frozenset(group))

    def _exactly(self, run: _Run, remaining: deque[int]) -> Iterator[StampedFrame]:
        """Yield the wanted frames of a run, up to the first incomplete one."""
        key_stamp = self.timeline.packets.stamps[run.first]
        for stamp, frame in self._frames(run.first, run.last, needed=run.wanted):
            if stamp == key_stamp and run.first and not _is_intra(frame):
                return
            while remaining and remaining[0] == stamp:
                yield stamp, frame
                remaining.popleft()
            if not remaining or remaining[0] < stamp or remaining[0] not in run.wanted:
                return

    def _in_one_pass(self, first: int, remaining: deque[int], *, most: int | None = None) -> Iterator[StampedFrame]:
        """Yield the nearest frames to the remaining timestamps, at most `most`. Decodes all packets from `first` on."""
        before, given = None, 0
        needed = None if self.timeline.ordinal else frozenset(remaining)
        for stamp, frame in self._frames(first, None, needed=needed):
            while remaining and stamp >= remaining[0]:
                target = remaining.popleft()
                yield before if before and target - before[0] < stamp - target else (stamp, frame)
                given += 1
                if given == most:
                    return
            if not remaining:
                return
            before = stamp, frame
        if before is None and first == 0:
            raise self._undecodable()
        if before is None:
            yield from self._in_one_pass(0, remaining, most=most)
        while before and remaining and given != most:
            remaining.popleft()
            yield before
            given += 1

    def _undecodable(self) -> VideoError:
        reason = "none of its frames can be decoded"
        if not self.codec.width and is_animation(self.path):
            reason = "it is an animated WebP, which FFmpeg cannot decode: convert it to MP4 or WebM"
        elif not self.codec.width:  # FFmpeg drops a size above max_pixels, and then decodes nothing
            reason = TOO_LARGE
        return VideoError(self.path, reason)

    # -- decoding

    def _frames(self, first: int, last: int | None, *, needed: frozenset[int] | None = None) -> Iterator[StampedFrame]:
        """Yield the intact frames of the packets from `first` to `last`, with their timestamps.

        Args:
            needed: timestamps of the wanted frames. Others may be skipped to save work.
        """
        timeline, codec = self.timeline, self.codec
        if first and self._completer.needs_first_frame:  # it may rotate all others
            next(self._frames(0, 0), None)
        can_skip = codec.name in _SKIPPING_CODECS and codec.field_order in _WHOLE_FRAMES
        if codec.is_open:
            codec.flush_buffers()
        codec.skip_frame = "DEFAULT"
        position = 0
        for packet in self._packets(first, last):
            if can_skip and needed is not None:
                codec.skip_frame = "DEFAULT" if packet is None or packet.pts in needed else "NONREF"
            try:
                frames = codec.decode(packet)
            except av.FFmpegError:
                continue
            for frame in map(self._completer.complete, frames):
                stamp = frame.pts
                if timeline.ordinal:
                    stamp = timeline.stamps[min(position, len(timeline.stamps) - 1)]
                    position += 1
                if stamp is not None and not frame.is_corrupt:
                    yield stamp, frame

    def _packets(self, first: int, last: int | None) -> Iterator[av.Packet[Stream] | None]:
        """Yield the packets from `first` to `last`, then None, which makes the decoder return its last frames."""
        assert self._source is not None  # reading the timeline sets it
        number = None if last is None else last + 1 - first
        yield from islice(self._source.since(first), number)
        yield None

    # -- reading

    def _read(self) -> Timeline:
        """Read the whole file for its timeline. Keep the packets if they fit in memory."""
        clock, reader = Clock(self.container), TimelineReader(self.stream)
        held: list[av.Packet[Stream]] | None = []
        size = 0
        sound = None if is_mp4(self.container) else self.container.streams.best("audio")
        for packet in packets_of(self.container, *filter(None, [self.stream, sound])):
            clock.set(packet)
            if packet.is_corrupt:
                check_joined(self.path, self.container, packet)
            if packet.stream_index != self.stream.index:
                reader.stands(packet)
                continue
            reader.take(packet)
            size += packet.size
            if held is not None and size > _HELD_BYTES:
                held = None
            if held is not None and packet.size:
                held.append(packet)
        if not clock.corrected:
            reader.take_index(self.container)
        self._is_partial = False
        timeline = reader.timeline(corrected=clock.corrected)
        if timeline is None:
            raise VideoError(self.path, "its video stream is empty")
        if held is None:
            self._source = FromFile(self.path, self.container, self.stream, timeline)
        else:
            self._source = FromMemory(held, timeline)
        return timeline


class _Run(NamedTuple):
    """Packets to decode: the positions of the first and the last one, and the timestamps of the wanted frames."""

    first: int
    last: int
    wanted: frozenset[int]


def _places(packets: Packets, stamps: set[int]) -> dict[int, int]:
    """Return the position of each frame's packet, by the frame's timestamp."""
    found: dict[int, int] = {}
    for place, stamp in enumerate(packets.stamps):
        if stamp in stamps and packets.shown[place]:
            found.setdefault(stamp, place)
    return found


def _key_before(packets: Packets, place: int, stamp: int) -> int:
    """Return the number of the last key frame from which a frame can be decoded; -1 if it comes before all of them.

    A frame that follows a key frame in the file but is shown before it also refers to frames before the key frame.
    """
    key = bisect_right(packets.keys, place) - 1
    while key >= 0 and packets.stamps[packets.keys[key]] > stamp:
        key -= 1
    return key


def _is_intra(frame: av.VideoFrame) -> bool:
    """Return whether a frame refers to no other frame, according to the decoder."""
    return frame.key_frame or frame.pict_type in (PictureType.I, PictureType.NONE)
