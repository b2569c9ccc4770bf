"""Which filesystem a file is on. It tells a file that was deleted from one on a drive that is not mounted."""

from __future__ import annotations

import os
from pathlib import Path


def volume_of(folder: str | Path) -> str | None:
    """The filesystem of a folder as text: its identity and its mount point, such as `9f3a… /media/usb`.

    Returns:
        None if the folder does not answer.
    """
    try:
        mount = _mount_point(os.path.realpath(folder))
        return f"{os.statvfs(mount).f_fsid:x} {mount}"
    except OSError:
        return None


def mount_point(volume: str) -> str:
    """The mount point of what `volume_of` gave."""
    return volume.partition(" ")[2]


def _mount_point(folder: str) -> str:
    device = os.stat(folder).st_dev
    while (parent := os.path.dirname(folder)) != folder and os.stat(parent).st_dev == device:
        folder = parent
    return folder
