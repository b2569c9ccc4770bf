"""Open the files of clips to keep."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from vop.video.source import open_video

SHORT = Fraction(1, 1000)  # seconds; a frame is not shown for less, and times of segments are rounded

_OPTIONS = {"movflags": "+faststart", "max_interleave_delta": "0"}
_KEPT_TAGS = ("title", "date", "creation_time", "location", "artist", "comment")


def new_output(temporary: Path, container: str, *, source: Path) -> av.container.OutputContainer:
    """Create a file that has the tags of `source`."""
    with open_video(source) as (tagged, _):
        given = {name.lower(): value for name, value in tagged.metadata.items()}
    output = av.open(f"file:{temporary}", "w", format=container, container_options=_OPTIONS)
    output.metadata.update({name: given[name] for name in _KEPT_TAGS if given.get(name)})
    return output
