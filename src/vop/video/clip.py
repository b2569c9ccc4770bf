"""A part of a video."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Clip:
    """The part of a video from `start_seconds` on and up to, but without, `end_seconds`, on the video's own clock.

    Attributes:
        end_seconds: None for the end of the video.
    """

    start_seconds: float = 0.0
    end_seconds: float | None = None
