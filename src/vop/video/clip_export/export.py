"""A clip of any video as an MP4 file: its pictures, copied if possible, and its audio."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain
from pathlib import Path

import av

from vop.errors import UsageError, VideoError
from vop.utils.files import atomic_write
from vop.video.clip_export.audio import audio_packets
from vop.video.clip_export.remux import copied_pictures
from vop.video.clip_export.source import ClipSource, find_clip
from vop.video.clip_export.transcode import encoded_pictures

CLIP_VERSION = 3  # increase when `export_clip` changes: caches then export their clips again

# The index comes first, so that playback begins before the whole file is loaded. An edit list cuts off times before 0.
# Audio and pictures are written one after the other, and the muxer interleaves them however far apart they are.
_MP4 = {"movflags": "+faststart", "avoid_negative_ts": "disabled", "max_interleave_delta": "0"}


def export_clip(
    path: str | Path,
    out: str | Path,
    *,
    start_seconds: float,
    end_seconds: float,
    duration_seconds: float | None = None,
    max_seconds: float = 60.0,
) -> None:
    """Write a clip of a video as an MP4 (H.264 and AAC) whose time begins at 0.

    Args:
        start_seconds, end_seconds: from the video's first frame. The clip ends with the video at the latest.
        duration_seconds: the duration of the whole video, if known. It saves reading the whole file if its format lets
            the clock jump.
        max_seconds: a longer clip is cut off here.

    Raises:
        VideoError: the file has no such clip, or cannot be read.
        UsageError: an argument is out of range.
        VopError: `out` cannot be written.
    """
    path = Path(path)
    _check_times(start_seconds, end_seconds, max_seconds)
    end_seconds = min(end_seconds, start_seconds + max_seconds)
    clip = find_clip(path, Fraction(start_seconds), Fraction(end_seconds), duration_seconds=duration_seconds)
    with atomic_write(out, durable=False) as temporary:
        if not (clip.copyable and _copies(clip, temporary)):
            try:
                _write(clip, temporary, copy=False)
            except (av.FFmpegError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise VideoError(path, f"this clip cannot be written as an MP4: {reason}") from error


def _check_times(start_seconds: float, end_seconds: float, max_seconds: float) -> None:
    if not 0 <= start_seconds < float("inf"):
        raise UsageError(f"start_seconds is {start_seconds}; it counts from the first frame, 0 or later")
    if not start_seconds < end_seconds < float("inf"):
        raise UsageError(f"end_seconds is {end_seconds}; it must come after start_seconds, {start_seconds}")
    if not 0 < max_seconds < float("inf"):
        raise UsageError(f"max_seconds is {max_seconds}; it must be more than 0")


def _copies(clip: ClipSource, temporary: Path) -> bool:
    """Write the clip without encoding its pictures; return whether that was possible."""
    try:
        _write(clip, temporary, copy=True)
    except (av.FFmpegError, ValueError, VideoError):  # times, key frames or parameters that an MP4 cannot hold
        return False
    return True


def _write(clip: ClipSource, temporary: Path, *, copy: bool) -> None:
    with av.open(f"file:{temporary}", "w", format="mp4", container_options=_MP4) as output:
        pictures = (copied_pictures if copy else encoded_pictures)(clip, output)
        first = next(pictures, None)
        if first is None:
            late = float(clip.start - clip.first)
            raise VideoError(clip.path, f"nothing is shown {late:.3f} s after its start")
        # All streams have to be known before the first packet is written.
        audio = audio_packets(clip, output, copy=copy)
        for packet in chain(audio, [first], pictures):
            output.mux(packet)
