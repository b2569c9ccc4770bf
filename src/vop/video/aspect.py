"""Whether the shape of a file's pixels counts."""

from __future__ import annotations

from vop.errors import unknown_name

DISPLAY, STORED = "display", "stored"
ASPECTS = (DISPLAY, STORED)


def check_aspect(aspect: str) -> None:
    """Raise a UsageError if `aspect` is not one of `ASPECTS`."""
    if aspect not in ASPECTS:
        raise unknown_name("aspect", aspect, ASPECTS)
