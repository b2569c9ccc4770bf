"""Write FCPXML 1.8, which Final Cut Pro and DaVinci Resolve read.

OpenTimelineIO's own writer rounds 29.97 frames per second to 29; here all times are exact fractions of a second.
"""

from __future__ import annotations

from fractions import Fraction
from xml.etree import ElementTree

from vop.export.frames import Source
from vop.export.timeline import Event, Timeline
from vop.utils.text import on_one_line

_VERSION = "1.8"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n'


def fcpxml(timeline: Timeline) -> str:
    """Return the text of an FCPXML document with one project."""
    root = ElementTree.Element("fcpxml", version=_VERSION)
    resources = ElementTree.SubElement(root, "resources")
    ids: dict[tuple[Fraction, int, int], str] = {}
    assets: dict[str, str] = {}
    largest = max((event.source for event in timeline.events), key=_area, default=None)
    width, height = (largest.width, largest.height) if largest else (1920, 1080)
    main = _format(resources, ids, timeline.rate, width, height)
    for event in timeline.events:
        if event.source.path not in assets:
            assets[event.source.path] = f"a{len(assets) + 1}"
            _asset(resources, ids, event, assets[event.source.path])
    library = ElementTree.SubElement(root, "library")
    folder = ElementTree.SubElement(library, "event", name=_text(timeline.name))
    project = ElementTree.SubElement(folder, "project", name=_text(timeline.name))
    sequence = ElementTree.SubElement(
        project,
        "sequence",
        format=main,
        duration=_seconds(timeline.length, timeline.rate),
        tcStart=_seconds(timeline.begins, timeline.rate),
        tcFormat="DF" if timeline.drop_frame else "NDF",
    )
    spine = ElementTree.SubElement(sequence, "spine")
    for event in timeline.events:
        _clip(spine, event, timeline, assets[event.source.path], _format_of(resources, ids, event.source))
    ElementTree.indent(root)
    return _HEAD + ElementTree.tostring(root, encoding="unicode") + "\n"


def _area(source: Source) -> int:
    return source.width * source.height


def _format_of(resources: ElementTree.Element, ids: dict[tuple[Fraction, int, int], str], source: Source) -> str:
    return _format(resources, ids, source.rate, source.width, source.height)


def _format(
    resources: ElementTree.Element,
    ids: dict[tuple[Fraction, int, int], str],
    rate: Fraction,
    width: int,
    height: int,
) -> str:
    """Return the id of a format, which is added if it is new."""
    key = rate, width, height
    if key not in ids:
        ids[key] = f"r{len(ids) + 1}"
        duration = f"{rate.denominator}/{rate.numerator}s"
        ElementTree.SubElement(
            resources, "format", id=ids[key], frameDuration=duration, width=str(width), height=str(height)
        )
    return ids[key]


def _asset(
    resources: ElementTree.Element, ids: dict[tuple[Fraction, int, int], str], event: Event, identity: str
) -> None:
    source = event.source
    asset = ElementTree.SubElement(
        resources,
        "asset",
        id=identity,
        name=_text(event.name),
        src=source.url,
        start=_seconds(source.start_frame, source.rate),
        duration=_seconds(source.num_frames, source.rate),
        hasVideo="1",
        format=_format_of(resources, ids, source),
    )
    if source.channels:
        asset.attrib |= {
            "hasAudio": "1",
            "audioSources": "1",
            "audioChannels": str(source.channels),
            "audioRate": str(source.sample_rate),
        }


def _clip(spine: ElementTree.Element, event: Event, timeline: Timeline, asset: str, format_id: str) -> None:
    source = event.source
    ElementTree.SubElement(
        spine,
        "asset-clip",
        ref=asset,
        name=_text(event.name),
        offset=_seconds(timeline.begins + event.offset, timeline.rate),
        start=_seconds(source.start_frame + event.first, source.rate),
        duration=_seconds(event.length, timeline.rate),
        format=format_id,
        tcFormat="DF" if source.drop_frame else "NDF",
    )


def _seconds(frames: int, rate: Fraction) -> str:
    time = frames / rate
    return f"{time.numerator}s" if time.denominator == 1 else f"{time.numerator}/{time.denominator}s"


def _text(text: str) -> str:
    return on_one_line(text)  # XML has no control characters
