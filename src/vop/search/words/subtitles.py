"""Read files of subtitles: SubRip, WebVTT, SubStation Alpha."""

from __future__ import annotations

import codecs
import re

from vop.search.words.lines import Line, plain

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
MAX_BYTES = 32 * 2**20
_MARKS = (  # the longer ones first: the mark of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ENCODINGS = (  # that subtitles have, besides Unicode; the first is the most usual
    *("cp1252", "cp1251", "cp932", "gb18030", "big5", "euc_kr"),
    *("cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"),
)
_NUMBERS = re.compile(rb"^[\s\d:.,>-]*$")  # lines of times and numbers, the same in every encoding


class SubtitleError(Exception):
    """A file of subtitles cannot be read; the message is the reason."""


class SubtitleUnavailable(SubtitleError):
    """A file of subtitles cannot be opened now, and may be readable next time."""


def parse(content: bytes, name: str, *, offset_seconds: float = 0.0) -> list[Line]:
    """Return the lines of a file of subtitles.

    Args:
        content: the file's bytes, in any encoding.
        name: the file's name, whose suffix names the format.
        offset_seconds: added to all times.

    Raises:
        SubtitleError: there are no lines to read.
    """
    import pysubs2

    text = decode(content)
    try:
        events = pysubs2.SSAFile.from_string(text, format_=_format(text, name)).events
    except Exception as error:  # its parsers raise whatever a broken file makes them raise
        reason = str(error).strip().splitlines()
        raise SubtitleError(f"it is not a file of subtitles ({(reason or [type(error).__name__])[0]})") from error
    lines = [
        Line(
            text=plain(event.plaintext),
            start_seconds=event.start / 1000 + offset_seconds,
            end_seconds=event.end / 1000 + offset_seconds,
            source=name,
        )
        for event in events
        if event.is_text
    ]
    if not any(line.text for line in lines):
        raise SubtitleError("it has no line with times")
    return lines


def _format(text: str, name: str) -> str:
    """Return the name of the format: files with the suffix of another format are common."""
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("WEBVTT"):
        return "vtt"
    if "[Events]" in text:
        return "ass" if "[V4 Styles]" not in text else "ssa"
    suffix = name.lower().rpartition(".")[2]
    return suffix if suffix != "vtt" else "srt"


def decode(content: bytes) -> str:
    """Decode a text of unknown encoding: by its mark, as UTF-8, or by what reads most like a language."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        pass
    else:
        if "\0" not in text:
            return text
    if content.count(b"\0") > len(content) // 4:  # of UTF-16 without its mark, half of the bytes of ASCII
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be", "replace")
    return content.decode(_detected(content), "replace")


def _detected(content: bytes) -> str:
    """Return the encoding that the words of a file seem to have."""
    from charset_normalizer import from_bytes

    words = b"\n".join(line for line in content.splitlines() if not _NUMBERS.match(line))
    found = from_bytes(words, cp_isolation=list(_ENCODINGS), enable_fallback=False)
    best = found.best()
    if best is None:
        return _ENCODINGS[0]
    equal = [one.encoding for one in found if (one.chaos, one.coherence) == (best.chaos, best.coherence)]
    return min(equal, key=_ENCODINGS.index)
