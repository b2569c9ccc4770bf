"""Cut the subtitles of a moment out of the lines of its video: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable

from vop.export.moments import Line


def cut_subtitles(lines: Iterable[Line], *, start_seconds: float, end_seconds: float, format: str = "srt") -> str:
    """Return the lines that are shown in a clip, in a file's text whose time begins with the clip; "" if none is.

    Args:
        format: srt or vtt.
    """
    import pysubs2

    found = pysubs2.SSAFile()
    for line in lines:
        start, end = max(line.start_seconds, start_seconds), min(line.end_seconds, end_seconds)
        if start < end and line.text.strip():
            event = pysubs2.SSAEvent(round(1000 * (start - start_seconds)), round(1000 * (end - start_seconds)))
            event.plaintext = line.text
            found.append(event)
    found.sort()
    return found.to_string(format) if len(found) else ""
