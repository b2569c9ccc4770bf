"""The part of a video to read (a clip), the number and shape of its frames, and limits for these values.

The limits turn a mistyped number into an error before it fills the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from vop.errors import UsageError, unknown_name
from vop.video.resizing import Resizing

# Version of decoding. Increase it when other frames are chosen, or when pixels change by more than rounding. Cached
# frames of another version are not used, and a library reports which videos an earlier version decoded.
DECODER_VERSION = 4

MAX_FRAMES = 4096
MAX_BYTES = 2 * 2**30  # for the frames of one video

DISPLAY, STORED = "display", "stored"
ASPECTS = (DISPLAY, STORED)  # the shape of a picture in players, or of its stored pixels


@dataclass(frozen=True, order=True)
class Clip:
    """The part of a video from `start_seconds` up to `end_seconds`, counted from the video's first frame.

    Attributes:
        end_seconds: None for the end of the video.
    """

    start_seconds: float = 0.0
    end_seconds: float | None = None


WHOLE_VIDEO = Clip()


def check_request(*, num_frames: int, resizing: Resizing, clip: Clip = WHOLE_VIDEO) -> None:
    """Raise a UsageError unless `num_frames` frames of this size can be read from a clip."""
    check_frames(num_frames, resizing)
    start, end = clip.start_seconds, clip.end_seconds
    if not 0 <= start < float("inf"):
        raise UsageError(f"start_seconds is {start}; it must be 0 or more, counted from the first frame")
    if end is not None and not start < end < float("inf"):
        raise UsageError(f"end_seconds is {end}; it must be more than start_seconds, {start}")


def check_frames(num_frames: int, resizing: Resizing) -> None:
    """Raise a UsageError unless `num_frames` frames of this size can be read from a video."""
    size = resizing.size
    if num_frames < 1:
        raise UsageError(f"num_frames is {num_frames}; at least 1 is needed")
    if num_frames > MAX_FRAMES:
        raise UsageError(f"num_frames is {num_frames}; at most {MAX_FRAMES} are read from a video")
    if num_frames * 3 * size * size > MAX_BYTES:
        raise UsageError(
            f"num_frames is {num_frames} and size is {size}: that takes {num_frames * 3 * size * size:,} bytes per "
            f"video; at most {MAX_BYTES:,} are read"
        )


def check_aspect(aspect: str) -> None:
    """Raise a UsageError if `aspect` is not one of `ASPECTS`."""
    if aspect not in ASPECTS:
        raise unknown_name("aspect", aspect, ASPECTS)
