"""A video's frames as PyTorch takes them."""

from __future__ import annotations

from pathlib import Path

import torch

from vop.video.aspect import DISPLAY
from vop.video.decode import decode_frames


def read_frames(
    path: str | Path,
    num_frames: int = 12,
    size: int = 224,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    *,
    aspect: str = DISPLAY,
    stream: int | None = None,
    threads: int = 1,
) -> torch.Tensor:
    """The frames on display in the middle of `num_frames` equal intervals of a video, or of a clip of it.

    Args:
        size: height and width of the result: the shorter side is scaled to it, and the centre cropped.
        start_seconds, end_seconds: the clip, counted from the video's first frame; None: the end of the video.
        aspect: "display" gives pictures the shape in which players show them; "stored" takes pixels as squares
            whatever the file says, as most published pipelines do.
        stream: a video stream by its number in the file; by default the one that FFmpeg's command takes.
        threads: of the decoder.

    Returns:
        uint8 tensor (num_frames, 3, size, size), RGB.

    Raises:
        VideoError: no frame can be had; it names the file and the reason.
        UsageError: an argument is out of range.
    """
    clip = {"start_seconds": start_seconds, "end_seconds": end_seconds}
    frames = decode_frames(
        path, num_frames=num_frames, size=size, **clip, aspect=aspect, stream=stream, threads=threads
    )
    return torch.from_numpy(frames)
