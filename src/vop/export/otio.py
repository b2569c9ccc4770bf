"""Write OpenTimelineIO's JSON, with all that is known of each moment as its metadata."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vop.errors import UsageError
from vop.export.frames import Source
from vop.export.timeline import Event, Timeline
from vop.utils.text import on_one_line

if TYPE_CHECKING:
    from opentimelineio.opentime import RationalTime, TimeRange
    from opentimelineio.schema import Clip


def otio(timeline: Timeline) -> str:
    """Return the text of an .otio file: a video track and, if a file has audio, an audio track.

    Raises:
        UsageError: OpenTimelineIO is not installed.
    """
    try:
        from opentimelineio import adapters, schema
    except ImportError:
        raise UsageError("writing .otio needs OpenTimelineIO: pip install 'vop[export]'") from None

    made = schema.Timeline(name=on_one_line(timeline.name), global_start_time=_time(timeline.begins, timeline.rate))
    video = schema.Track(name="V1", kind=schema.TrackKind.Video)
    audio = schema.Track(name="A1", kind=schema.TrackKind.Audio)
    for number, event in enumerate(timeline.events, start=1):
        video.append(_clip(event, number))
        audio.append(_clip(event, number) if event.source.channels else schema.Gap(source_range=_range(event)))
    made.tracks.append(video)
    if any(event.source.channels for event in timeline.events):
        made.tracks.append(audio)
    return str(adapters.write_to_string(made, "otio_json")) + "\n"


def _clip(event: Event, number: int) -> Clip:
    from opentimelineio import schema

    source = event.source
    reference = schema.ExternalReference(
        target_url=source.url,
        available_range=_between(source.start_frame, source.num_frames, source.rate),
    )
    reference.name = on_one_line(event.name)
    return schema.Clip(
        name=on_one_line(event.name),
        media_reference=reference,
        source_range=_range(event),
        metadata={"vop": {"rank": number, **_plain(event.moment.to_dict()), **_rates(source)}},
    )


def _range(event: Event) -> TimeRange:
    return _between(event.source.start_frame + event.first, event.frames, event.source.rate)


def _between(start: int, frames: int, rate: Fraction) -> TimeRange:
    from opentimelineio.opentime import TimeRange

    return TimeRange(_time(start, rate), _time(frames, rate))


def _time(frames: int, rate: Fraction) -> RationalTime:
    from opentimelineio.opentime import RationalTime

    return RationalTime(frames, float(rate))


def _rates(source: Source) -> dict[str, Any]:
    return {} if source.average_rate is None else {"average_frame_rate": float(source.average_rate)}


def _plain(value: Any) -> Any:
    """Return a value of types that OpenTimelineIO stores."""
    if isinstance(value, dict):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return on_one_line(value) if isinstance(value, str) else value
