"""Write a clip of any video as an MP4 file, without encoding its pictures again if possible."""

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

CLIP_VERSION = 4  # increase it when `export_clip` changes, so that caches export their clips again

# The index comes first, so that playback begins before the whole file is loaded. An edit list hides times before 0.
# Audio and pictures are passed to the muxer one after the other, so it must interleave packets that are far apart.
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
        start_seconds, end_seconds: the clip, counted from the video's first frame. It ends with the video at the
            latest.
        duration_seconds: the duration of the whole video, if known. With it, formats whose clock may jump need not be
            read as a whole.
        max_seconds: maximum length. A longer clip is cut off.

    Raises:
        VideoError: the file cannot be read, or shows nothing in this clip.
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
        raise UsageError(f"start_seconds is {start_seconds}; it must be 0 or more, counted from the first frame")
    if not start_seconds < end_seconds < float("inf"):
        raise UsageError(f"end_seconds is {end_seconds}; it must be more than start_seconds, {start_seconds}")
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
        # The muxer must know all streams before the first packet.
        audio = audio_packets(clip, output, copy=copy)
        for packet in chain(audio, [first], pictures):
            output.mux(packet)
