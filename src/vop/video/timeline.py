"""Read the presentation times of a video's frames from its packets, without decoding.

Headers are unreliable: durations and frame counts are missing (WebM from a browser, GIF) or wrong (broken downloads),
and frame rates vary. Players use the timestamps of packets, and reading these costs a few percent of decoding.

Timestamps are read as in FFmpeg's command. A gap of an hour means that one picture is shown for an hour, except in
formats whose clock may jump (see `vop.video.clock`). A clock never runs backwards in any format: where it is set back,
another recording was joined to the file, and follows the first one. A single timestamp far from its neighbours is a
mistake.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

from vop.video.clip import WHOLE_VIDEO, Clip

if TYPE_CHECKING:
    import av
    from av.stream import Stream

_UNKNOWN = -(2**50)  # far from all other timestamps, so that it is corrected if a frame is missing
PADDING = Fraction(1, 2)  # seconds; encoders let the sound end a little later than the picture
DEFAULT_RATE = 25  # frames per second if neither packets nor header give a rate, as FFmpeg assumes

_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS, among the flags of a format

_NEAR = 4  # packets on either side with which a timestamp is compared
_REORDERED = 20  # packets; reordering moves frames by less
_STRAY_SECONDS = 1  # an outlier is farther than this, and than `_STRAY_GAPS` frames, from all of these packets
_STRAY_GAPS = 20
_LONGEST_SECONDS = 365 * 24 * 3600  # a timestamp farther than this from the middle of a video is unknown
_FEW_GAPS = 3  # frames; a key frame that is earlier than others by so many begins another recording


@dataclass(frozen=True, repr=False)
class Packets:
    """A stream's packets with data, in the order of the file, which is the decoding order.

    Attributes:
        stamps: the timestamp of each packet's frame, in units of the timeline's `time_base`.
        shown: whether each frame is shown. An edit list can hide frames that others refer to.
        ends: the sum of the packets' sizes up to the end of each packet, in bytes.
        keys: the positions of the key frames' packets, where decoding can begin; ascending, and empty if `ordinal`.
        decoded: the decoding times of the key frames, for seeking.
        corrected: whether timestamps differ from those in the file, so that they cannot be used for seeking.
    """

    stamps: tuple[int, ...] = ()
    shown: tuple[bool, ...] = ()
    ends: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    decoded: tuple[int, ...] = ()
    corrected: bool = False


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a video's frames.

    Attributes:
        stamps: one timestamp for each frame, ascending, in units of `time_base`. Frame k is shown from `stamps[k]` on.
        end: when the last frame ends, in the same units. It is shown until the file ends.
        time_base: seconds per unit.
        ordinal: whether the file has no presentation times (old AVI, a bare H.264 stream). Then the k-th frame that the
            decoder returns is shown at `stamps[k]`.
        packets: the frames' packets in the file.
    """

    stamps: tuple[int, ...]
    end: int
    time_base: Fraction
    ordinal: bool = False
    packets: Packets = field(default_factory=Packets)

    def __repr__(self) -> str:
        return f"Timeline({len(self.stamps)} frames, {self.duration_seconds:.3f} s)"

    @property
    def duration_seconds(self) -> float:
        """The time from the start of the first frame to the end of the last one."""
        return float((self.end - self.stamps[0]) * self.time_base)

    def midpoints(self, num_frames: int, clip: Clip = WHOLE_VIDEO) -> list[int]:
        """Return the timestamps of the frames shown in the middle of `num_frames` equal intervals of a clip.

        If there are fewer frames than intervals, frames repeat.
        """
        middles = self.middles(num_frames, clip)
        return [self.stamps[max(bisect_right(self.stamps, middle) - 1, 0)] for middle in middles]

    def middles(self, num_frames: int, clip: Clip = WHOLE_VIDEO) -> list[Fraction]:
        """Return the middles of `num_frames` equal intervals of a clip, in units of `time_base`.

        A clip that ends after the video ends with the video.
        """
        first = Fraction(self.stamps[0])
        start = first + Fraction(clip.start_seconds) / self.time_base
        end = Fraction(self.end)
        if clip.end_seconds is not None:
            end = min(end, first + Fraction(clip.end_seconds) / self.time_base)
        return [start + (end - start) * Fraction(2 * k + 1, 2 * num_frames) for k in range(num_frames)]


