"""Create the files of clips to keep, and the streams of copied clips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from vop.video.source import open_video

SHORT = Fraction(1, 1000)  # seconds; a frame is not shown for less, and times of segments are rounded

_OPTIONS = {"movflags": "+faststart", "max_interleave_delta": "0"}
_QUICKTIME = ("mp4", "mov")
_KEPT_TAGS = ("title", "date", "creation_time", "location", "artist", "comment")


def new_output(temporary: Path, container: str, *, source: Path) -> av.container.OutputContainer:
    """Create a file that has the tags of `source`."""
    with open_video(source) as (tagged, _):
        given = {name.lower(): value for name, value in tagged.metadata.items()}
    output = av.open(f"file:{temporary}", "w", format=container, container_options=_OPTIONS)
    output.metadata.update({name: given[name] for name in _KEPT_TAGS if given.get(name)})
    return output


def copied_stream(stream: av.VideoStream, output: av.container.OutputContainer) -> av.VideoStream:
    """Return a new stream of `output` for the packets of a file's stream, with what only the container tells."""
    copied = output.add_stream_from_template(stream, opaque=True)
    codec, name = copied.codec_context, stream.codec_context.codec.canonical_name
    if stream.sample_aspect_ratio:
        codec.sample_aspect_ratio = stream.sample_aspect_ratio
    if name == "hevc" and output.format.name in _QUICKTIME:
        codec.codec_tag = "hvc1"  # the only tag that Apple's players accept
    elif name != "h264" and stream.container.format.name.startswith("mov") and output.format.name in _QUICKTIME:
        codec.codec_tag = stream.codec_context.codec_tag  # tells variants apart, as those of Hap and ProRes
    if _has_alpha_beside(stream):
        codec.pix_fmt = "yuva420p"  # the sign for Matroska's writer to declare the alpha channel
    return copied


def _has_alpha_beside(stream: av.VideoStream) -> bool:
    """Return whether VP8 or VP9 packets have an alpha channel as side data. Names of tags are in either case."""
    return any(name.lower() == "alpha_mode" and value == "1" for name, value in stream.metadata.items())
