"""The formats of an export, and which one a path names."""

from __future__ import annotations

from pathlib import Path

from vop.errors import UsageError
from vop.video.kinds import VIDEO_SUFFIXES

CLIPS = "clips"
LISTS = ("csv", "json", "edl", "fcpxml", "otio")  # one file for all moments
SUBTITLES = ("srt", "vtt")
FORMATS = (CLIPS, *LISTS, *SUBTITLES)


def format_of(path: Path, given: str | None = None) -> str:
    """Return the format of an export to `path`: the given one, else that of its suffix, else clips in a folder.

    Raises:
        UsageError: the format is unknown, or the path cannot hold it.
    """
    suffix = path.suffix.lower()
    named = suffix.removeprefix(".") if not path.is_dir() else ""
    if given is not None and given not in FORMATS:
        raise UsageError(f"format is {given!r}; choose one of {', '.join(FORMATS)}")
    if given is None and named in FORMATS[1:]:
        given = named
    if suffix in VIDEO_SUFFIXES and not path.is_dir():
        raise UsageError(f"{path}: clips are written to a folder: give the folder's name, such as {path.stem}")
    if given is None and suffix and not path.exists():
        raise UsageError(
            f"{path}: the suffix {suffix} is not that of a list (.{', .'.join(LISTS)}); give a folder for clips, or a "
            "format"
        )
    if given in LISTS and path.is_dir():
        raise UsageError(
            f"{path}: this is a folder, and {given} is one file: give a name such as {path / 'moments'}.{given}"
        )
    if given not in LISTS and path.is_file() and named not in SUBTITLES:
        raise UsageError(f"{path}: this is a file; {given or CLIPS} are written to a folder")
    return given or CLIPS