class TimelineReader:
    """Builds a timeline from the packets of a file, in the order of the file.

    Args:
        stream: the video stream.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._stream, self._time_base = stream, _unit_of(stream)
        self._in_file: list[int | None] = []  # presentation times
        self._pts = self._in_file
        self._dts: list[int | None] = []
        self._durations: list[int] = []
        self._shown: list[bool] = []
        self._keys: list[int] = []
        self._ends: list[int] = []
        self._bytes = 0
        self._stands_until: Fraction | None = None  # seconds
        self._decoded_until: int | None = None  # from the header and the index, in the stream's own units

    def take(self, packet: av.Packet[Stream]) -> None:
        """Add a packet of the video."""
        if not packet.size:  # screen recorders and video editors write empty packets while the picture does not change
            self.stands(packet)
            return
        self._bytes += packet.size
        if packet.is_keyframe:
            self._keys.append(len(self._dts))
        self._in_file.append(packet.pts)
        self._dts.append(packet.dts)
        self._durations.append(packet.duration or 0)
        self._shown.append(not packet.is_discard)
        self._ends.append(self._bytes)

    def stands(self, packet: av.Packet[Stream]) -> None:
        """Extend the last picture to the end of a packet of sound, or of an empty packet."""
        begins = packet.dts if packet.pts is None else packet.pts
        if begins is not None:
            self._stands((begins + (packet.duration or 0)) * packet.time_base)

    def _stands(self, until: Fraction) -> None:
        self._stands_until = until if self._stands_until is None else max(self._stands_until, until)

    def take_index(self, container: av.container.InputContainer) -> None:
        """Read the duration of the sound, and the empty packets at the end, from the file's index or header.

        FFmpeg does not return empty packets, but the index of an MP4 file has the size of every packet. The header of
        an AVI file is used only if the file is as long as it claims.
        """
        if is_mp4(container):
            for sound in container.streams.audio[:1]:
                ends = _end_of_index(sound)
                if ends is not None:
                    self._stands(ends * _unit_of(sound))
            entries = self._stream.index_entries
            if len(entries) and not entries[-1].size:
                self._decoded_until = _end_of_index(self._stream)
        elif container.format.name == "avi":
            if not self._stream.codec_context.has_b_frames and None not in self._dts:
                self._pts = self._dts  # AVI has no presentation times, and FFmpeg guesses them one frame late
            if self._stream.duration and _is_whole_riff(container.name):
                self._decoded_until = (self._stream.start_time or 0) + self._stream.duration

    def timeline(self, *, corrected: bool = False) -> Timeline | None:
        """Return the timeline; None if no packet has a frame that is shown.

        Args:
            corrected: whether the timestamps of the packets were changed before they were added.
        """
        shown = [place for place, is_shown in enumerate(self._shown) if is_shown]
        timed = [place for place in shown if self._pts[place] is not None]
        if 2 * len(timed) > len(shown):  # after a cut, the first packets have no times and cannot be decoded
            shown = [place for place in shown if place >= timed[0]]
        if not shown:
            return None
        ordinal = self._lacks_presentation_times(shown)
        given, time_base = self._given(ordinal)
        mended: dict[int, int] = {}
        if not ordinal:
            mended = self._mended(shown)
            shown = [place for place in shown if mended[place] > _UNKNOWN]
            corrected = corrected or any(mended[place] != self._in_file[place] for place in shown)
        stamps = [mended.get(place, stamp or 0) for place, stamp in enumerate(given)]
        last = max(shown, key=stamps.__getitem__)
        duration = self._durations[last] if time_base == self._time_base else 1
        ascending = sorted(stamps[place] for place in shown)
        end = ascending[-1] + (duration or _usual_gap(ascending))
        visible = set(shown)
        keys = () if ordinal else tuple(self._keys)
        packets = Packets(
            stamps=tuple(stamps),
            shown=tuple(place in visible for place in range(len(stamps))),
            ends=tuple(self._ends),
            keys=keys,
            decoded=tuple(stamps[key] if (dts := self._dts[key]) is None else dts for key in keys),
            corrected=corrected,
        )
        return Timeline(
            tuple(ascending), max(end, self._standing(time_base, ascending[0], end)), time_base, ordinal, packets
        )

    def _mended(self, shown: list[int]) -> dict[int, int]:
        """Return the corrected presentation time of each of these packets; `_UNKNOWN` if it is missing."""
        raw = _without_absurd([self._pts[place] for place in shown], self._time_base)
        mended = dict(zip(shown, without_strays(raw, self._time_base), strict=True))
        known = [place for place in shown if mended[place] > _UNKNOWN]
        keys_in_file = set(self._keys)
        keys = {number for number, place in enumerate(known) if place in keys_in_file}
        in_order = without_restarts([mended[place] for place in known], self._time_base, keys)
        return mended | dict(zip(known, in_order, strict=True))

    def _standing(self, time_base: Fraction, first: int, end: int) -> int:
        """Return when the last picture ends, which may be later than the end of its packet."""
        until = end
        if self._stands_until is not None and self._stands_until > end * time_base + PADDING:
            until = round(self._stands_until / time_base)
        decoded = self._decoded()
        if self._decoded_until is None or decoded is None:
            return until
        delay = first - min(decoded)
        return max(until, self._decoded_until + delay)

    def _lacks_presentation_times(self, shown: list[int]) -> bool:
        """Return whether most presentation times are missing, or are those of decoding (reordered H.264 in AVI)."""
        times = [pts for place in shown if (pts := self._pts[place]) is not None]
        if 2 * len(times) <= len(shown) or self._are_guessed():
            return True
        in_order = all(early < late for early, late in pairwise(times))
        return in_order and bool(self._stream.codec_context.has_b_frames)

    def _are_guessed(self) -> bool:
        """Return whether FFmpeg made up the presentation times, and they do not fit.

        It learns of reordering only at the first B-frame, and begins anew at a joined stream.
        """
        if not self._stream.container.format.flags & _NO_TIMESTAMPS:
            return False
        times = zip(self._pts, self._dts, strict=True)
        delays = [pts - dts for pts, dts in times if pts is not None and dts is not None]
        return bool(delays) and (min(delays) < 0 or max(delays) > delays[0] == 0)

    def _decoded(self) -> list[int] | None:
        """Return the decoding time of each packet; None if one is missing."""
        known = [dts for dts in self._dts if dts is not None]
        return known if len(known) == len(self._dts) else None

    def _given(self, ordinal: bool) -> tuple[Sequence[int | None], Fraction]:
        """Return the timestamps of all packets as in the file, and their unit in seconds."""
        if not ordinal:
            return self._pts, self._time_base
        decoded = self._decoded()
        if decoded is not None:
            return _output_times(decoded, self._stream.codec_context.reorder_depth), self._time_base
        rate = self._stream.guessed_rate or self._stream.average_rate or DEFAULT_RATE
        return list(range(len(self._pts))), 1 / Fraction(rate)


def read_timeline(packets: Iterable[av.Packet[Stream]], stream: av.VideoStream) -> Timeline | None:
    """Return the timeline of a video stream's packets; None if no frame is shown."""
    reader = TimelineReader(stream)
    for packet in packets:
        reader.take(packet)
    return reader.timeline()


