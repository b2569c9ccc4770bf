"""A moment of any video as an MP4 file: its pictures, copied if they can be, and its sound."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain
from pathlib import Path

import av

from vop.errors import UsageError, VideoError
from vop.server.media.copied import copied_pictures
from vop.server.media.encoded import encoded_pictures
from vop.server.media.reading import Moment, find_moment
from vop.server.media.sound import sound_packets
from vop.utils.files import atomic_write

MOMENT_VERSION = 3  # counts changes of what `write_moment` gives; a cache makes those of another version again

# The index comes first, so that playing begins before all is loaded. Times before 0 are what an edit list cuts off.
# Sound and pictures come one after the other and are interleaved by the muxer, however far apart they are.
_MP4 = {"movflags": "+faststart", "avoid_negative_ts": "disabled", "max_interleave_delta": "0"}


def write_moment(
    path: str | Path,
    out: str | Path,
    *,
    start_seconds: float,
    end_seconds: float,
    duration_seconds: float | None = None,
    max_seconds: float = 60.0,
) -> None:
    """Write a stretch of a video as an MP4 (H.264 and AAC) whose time begins at 0.

    Args:
        start_seconds, end_seconds: counted from the video's first frame; an end after the video's own is its own.
        duration_seconds: of the whole video, if it is known: saves reading formats through whose clock may jump.
        max_seconds: where the moment is cut off if it is longer.

    Raises:
        VideoError: the file cannot give this moment.
        UsageError: an argument is out of range.
        VopError: `out` cannot be written.
    """
    path = Path(path)
    _check_span(start_seconds, end_seconds, max_seconds)
    end_seconds = min(end_seconds, start_seconds + max_seconds)
    moment = find_moment(path, Fraction(start_seconds), Fraction(end_seconds), duration_seconds=duration_seconds)
    with atomic_write(out, durable=False) as temporary:
        if not (moment.copyable and _copies(moment, temporary)):
            try:
                _write(moment, temporary, copy=False)
            except (av.FFmpegError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise VideoError(path, f"this moment cannot be made into an MP4: {reason}") from error


def _check_span(start_seconds: float, end_seconds: float, max_seconds: float) -> None:
    if not 0 <= start_seconds < float("inf"):
        raise UsageError(f"start_seconds is {start_seconds}; it counts from the first frame, 0 or later")
    if not start_seconds < end_seconds < float("inf"):
        raise UsageError(f"end_seconds is {end_seconds}; it must come after start_seconds, {start_seconds}")
    if not 0 < max_seconds < float("inf"):
        raise UsageError(f"max_seconds is {max_seconds}; it must be more than 0")


def _copies(moment: Moment, temporary: Path) -> bool:
    """Whether the moment could be written without encoding its pictures."""
    try:
        _write(moment, temporary, copy=True)
    except (av.FFmpegError, ValueError, VideoError):  # times, key frames or parameters that an MP4 cannot hold
        return False
    return True


def _write(moment: Moment, temporary: Path, *, copy: bool) -> None:
    with av.open(f"file:{temporary}", "w", format="mp4", container_options=_MP4) as output:
        pictures = (copied_pictures if copy else encoded_pictures)(moment, output)
        first = next(pictures, None)
        if first is None:
            late = float(moment.start - moment.first)
            raise VideoError(moment.path, f"nothing is shown {late:.3f} s after its start")
        # All streams have to be known before the first packet is written.
        sound = sound_packets(moment, output, copy=copy)
        for packet in chain(sound, [first], pictures):
            output.mux(packet)
