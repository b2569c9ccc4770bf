"""Write an edit decision list (CMX 3600): video with two channels of audio, cuts only.

OpenTimelineIO's own writer does not say whether timecodes are drop-frame; its reader checks this one in the tests. All
times are counted at the timeline's rate, because an EDL has one rate.
"""

from __future__ import annotations

from vop.errors import UsageError
from vop.export.frames import timecode
from vop.export.names import reel_names
from vop.export.timeline import Event, Timeline, timecode_in
from vop.utils.text import on_one_line

_MOST_EVENTS = 999  # three digits


def edl(timeline: Timeline) -> str:
    """Return the text of an EDL.

    Raises:
        UsageError: it cannot hold so many events.
    """
    if len(timeline.events) > _MOST_EVENTS:
        raise UsageError(
            f"an EDL holds {_MOST_EVENTS} events, and there are {len(timeline.events):,} moments: export fewer, or use "
            "otio or fcpxml"
        )
    reels = reel_names(event.source.path for event in timeline.events)
    code = "DROP FRAME" if timeline.drop_frame else "NON-DROP FRAME"
    events = [_event(number, event, timeline, reels) for number, event in enumerate(timeline.events, start=1)]
    return "\n".join([f"TITLE: {on_one_line(timeline.name)}", f"FCM: {code}", "", *events])


def _event(number: int, event: Event, timeline: Timeline, reels: dict[str, str]) -> str:
    source, rate = event.source, timeline.rate
    begins, drop = timeline.source_rate(source)
    first = event.first if source.rate == rate else round(event.first / source.rate * rate)
    times = [timecode(begins + frame, rate, drop_frame=drop) for frame in (first, first + event.length)]
    times += [timecode_in(timeline, frame) for frame in (event.offset, event.offset + event.length)]
    channel = "AA/V" if source.channels else "V"
    return "\n".join(
        [
            f"{number:03d}  {reels[source.path]:8} {channel:5} C        {' '.join(times)}",
            f"* FROM CLIP NAME:  {on_one_line(event.name)}",
            f"* FROM FILE: {on_one_line(source.path)}",
            "",
        ]
    )
