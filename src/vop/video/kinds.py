"""Detect the kind of a file by its name, its first bytes and the files beside it.

Cameras also write small previews beside a recording, and the short movies of Live Photos beside a picture.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from av.format import Flags

from vop.errors import VideoError
from vop.video.source import open_video

if TYPE_CHECKING:
    import av

VIDEO, PICTURE, TEXT = "a video", "a picture", "text"
NOT_A_VIDEO = "not a video"
_SUFFIXES = {
    VIDEO: "3g2 3gp 360 amv asf avi divx dv evo f4v flv gif h264 h265 hevc insv ivf lrf lrv m1v m2t m2ts m2v m4v mj2 "
    "mjpeg mjpg mkv mov movie mp4 mpe mpeg mpg mpv mxf nsv nut ogm ogv qt rm rmvb roq tod trp vob vro webm wmv wtv "
    "xvid y4m",
    PICTURE: "ai apng arw avif bmp cr2 cr3 cur dds dng eps exr hdr heic heif icns ico jfif jp2 jpe jpeg jpg jxl "
    "nef orf pbm pgm png pnm ppm psd raf raw rw2 svg svgz tga thm tif tiff webp xcf",
    "audio": "aac ac3 aif aiff amr ape au dts flac m4a m4b mid midi mka mp2 mp3 oga opus ra wav wma wv",
    TEXT: "aae ass cfg conf csv cue edl ini json jsonl log lrc m3u m3u8 md mpd nfo pls po rst rtf sbv srt ssa "
    "sub sup tex toml tsv txt vtt xml xmp xspf yaml yml",
    "a document": "djvu doc docx epub htm html ipynb key mobi numbers odp ods odt pages pdf ppt pptx ps url webloc "
    "xls xlsx",
    "code": "bat c cc cpp cs css cu go h hpp java js jsx kt lua m mjs php pl ps1 py pyi r rb rs scss sh sql swift tsx "
    "vue",
    "a program": "a apk app bin class deb dll dylib exe jar msi o obj pyc pyd rpm so wasm whl",
    "an archive": "7z bz2 cab dmg gz img iso lz4 rar tar tgz txz xz zip zst",
    "data": "arrow bak ckpt db feather h5 hdf5 idx lance lnk lock mat mo npy npz onnx orc otf parquet pickle pkl pt "
    "pth safetensors sqlite sqlite3 tfrecord tmp torrent ttf woff woff2",
    "an unfinished download": "aria2 crdownload download opdownload part partial ytdl",
}
_KINDS = {f".{suffix}": kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
VIDEO_SUFFIXES = frozenset(suffix for suffix, kind in _KINDS.items() if kind == VIDEO)
# These suffixes also have another meaning: MPEG or TypeScript, MPEG or a text format, Ogg video or audio.
POSSIBLE_VIDEO_SUFFIXES = VIDEO_SUFFIXES | {".ts", ".mts", ".ogg"}

# Bytes to read to recognise text, and then a format. The first bytes of a video name its format. In other files FFmpeg
# would by default search a whole megabyte.
_TEXT_BYTES, _FORMAT_BYTES = 2**10, 2**14

_ORIGINALS = {".mp4", ".m4v", ".mov", ".360", ".insv", ".avi", ".mpg", ".mts"}
_PREVIEWS = {".lrv", ".lrf", ".thm"}  # of GoPro and Insta360, of DJI, and small pictures of both
# The files of a recording differ in the letter for the encoding (GoPro), or in prefix and lens (Insta360).
_GOPRO = re.compile(r"G([XHLS])([0-9A-Z]{2}\d{4})")
_INSTA360 = re.compile(r"(LRV|VID)_(\d{8}_\d{6})_\d\d_(\d{3})")

LIVE_PHOTO_SECONDS = 4.5  # at most; usually they take 3 s
_IDENTIFIER = b"com.apple.quicktime.content.identifier"
_APPLE = b"com.apple.quicktime."
_MAX_HEADER_BYTES = 2**24


def kind_by_name(path: str) -> str | None:
    """Return a file's kind by its suffix, such as "a picture"; None if the suffix is unknown or ambiguous."""
    return _KINDS.get(_suffix(path))


def kind_by_content(path: str) -> str:
    """Return a file's kind by its first bytes: "a video", "a picture", "text", or "not a video".

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        if _is_text(file.read(_TEXT_BYTES)):
            return TEXT
    try:
        with open_video(Path(path), format_bytes=_FORMAT_BYTES) as (container, _):
            return _kind_of_format(container.format)
    except VideoError:
        return NOT_A_VIDEO


def _is_text(start: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # `start` may end within a character
    except UnicodeDecodeError:
        return False
    return all(letter >= " " or letter in "\t\n\r\f\x1b" for letter in text)


def _kind_of_format(file_format: av.ContainerFormat) -> str:
    """Return the kind of files with this format. FFmpeg also finds video streams in files that are not videos."""
    if file_format.name.endswith("_pipe") or file_format.name in ("image2", "ico"):
        return PICTURE  # FFmpeg opens a picture as a video of one frame
    # A bare stream has no signature, so FFmpeg sometimes takes a program or a table of times for one.
    return NOT_A_VIDEO if file_format.flags & cast(int, Flags.no_timestamps.value) else VIDEO


# -- files beside a recording or a picture


def previews_among(names: Iterable[str]) -> set[str]:
    """Return the names in a folder that are previews of a recording in the same folder."""
    recordings = {name: _recording(name) for name in names}
    originals = {of for name, (of, is_preview) in recordings.items() if not is_preview and _suffix(name) in _ORIGINALS}
    return {name for name, (of, is_preview) in recordings.items() if is_preview and of in originals}


def _recording(name: str) -> tuple[str, bool]:
    """Return the recording to which a file belongs, and whether the file is its preview."""
    stem, is_preview = _stem(name), _suffix(name) in _PREVIEWS
    if found := _GOPRO.fullmatch(stem):
        return f"G{found[2]}", is_preview or found[1] == "L"
    if found := _INSTA360.fullmatch(stem):
        return f"{found[2]}_{found[3]}", is_preview or found[1] == "LRV"
    return stem, is_preview


def with_pictures(names: Iterable[str]) -> set[str]:
    """Return the names in a folder that may be movies of Live Photos: those with a picture of the same name."""
    names = list(names)
    pictures = {_stem(name) for name in names if _suffix(name) in (".heic", ".heif", ".jpg", ".jpeg")}
    return {name for name in names if _suffix(name) == ".mov" and _stem(name) in pictures}


def is_live_photo(path: str) -> bool:
    """Return whether a movie beside a picture of the same name is the movie of a Live Photo.

    It is short, and Apple writes an identifier of the pair into it. If all of Apple's entries were stripped, the
    picture must be in Apple's own format.
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
    """Return the header of a QuickTime file; None if the file has no header."""
    moov = next((body for kind, body in _boxes(file) if kind == b"moov"), b"")
    at = moov.find(b"mvhd")
    if at < 0 or len(moov) < at + 36:
        return None
    start, size = (at + 24, 8) if moov[at + 4] == 1 else (at + 16, 4)  # after the version and two dates
    scale = int.from_bytes(moov[start : start + 4], "big")
    duration = int.from_bytes(moov[start + 4 : start + 4 + size], "big")
    return _Header(duration / max(1, scale), _IDENTIFIER in moov, _APPLE in moov)


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and content of each outermost box of a QuickTime file. Only the header's content is read."""
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
        yield kind, file.read(min(size, _MAX_HEADER_BYTES)) if kind == b"moov" else b""
        place += size


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].upper()


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
