"""How much of a video is read at most: a number with zeros too many ends with an error, not without memory."""

from __future__ import annotations

from vop.errors import UsageError

MAX_FRAMES = 4096
MAX_SIZE = 4096  # pixels
MAX_BYTES = 2 * 2**30  # of the frames of one video


def check_frames(num_frames: int, size: int) -> None:
    """Raises a UsageError unless `num_frames` frames of `size` x `size` pixels can be read of a video."""
    if num_frames < 1:
        raise UsageError(f"num_frames is {num_frames}; at least 1 is needed")
    if num_frames > MAX_FRAMES:
        raise UsageError(f"num_frames is {num_frames}; at most {MAX_FRAMES} are read of a video")
    if size < 1:
        raise UsageError(f"size is {size}; at least 1 pixel is needed")
    if size > MAX_SIZE:
        raise UsageError(f"size is {size}; at most {MAX_SIZE} pixels are read")
    if num_frames * 3 * size * size > MAX_BYTES:
        raise UsageError(
            f"num_frames is {num_frames} and size {size}: {num_frames * 3 * size * size:,} bytes a video; "
            f"at most {MAX_BYTES:,} are read"
        )
