"""Names of exported files that every file system takes, and reel names of an EDL."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from vop.errors import VopError
from vop.storage.address import location
from vop.utils.names import nfc
from vop.utils.text import on_one_line

_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')  # by Windows, NTFS and exFAT
_NUMBERED = re.compile(r"(\d{3,}) .+ \d{2,}\.\d\d\.\d\d-\d{2,}\.\d\d\.\d\d\.\w+")  # as `clip_name` names files
_MOST_BYTES = 150  # of a video's name; file systems allow 255 for the whole name, and numbers and times follow
_REEL = 8  # characters, A to Z and 0 to 9, in CMX 3600
_RESERVED_REELS = {"AX", "BL"}  # an auxiliary source, and black


def clip_name(path: str, start_seconds: float, end_seconds: float, *, number: int | None = None) -> str:
    """Return the name of a moment's file without its suffix, such as `003 holiday 00.01.20-00.01.30`."""
    front = "" if number is None else f"{number:03d} "
    return f"{front}{safe(PurePath(video_name(path)).stem)} {_clock(start_seconds)}-{_clock(end_seconds)}"


def next_number(folder: Path) -> int:
    """Return the number after the highest one of the moments in a folder; 1 if there are none or it does not exist."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))), default=0) + 1


@contextmanager
def reserved_number(folder: Path) -> Iterator[int]:
    """Reserve `next_number` of a folder during the block, also against other processes. The folder is made if needed.

    A hidden file stands for the number. One that a killed process leaves behind keeps its number from being used.

    Raises:
        VopError: nothing can be written into the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number, reservation = _reserve(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise VopError(f"{folder}: nothing can be written into it ({reason}); free space, or choose another") from error
    try:
        yield number
    finally:
        reservation.unlink(missing_ok=True)


def _reserve(folder: Path) -> tuple[int, Path]:
    number = next_number(folder)
    while True:
        reservation = folder / f".{number:03d}.reserved"
        try:
            reservation.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        following = next_number(folder)
        if following <= number:
            return number, reservation
        reservation.unlink()  # another process has used the number, and has just finished
        number = following


def video_name(path: str) -> str:
    """Return the name of a video's file or object."""
    return location(path).name


def safe(text: str) -> str:
    """Return a name with the same letters that Linux, macOS and Windows can store."""
    name = _FORBIDDEN.sub("_", on_one_line(nfc(text))).strip(" .")
    while len(name.encode()) > _MOST_BYTES:
        name = name[:-1].rstrip(" .")
    return name or "video"


def _clock(seconds: float) -> str:
    """Format seconds as 00.01.23, because no file system allows colons everywhere."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}.{minutes:02d}.{rest:02d}"


def reel_names(paths: Iterable[str]) -> dict[str, str]:
    """Return a reel name for each path: its name's first letters and digits, and a number where two are equal."""
    found: dict[str, str] = {}
    for path in paths:
        if path not in found:
            found[path] = _free_reel(PurePath(video_name(path)).stem, set(found.values()))
    return found


def _free_reel(stem: str, taken: set[str]) -> str:
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    reel = re.sub("[^A-Z0-9]", "", plain.upper())[:_REEL] or "REEL"
    number, name = 1, reel
    while name in taken or name in _RESERVED_REELS:
        number += 1
        name = f"{reel[: _REEL - len(str(number))]}{number}"
    return name
