"""Files that a camera writes beside a recording: small previews of it, and the movies of Live Photos."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

_ORIGINALS = {".mp4", ".m4v", ".mov", ".360", ".insv", ".avi", ".mpg", ".mts"}
_PREVIEWS = {".lrv", ".lrf", ".thm"}  # GoPro and Insta360, DJI, and a small picture of either
# A recording's files differ by the letter that tells the encoding (GoPro) or by prefix and lens (Insta360).
_GOPRO = re.compile(r"G([XHLS])([0-9A-Z]{2}\d{4})")
_INSTA360 = re.compile(r"(LRV|VID)_(\d{8}_\d{6})_\d\d_(\d{3})")

LIVE_PHOTO_SECONDS = 4.5  # they take 3 s, or a little more
_IDENTIFIER = b"com.apple.quicktime.content.identifier"
_APPLE = b"com.apple.quicktime."
_MOST_HEADER_BYTES = 2**24


def previews_among(names: Iterable[str]) -> set[str]:
    """The names in a folder that are previews of a recording which is there itself."""
    recordings = {name: _recording(name) for name in names}
    originals = {of for name, (of, is_preview) in recordings.items() if not is_preview and _suffix(name) in _ORIGINALS}
    return {name for name, (of, is_preview) in recordings.items() if is_preview and of in originals}


def _recording(name: str) -> tuple[str, bool]:
    """What a file is of, and whether it is a preview of it."""
    stem, is_preview = os.path.splitext(name)[0].upper(), _suffix(name) in _PREVIEWS
    if found := _GOPRO.fullmatch(stem):
        return f"G{found[2]}", is_preview or found[1] == "L"
    if found := _INSTA360.fullmatch(stem):
        return f"{found[2]}_{found[3]}", is_preview or found[1] == "LRV"
    return stem, is_preview


def with_pictures(names: Iterable[str]) -> set[str]:
    """The names in a folder that may be movies of Live Photos: a picture of the same name is there."""
    names = list(names)
    pictures = {_stem(name) for name in names if _suffix(name) in (".heic", ".heif", ".jpg", ".jpeg")}
    return {name for name in names if _suffix(name) == ".mov" and _stem(name) in pictures}


def is_live_photo(path: str) -> bool:
    """Whether a short movie that lies beside a picture of the same name is that picture's.

    Apple writes an identifier of both into the movie. Where all of Apple's entries were stripped, only a picture in
    Apple's own format tells.
    """
    try:
        with open(path, "rb") as file:
            header = _read_header(file)
    except OSError:
        return False
    if header is None or header.seconds > LIVE_PHOTO_SECONDS:
        return False
    return header.has_identifier or (not header.has_apple and _has_heic(path))


def _has_heic(path: str) -> bool:
    stem = os.path.splitext(path)[0]
    return any(os.path.exists(stem + suffix) for suffix in (".HEIC", ".heic", ".HEIF", ".heif"))


@dataclass(frozen=True)
class _Header:
    seconds: float
    has_identifier: bool
    has_apple: bool


def _read_header(file: BinaryIO) -> _Header | None:
    """What a QuickTime file says of itself; None if it says nothing."""
    moov = next((body for kind, body in _boxes(file) if kind == b"moov"), None)
    at = -1 if moov is None else moov.find(b"mvhd")
    if at < 0 or len(moov) < at + 36:
        return None
    start, size = (at + 24, 8) if moov[at + 4] == 1 else (at + 16, 4)  # after the version and two dates
    scale = int.from_bytes(moov[start : start + 4], "big")
    duration = int.from_bytes(moov[start + 4 : start + 4 + size], "big")
    return _Header(duration / max(1, scale), _IDENTIFIER in moov, _APPLE in moov)


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The outermost boxes of a file with their content; that of all but the header is left out."""
    end = file.seek(0, os.SEEK_END)
    place = 0
    while place + 8 <= end:
        file.seek(place)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        size = {0: end - place, 1: int.from_bytes(head[8:16], "big")}.get(size, size)
        if size < 8:
            return
        file.seek(place + 8)
        yield kind, file.read(min(size, _MOST_HEADER_BYTES)) if kind == b"moov" else b""
        place += size


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].upper()


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
