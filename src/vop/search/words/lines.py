"""Lines of subtitles and of speech, with their times in the video."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from vop.utils.names import nfc

SPEECH = "speech"  # the source of recognized lines; those of subtitles name the track or the file
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{[^{}]*\}")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line that is spoken or written in a video.

    Attributes:
        text: without markup, on one line.
        start_seconds, end_seconds: when it is spoken or shown, from the video's first frame.
        source: "speech"; a track, such as "track 2 (eng)"; or the name of a file, such as "talk.en.srt".
    """

    text: str
    start_seconds: float
    end_seconds: float
    source: str

    @property
    def matched(self) -> str:
        """The word for its kind in `Moment.matched`."""
        return "heard" if self.source == SPEECH else "written"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plain(text: str) -> str:
    """Return a text on one line, without tags of HTML or WebVTT and override tags of ASS."""
    for mark in (r"\N", r"\n", r"\h"):
        text = text.replace(mark, " ")
    text = html.unescape(_TAGS.sub("", text)).replace("\0", "")
    return nfc(" ".join(text.split()))


def within(lines: Iterable[Line], duration_seconds: float) -> tuple[list[Line], int]:
    """Return the lines of a video in the order of their times, and how many begin after its end.

    Ends are limited to the video. A line whose end is not after its start stands for its start. Lines without text,
    lines that end before the first frame, and repeated ones are left out.
    """
    kept: dict[tuple[float, float, str, str], Line] = {}
    late = 0
    for line in lines:
        start, end = line.start_seconds, max(line.start_seconds, line.end_seconds)
        if not line.text or end < 0:
            continue
        if start >= duration_seconds:
            late += 1
            continue
        start, end = round(max(start, 0.0), 3), round(min(end, duration_seconds), 3)
        key = (start, end, line.source, line.text)
        kept[key] = Line(text=line.text, start_seconds=start, end_seconds=max(start, end), source=line.source)
    return [kept[key] for key in sorted(kept)], late
