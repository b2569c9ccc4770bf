"""Opens a moment in a player on this machine, at its time where the player takes one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vop.errors import UsageError, VideoError, VopError
from vop.storage.address import Address, location

# The words of each player's command, by its name on PATH; the first that is installed is used.
_PLAYERS: Mapping[str, Callable[[float, str], list[str]]] = {
    "mpv": lambda seconds, path: [f"--start={seconds:.3f}", "--", path],
    "vlc": lambda seconds, path: [f"--start-time={seconds:.3f}", path],
}
_OPENERS = {"darwin": "open"}  # elsewhere xdg-open


@dataclass(frozen=True)
class Opened:
    """A player that was started.

    Attributes:
        at_time: whether it was told where to begin.
    """

    name: str
    at_time: bool
    process: subprocess.Popen[bytes]


def open_moment(path: str, start_seconds: float) -> Opened:
    """Starts mpv or VLC at a time of a video, else the default program without a time. Does not wait for it.

    Raises:
        UsageError: the video is an object, which players do not open.
        VideoError: the file does not exist.
        VopError: there is no player.
    """
    place = location(path)
    if isinstance(place, Address):
        raise UsageError(f"{path}: players cannot open object storage; export a clip instead: --export FOLDER")
    file = Path(place).absolute()
    if not file.exists():
        raise VideoError(file, "the file does not exist, so it cannot be opened")
    for name, words in _PLAYERS.items():
        program = shutil.which(name)
        if program:
            return Opened(name, True, _start([program, *words(start_seconds, str(file))]))
    opener = _OPENERS.get(sys.platform, "xdg-open")
    program = shutil.which(opener)
    if not program:
        raise VopError(f"no player was found: install {' or '.join(_PLAYERS)}, or open {file} yourself")
    return Opened(opener, False, _start([program, str(file)]))


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """Starts a program that outlives this one and does not write to the terminal."""
    quiet = subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError as error:
        raise VopError(f"{command[0]}: it cannot be started: {error.strerror}") from error