def is_mp4(container: av.container.InputContainer) -> bool:
    """Return whether a file has an index of all packets: MP4, MOV and related formats."""
    return "mp4" in container.format.name.split(",")


def _unit_of(stream: Stream) -> Fraction:
    """Return the seconds per unit of a stream's times. Every stream of an open file has it."""
    assert stream.time_base is not None
    return stream.time_base


def _end_of_index(stream: Stream) -> int | None:
    """Return the decoding time at which a stream's index ends, assuming equal durations of its last two packets."""
    entries = stream.index_entries
    if not len(entries):
        return None
    last = entries[-1].timestamp
    return last + (last - entries[-2].timestamp if len(entries) > 1 else 0)


def _output_times(decoded: list[int], delay: int) -> list[int]:
    """Return when each frame leaves the decoder. If only decoding times are known, it is shown at this time."""
    gap = _usual_gap(decoded)
    return [*decoded[delay:], *(decoded[-1] + gap * step for step in range(1, min(delay, len(decoded)) + 1))]


def _is_whole_riff(path: str) -> bool:
    """Return whether a file is at least as long as its RIFF header says."""
    file = Path(path.removeprefix("file:"))
    with file.open("rb") as stream:
        claimed = int.from_bytes(stream.read(8)[4:], "little") + 8
    return claimed <= file.stat().st_size


def _without_absurd(stamps: Sequence[int | None], time_base: Fraction) -> list[int]:
    """Return timestamps with `_UNKNOWN` for those that are missing or impossible, such as those of damaged packets."""
    middle = median_low([stamp for stamp in stamps if stamp is not None])
    farthest = _LONGEST_SECONDS / time_base
    return [_UNKNOWN if stamp is None or abs(stamp - middle) > farthest else stamp for stamp in stamps]


