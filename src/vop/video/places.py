"""Find out where a video was recorded, from the metadata of the file.

Cameras and phones write the position by ISO 6709, such as +48.2082+016.3738+151/ (latitude, longitude, height). FFmpeg
names it

com.apple.quicktime.location.ISO6709    Apple's tag in MOV and MP4; exports and edits keep it
location                                `©xyz` or `loci` of MP4 and MOV, as Android and DJI write it; Matroska's tag

0, 0 stands for "no position yet". It is not a place, like everything that is not on the globe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_TAGS = ("com.apple.quicktime.location.iso6709", "location", "location-eng")
_NUMBER = r"\d+(?:\.\d+)?"
_ISO_6709 = re.compile(
    rf"(?P<latitude>[-+]{_NUMBER})(?P<longitude>[-+]{_NUMBER})(?:[-+]{_NUMBER})?(?:CRS[\w:./-]*)?/?", re.ASCII
)
_DEGREES = re.compile(rf"(?P<latitude>[-+]?{_NUMBER})\s*[,;]\s*(?P<longitude>[-+]?{_NUMBER})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place on the globe, in degrees: north and east are positive."""

    latitude: float
    longitude: float


def recording_place(container: Mapping[str, str], stream: Mapping[str, str]) -> Place | None:
    """Return where a video was recorded; None if its metadata does not say.

    Args:
        container, stream: metadata of the file and of its video stream, with FFmpeg's names.
    """
    metadata = [{tag.lower(): value for tag, value in tags.items()} for tags in (container, stream)]
    for tag in _TAGS:
        for tags in metadata:
            place = parse_place(tags.get(tag, ""))
            if place is not None:
                return place
    return None


def parse_place(text: str) -> Place | None:
    """Read a position by ISO 6709, or two numbers of degrees with a comma between them; None if it is not a place."""
    text = text.strip(" \t\r\n\0")
    found = _ISO_6709.fullmatch(text)
    if found:
        latitude, longitude = _degrees(found["latitude"], 2), _degrees(found["longitude"], 3)
    elif found := _DEGREES.fullmatch(text):
        latitude, longitude = float(found["latitude"]), float(found["longitude"])
    else:
        return None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180) or (latitude, longitude) == (0, 0):
        return None
    return Place(latitude=latitude, longitude=longitude)


def _degrees(text: str, digits: int) -> float:
    """Read degrees, degrees with minutes, or degrees with minutes and seconds; NaN if there are too many digits.

    Args:
        digits: digits of whole degrees. The digits before the point tell the three forms apart.
    """
    sign, whole, fraction = (-1 if text[0] == "-" else 1), *text[1:].partition(".")[::2]
    if len(whole) <= digits:
        return float(text)
    if len(whole) not in (digits + 2, digits + 4):
        return math.nan
    degrees, rest = int(whole[:digits]), whole[digits:]
    parts = [float(rest[at : at + 2]) for at in range(0, len(rest), 2)]
    parts[-1] += float(f"0.{fraction or 0}")
    if any(part >= 60 for part in parts):
        return math.nan
    return sign * (degrees + sum(part / 60**power for power, part in enumerate(parts, start=1)))
