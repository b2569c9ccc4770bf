"""Save clips for people to keep: copied from a key frame on, or cut at exact times and encoded at high quality.

`export_clip` makes small files for the page instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath

import av

from vop.errors import UsageError, VideoError
from vop.utils.files import atomic_write
from vop.video.clip_export.copying import copy_clip
from vop.video.clip_export.cutting import cut_clip
from vop.video.clip_export.source import find_clip

SAVED_VERSION = 2  # increase it when `save_clip` changes, so that caches save their clips again

# Containers that a copy keeps. All others, such as AVI, cannot hold every stream with its times: Matroska can.
_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}
_SAME = {".m4v": ".mp4", ".mts": ".ts", ".m2ts": ".ts"}
_OTHERS = ".mkv"


@dataclass(frozen=True, kw_only=True)
class SavedClip:
    """A clip that was saved, with its times in the video.

    Attributes:
        start_seconds: when the clip begins. A copy begins at a key frame, at or before the wanted time.
        lead_seconds: how much earlier than wanted it begins.
        copied: whether the pictures are those of the file, not encoded again.
    """

    start_seconds: float
    lead_seconds: float
    copied: bool


def saved_suffix(path: str | PurePath, *, exact: bool = False) -> str:
    """Return the suffix of a clip of this file, such as `.mp4`. Exact clips are MP4 files."""
    suffix = PurePath(path).suffix.lower()
    suffix = _SAME.get(suffix, suffix)
    return ".mp4" if exact else suffix if suffix in _CONTAINERS else _OTHERS


def save_clip(
    path: str | Path,
    out: str | Path,
    *,
    start_seconds: float,
    end_seconds: float,
    duration_seconds: float | None = None,
    exact: bool = False,
) -> SavedClip:
    """Write a clip of a video with its main audio, in the format of the file if possible.

    Without `exact`, pictures and audio are copied from the key frame at or before the start, up to the end or a few
    frames later. What cannot be copied, or would not look like the file, is encoded, in WebM as VP9 with Opus. Exact
    clips have the wanted frames only, at their times: H.264, or HEVC for more than 8 bits per channel, in the file's
    size, shape, rotation and colours, with AAC.

    Args:
        out: the file to write. Its format is that of `saved_suffix`.
        start_seconds, end_seconds: the clip, counted from the video's first frame.
        duration_seconds: the duration of the whole video, if known.
        exact: whether to cut exactly at these times.

    Raises:
        VideoError: the file cannot be read, shows nothing in this clip, or its format cannot be written.
        UsageError: a time is not allowed.
        VopError: `out` cannot be written.
    """
    path = Path(path)
    if not 0 <= start_seconds < end_seconds < float("inf"):
        raise UsageError(
            f"the clip from {start_seconds} to {end_seconds} s is empty: its start must be 0 or more, and its end later"
        )
    clip = find_clip(path, Fraction(start_seconds), Fraction(end_seconds), duration_seconds=duration_seconds)
    with atomic_write(out) as temporary:
        container = _CONTAINERS[saved_suffix(path, exact=exact)]
        begins = None if exact else copy_clip(clip, temporary, container)
        if begins is None:
            try:
                cut_clip(clip, temporary, container)
            except (av.FFmpegError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                advice = "" if exact else "; cut it exactly"
                raise VideoError(path, f"this clip cannot be written as {container}: {reason}{advice}") from error
    start = begins if begins is not None else clip.start
    return SavedClip(
        start_seconds=round(float(start - clip.first), 6),
        lead_seconds=round(max(float(clip.start - start), 0.0), 6),
        copied=begins is not None,
    )