def without_strays(stamps: Sequence[int], time_base: Fraction) -> list[int]:
    """Move each timestamp that is far from all its neighbours to where a frame is missing.

    Args:
        stamps: timestamps in decoding order.
    """
    stamps = list(stamps)
    far = _far(stamps, time_base)
    suspects = [place for place, (one, other) in enumerate(pairwise(stamps)) if abs(other - one) > far]
    for place in sorted({place + step for place in suspects for step in (0, 1)}):
        before, after = stamps[max(place - _NEAR, 0) : place], stamps[place + 1 : place + 1 + _NEAR]
        following = stamps[place + 1 : place + 1 + _REORDERED]
        late = max(following, default=stamps[place]) < stamps[place] and _is_late(stamps[place], before, after, far)
        if not (late or _is_early(stamps[place], before, after, far)):
            continue
        first, last = min(before + after), max(before + following)
        others = sorted(stamp for stamp in stamps[:place] + stamps[place + 1 :] if first <= stamp <= last)
        missing = _missing(others)
        if missing is None and late and len(following) < _REORDERED:
            continue  # the last frame, after a pause; frames that are shown earlier are decoded after it
        stamps[place] = others[0] - _usual_gap(others) if missing is None else missing
    return stamps


def without_restarts(stamps: Sequence[int], time_base: Fraction, keys: Container[int] = ()) -> list[int]:
    """Make timestamps in decoding order continue where the clock was set back.

    After a pause, a few of the next frames may be shown before it. After a restart, all later frames are early, or the
    first of them is a key frame: it is never shown before frames that are decoded earlier.

    Args:
        keys: the positions of the key frames.
    """
    far, usual = _far(stamps, time_base), _usual_gap(stamps)
    begin, latest, offset, corrected = 0, None, 0, []
    for place, stamp in enumerate(stamps):
        if latest is not None and stamp + offset < latest:
            following = [other + offset for other in stamps[place : place + _REORDERED]]
            are_early = len(following) == _REORDERED and max(following) < latest - far
            if are_early or (place in keys and _begins_anew(following, corrected[-_NEAR:])):
                gap = _usual_gap(stamps[begin:place]) if place - begin > 1 else usual
                begin, offset = place, offset + latest + gap - min(following[: _NEAR + 1])
        corrected.append(stamp + offset)
        latest = corrected[-1] if latest is None else max(latest, corrected[-1])
    return corrected


def _begins_anew(following: Sequence[int], before: Sequence[int]) -> bool:
    """Return whether a key frame, the first of `following`, begins another recording than the frames before it.

    If only the key frame is early, its own timestamp is wrong.
    """
    key, *after = following[: _NEAR + 1]
    is_early = len(before) == _NEAR and key <= min(before) and key + _FEW_GAPS * _usual_gap(following) <= max(before)
    return is_early and bool(after) and min(after) < max(before)


def _far(stamps: Sequence[int], time_base: Fraction) -> int:
    """Return a distance that is larger than any reordering of frames."""
    return max(round(_STRAY_SECONDS / time_base), _STRAY_GAPS * _usual_gap(stamps))


def _is_late(stamp: int, before: Sequence[int], after: Sequence[int], far: int) -> bool:
    """Return whether the timestamp is later than its neighbours, and not near the end.

    A late timestamp near the end may belong to the last frame, decoded before others.
    """
    return len(after) == _NEAR and stamp > max(*after, *before) + far


def _is_early(stamp: int, before: Sequence[int], after: Sequence[int], far: int) -> bool:
    return bool(before) and bool(after) and stamp < min(*before, *after) - far


def _missing(ordered: Sequence[int]) -> int | None:
    """Return the missing timestamp among evenly spaced ones, or None. A larger gap is a pause."""
    usual = _usual_gap(ordered)
    gaps = [(other - one, one) for one, other in pairwise(ordered) if 1.5 * usual < other - one < 3 * usual]
    gap, since = max(gaps, default=(0, 0))
    return since + gap // 2 if gap else None


def _usual_gap(stamps: Sequence[int]) -> int:
    gaps = [late - early for early, late in pairwise(sorted(stamps)) if late != early]
    return median_low(gaps) if gaps else 1
