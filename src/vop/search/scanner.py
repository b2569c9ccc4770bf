"""Which files below some paths are videos. Only names are looked at where they tell enough."""

from __future__ import annotations

import codecs
import errno
import heapq
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from av.format import Flags

from vop.errors import UsageError, VideoError
from vop.search.companions import is_live_photo, previews_among, with_pictures
from vop.search.exclude import Exclude
from vop.utils.names import existing_path
from vop.video.source import open_video

if TYPE_CHECKING:
    import av

_VIDEO = "a video"
_SUFFIXES = {
    _VIDEO: "3g2 3gp 360 amv asf avi divx dv evo f4v flv gif h264 h265 hevc insv ivf lrf lrv m1v m2t m2ts m2v m4v mj2 "
    "mjpeg mjpg mkv mov movie mp4 mpe mpeg mpg mpv mxf nsv nut ogm ogv qt rm rmvb roq tod trp vob vro webm wmv wtv "
    "xvid y4m",
    "a picture": "ai apng arw avif bmp cr2 cr3 cur dds dng eps exr hdr heic heif icns ico jfif jp2 jpe jpeg jpg jxl "
    "nef orf pbm pgm png pnm ppm psd raf raw rw2 svg svgz tga thm tif tiff webp xcf",
    "audio": "aac ac3 aif aiff amr ape au dts flac m4a m4b mid midi mka mp2 mp3 oga opus ra wav wma wv",
    "text": "aae ass cfg conf csv cue edl ini json jsonl log lrc m3u m3u8 md mpd nfo pls po rst rtf sbv srt ssa "
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
# Not among them, as they name two things, are ts and mts (MPEG or TypeScript), ogg, dat, mod and the like.
_KINDS = {f".{suffix}": kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

# Folders that a NAS (Synology, QNAP) or a system keeps for itself: previews, snapshots, what was deleted or repaired.
# Windows writes its names in upper or lower case; others that begin with a dot are hidden anyway.
_SYSTEM_FOLDERS = {"@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "lost+found"}
_WINDOWS_FOLDERS = {"$recycle.bin", "system volume information"}

_HIDDEN = "hidden"
_SYSTEM = "a folder of the system"
_LIBRARY = "a library of vop"
_NO_FILE = "neither a file nor a folder"
_LISTED = "another name of a file that is listed"
_NO_VIDEO = "not a video"
_EXCLUDED = "excluded"
_PREVIEW = "a preview of another video"
_LIVE_PHOTO = "the movie of a Live Photo"
_BAD_NAME = "its name is not valid UTF-8 and cannot be stored: rename it"

# What is read of a file to tell text, and then a format: videos say what they are in their first bytes, and FFmpeg
# would look for traces in a whole megabyte of anything else.
_TEXT_BYTES, _FORMAT_BYTES = 2**10, 2**14


@dataclass(frozen=True)
class FoundFile:
    """A file that may be a video: its absolute path, its size in bytes and its time of change."""

    path: Path
    size: int
    mtime_ns: int


@dataclass
class Walk:
    """What was found.

    Attributes:
        files: that may be videos, sorted by path, each once.
        passed_over: how many files and folders were left out, by reason.
        left_out: files and folders that may hold videos and are not to be indexed: excluded ones, previews, movies of
            Live Photos.
        missing: paths that were given and cannot be looked at, with the reason.
        unreadable: files and folders that could not be looked at, with the reason; sorted. Their paths may hold
            lone surrogates, where a name is not valid UTF-8.
    """

    files: list[FoundFile] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    left_out: set[Path] = field(default_factory=set)
    missing: list[tuple[Path, str]] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    def __repr__(self) -> str:
        passed_over = self.passed_over.total()
        return f"Walk({len(self.files)} files, {passed_over} passed over, {len(self.unreadable)} unreadable)"


def find_videos(
    paths: Iterable[str | Path],
    *,
    skip: str | Path | None = None,
    exclude: Sequence[str] = (),
    live_photos: bool = False,
) -> Walk:
    """The videos among some files and below some folders.

    A file is taken for a video by its suffix; where that tells nothing, if FFmpeg finds a video stream in it. Symbolic
    links are followed, but a file is listed once, under its own name where that lies below one of the paths. Left out
    are what is hidden (its name begins with a dot), folders that a NAS or a system keeps for itself, other kinds of
    files, previews that a camera writes beside a recording, movies of Live Photos, libraries of vop, and what is not a
    file at all. A file that is given by its path is always listed, unless a glob excludes it.

    Paths may spell names in any of Unicode's forms; files are listed as the disk has them.

    Args:
        skip: a folder, or a file, to leave out.
        exclude: globs of files and folders to leave out; see `vop.search.exclude`.
        live_photos: whether to list the movies of Live Photos.

    Raises:
        UsageError: none of the paths exists.
    """
    walker = _Walker(skip, exclude, live_photos=live_photos)
    for path in paths:
        walker.begin(existing_path(absolute_path(path)))
    return walker.finish()


def absolute_path(path: str | Path) -> Path:
    """The path as the walk gives it: absolute, without `..`, symbolic links as they are."""
    path = Path(path).absolute()
    if ".." not in path.parts:
        return Path(os.path.normpath(path))
    path = existing_path(path)
    normal = Path(os.path.normpath(path))
    if normal.exists() and path.exists() and normal.samefile(path):
        return normal
    return path.resolve()  # a link stands before the `..`


def _stored(mtime_ns: int) -> int:
    """A time of change that 64 bits hold: files may claim any year."""
    return min(max(mtime_ns, -(2**63)), 2**63 - 1)


class _Walker:
    """Goes through folders, and only then through links, so that a file is met under its own name first."""

    def __init__(self, skip: str | Path | None, exclude: Sequence[str], *, live_photos: bool) -> None:
        self.walk = Walk()
        self.began = False  # whether one of the paths exists
        self.skip = None if skip is None else os.path.realpath(existing_path(skip))
        self.is_excluded = cache(partial(Exclude, exclude))  # below one of the paths that were given
        self.live_photos = live_photos
        self.files: dict[str, FoundFile] = {}  # by the real path, without links
        self.folders: list[tuple[str, str, str]] = []  # (path, real path, given path) of those still to be read
        # A heap of (path, given path): which of several links names a file must not depend on the disk's order.
        self.links: list[tuple[str, str]] = []
        self.visited: set[tuple[int, int]] = set()  # device and inode of the folders that were read

    def begin(self, path: Path) -> None:
        name = str(path)
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            self.walk.missing.append((path, getattr(error, "strerror", None) or str(error)))
            return
        if not stat.S_ISDIR(mode):
            if self.is_excluded(name)(name):
                self._leave_out(name, _EXCLUDED)
            else:
                self._take(name, os.path.realpath(name), given=True)
        elif os.path.islink(name):
            heapq.heappush(self.links, (name, name))
        else:
            self.folders.append((name, os.path.realpath(name), name))
        self.began = True

    def finish(self) -> Walk:
        if self.walk.missing and not self.began:
            path, reason = self.walk.missing[0]
            raise UsageError(f"{str(path)!r} cannot be indexed: {reason}; give files or folders that exist")
        while self.folders or self.links:
            if self.folders:
                self._folder(*self.folders.pop())
            else:
                self._link(*heapq.heappop(self.links))
        self.walk.files = sorted(self.files.values(), key=lambda file: str(file.path))
        self.walk.unreadable.sort()
        return self.walk

    def _folder(self, path: str, real: str, root: str) -> None:
        try:
            status = os.stat(path)
            with os.scandir(path) as found:
                entries = list(found)
        except OSError as error:
            self._complain(path, _explain(path, error))
            return
        identity = status.st_dev, status.st_ino
        if identity in self.visited:
            return
        self.visited.add(identity)
        if real == self.skip or _is_library(entries):
            self._pass_over(_LIBRARY)
            return
        companions = self._companions(entries, root)
        for entry in entries:
            self._entry(entry, os.path.join(real, entry.name), root, companions)

    def _companions(self, entries: list[os.DirEntry], root: str) -> dict[str, str]:
        """Files beside a recording or a picture that are not to be listed, by name, and why."""
        names = [entry.name for entry in entries if not self.is_excluded(root)(entry.path)]
        movies = set() if self.live_photos else with_pictures(names)
        return dict.fromkeys(movies, _LIVE_PHOTO) | dict.fromkeys(previews_among(names), _PREVIEW)

    def _entry(self, entry: os.DirEntry, real: str, root: str, companions: Mapping[str, str]) -> None:
        if entry.name.startswith("."):
            self._pass_over(_HIDDEN)
        elif _is_system_folder(entry):
            self._pass_over(_SYSTEM)
        elif self.is_excluded(root)(entry.path):
            self._leave_out(entry.path, _EXCLUDED)
        elif _is_companion(entry, companions):
            self._leave_out(entry.path, companions[entry.name])
        elif entry.is_symlink():
            heapq.heappush(self.links, (entry.path, root))
        elif not entry.is_dir(follow_symlinks=False):
            self._file(entry.path, real)
        elif _can_be_stored(entry.name):
            self.folders.append((entry.path, real, root))
        else:
            self._complain(entry.path, _BAD_NAME)

    def _link(self, path: str, root: str) -> None:
        real = os.path.realpath(path)
        if os.path.isdir(path):
            self.folders.append((path, real, root))
        elif real in self.files:
            self._pass_over(_LISTED)
        else:
            self._file(path, real)

    def _file(self, path: str, real: str) -> None:
        kind = _kind(path) or _VIDEO
        if kind != _VIDEO:
            self._pass_over(kind)
        elif real != self.skip:
            self._take(path, real)

    def _take(self, path: str, real: str, *, given: bool = False) -> None:
        """List a file, unless it turns out to be unreadable, or no video."""
        if real in self.files:
            return
        try:
            status = os.stat(path)
            objection = _objection(path, status.st_mode, given=given)
        except OSError as error:
            self._complain(path, _explain(path, error))
            return
        if objection and not given:
            self._pass_over(objection)
        elif objection or not _can_be_stored(path):
            self._complain(path, objection or _BAD_NAME)
        else:
            self.files[real] = FoundFile(Path(path), status.st_size, _stored(status.st_mtime_ns))

    def _pass_over(self, reason: str) -> None:
        self.walk.passed_over[reason] += 1

    def _leave_out(self, path: str, reason: str) -> None:
        self._pass_over(reason)
        self.walk.left_out.add(Path(path))

    def _complain(self, path: str, reason: str) -> None:
        self.walk.unreadable.append((Path(path), reason))


def _objection(path: str, mode: int, *, given: bool) -> str | None:
    """Why this file is not taken for a video; None if it may be one. OSError: it cannot be read."""
    if not stat.S_ISREG(mode):
        return _NO_FILE
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return None if given or _kind(path) == _VIDEO else _look_into(path)


def _explain(path: str, error: OSError) -> str:
    if os.path.islink(path) and not os.path.exists(path):
        return "a symbolic link that leads nowhere"
    return error.strerror or str(error)


def _is_system_folder(entry: os.DirEntry) -> bool:
    return (entry.name in _SYSTEM_FOLDERS or entry.name.lower() in _WINDOWS_FOLDERS) and entry.is_dir()


def _is_companion(entry: os.DirEntry, companions: Mapping[str, str]) -> bool:
    reason = companions.get(entry.name)
    return reason is not None and entry.is_file() and (reason == _PREVIEW or is_live_photo(entry.path))


def _is_library(entries: list[os.DirEntry]) -> bool:
    kinds = {entry.name: os.path.isdir(entry.path) for entry in entries if entry.name in ("library.json", "database")}
    return kinds == {"library.json": False, "database": True}


def _kind(path: str) -> str | None:
    """What a file is by its suffix; None: that tells nothing."""
    return _KINDS.get(os.path.splitext(path)[1].lower())


def _can_be_stored(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _look_into(path: str) -> str | None:
    """Why this file, of which the name tells nothing, is not taken for a video; None if it may be one."""
    with open(path, "rb") as file:
        if _is_text(file.read(_TEXT_BYTES)):
            return "text"
    try:
        with open_video(Path(path), format_bytes=_FORMAT_BYTES) as (container, _):
            return _no_container(container.format)
    except VideoError:
        return _NO_VIDEO


def _is_text(start: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # which may end within a letter
    except UnicodeDecodeError:
        return False
    return all(letter >= " " or letter in "\t\n\r\f\x1b" for letter in text)


def _no_container(file_format: av.ContainerFormat) -> str | None:
    """Why this format does not speak for a video, although FFmpeg sees one in it."""
    if file_format.name.endswith("_pipe") or file_format.name in ("image2", "ico"):
        return "a picture"  # FFmpeg has a demuxer for each kind of picture, and makes one frame of it
    # A bare stream has no signature: FFmpeg takes a program or a table of times for one now and then.
    return _NO_VIDEO if file_format.flags & Flags.no_timestamps.value else None
