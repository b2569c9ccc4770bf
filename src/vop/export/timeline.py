"""A timeline for editors: moments in their order, each with the frames of its file, after one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from vop.export.frames import Source, drops_frames, parse_timecode, sequence_rate, timecode
from vop.export.moments import ExportableMoment
from vop.export.names import video_name

_BEGINS, _BEGINS_DROP = "01:00:00:00", "01:00:00;00"  # as timelines do


@dataclass(frozen=True, kw_only=True)
class Event:
    """A moment on a timeline.

    Attributes:
        first: the number of its first frame in the file, from 0, at the file's rate.
        frames: the number of its frames, at the file's rate.
        offset: where it begins on the timeline, in frames of the timeline.
        length: how long it is there, in frames of the timeline.
    """

    moment: ExportableMoment
    source: Source
    first: int
    frames: int
    offset: int
    length: int

    @property
    def name(self) -> str:
        return video_name(self.source.path)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Events, one after the other.

    Attributes:
        rate: frames per second.
        drop_frame: whether its timecodes are drop-frame.
        begins: the number of its first frame.
    """

    name: str
    rate: Fraction
    drop_frame: bool
    begins: int
    events: tuple[Event, ...]

    @property
    def length(self) -> int:
        return sum(event.length for event in self.events)

    def source_rate(self, source: Source) -> tuple[int, bool]:
        """Return a file's start, in frames of the timeline, and whether its timecodes are drop-frame."""
        if source.rate == self.rate:
            return source.start_frame, source.drop_frame if source.has_timecode else self.drop_frame
        return round(source.start_frame / source.rate * self.rate), self.drop_frame


def make_timeline(moments: Iterable[tuple[ExportableMoment, Source]], *, name: str) -> Timeline:
    """Put moments after one another, at the rate that most of them have."""
    placed = list(moments)
    rates = Counter(sequence_rate(source.rate) for _, source in placed)
    rate = rates.most_common(1)[0][0] if rates else Fraction(25)
    given = [source for _, source in placed if source.has_timecode and source.rate == rate]
    drop = drops_frames(rate) and (not given or any(source.drop_frame for source in given))
    clips = [source.frames(moment.start_seconds, moment.end_seconds) for moment, source in placed]
    lengths = [_length(source, first, frames, rate) for (_, source), (first, frames) in zip(placed, clips, strict=True)]
    offsets = accumulate(lengths, initial=0)
    events = tuple(
        Event(moment=moment, source=source, first=first, frames=frames, offset=offset, length=length)
        for (moment, source), (first, frames), offset, length in zip(placed, clips, offsets, lengths, strict=False)
    )
    begins = parse_timecode(_BEGINS_DROP if drop else _BEGINS, rate)
    return Timeline(name=name, rate=rate, drop_frame=drop, begins=begins[0] if begins else 0, events=events)


def _length(source: Source, first: int, frames: int, rate: Fraction) -> int:
    """Return the length of a clip in frames of another rate. It must not end after its file."""
    if source.rate == rate:
        return frames
    left = (source.num_frames - first) / source.rate * rate
    return max(min(round(frames / source.rate * rate), int(left)), 1)


def notes_of(timeline: Timeline) -> list[str]:
    """Say where the times of a list are not those of the files' frames."""
    sources: Mapping[str, Source] = {event.source.path: event.source for event in timeline.events}
    found = []
    for source in sources.values():
        if source.average_rate is not None:
            found.append(
                f"{source.path}: the frame rate varies ({float(source.average_rate):.2f} on average); its times are "
                f"counted at {rate_name(source.rate)} frames per second"
            )
        elif source.rate != timeline.rate:
            found.append(
                f"{source.path}: it has {rate_name(source.rate)} frames per second; the timeline has "
                f"{rate_name(timeline.rate)}"
            )
    return found


def rate_name(rate: Fraction) -> str:
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


def timecode_in(timeline: Timeline, frame: int) -> str:
    """Return the timecode of a frame of the timeline, counted from its first frame."""
    return timecode(timeline.begins + frame, timeline.rate, drop_frame=timeline.drop_frame)
