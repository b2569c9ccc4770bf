"""Read a picture as a video whose frames are all equal."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vop.errors import UsageError, VideoError
from vop.utils.names import existing_path
from vop.video.colour import over_ground
from vop.video.resizing import Resizing
from vop.video.shape import square
from vop.video.source import MAX_PIXELS

# Pillow also reads EPS, by starting another program, and GIF, but most GIF files are videos.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP")

_MOST = f"more than {MAX_PIXELS // 2**20} megapixels"


def picture_frames(path: str | Path, *, num_frames: int, resizing: Resizing) -> np.ndarray:
    """Return a picture `num_frames` times, prepared like a video's frames. Of an animation, take the first frame.

    Transparent pixels are blended with grey, as in videos.

    Args:
        resizing: how the picture becomes a square.

    Returns:
        uint8 array (num_frames, 3, size, size).

    Raises:
        VideoError: the picture cannot be read. The error names the file and the reason.
        UsageError: an argument is out of range.
    """
    if num_frames < 1:
        raise UsageError(f"num_frames is {num_frames}; at least 1 is needed")
    return np.tile(square(_read(Path(path)), resizing=resizing), (num_frames, 1, 1, 1))


def is_picture(path: str | Path) -> bool:
    """Return whether the file begins like a picture that `picture_frames` reads. The rest may be damaged."""
    try:
        with _quiet(), _open(path):
            return True
    except Image.DecompressionBombError:
        return True
    except (OSError, ValueError):  # UnidentifiedImageError is an OSError
        return False


def is_animation(path: str | Path) -> bool:
    """Return whether the file is a picture in a supported format with more than one frame."""
    try:
        with _quiet(), _open(path) as image:
            return getattr(image, "is_animated", False)
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def _open(path: str | Path) -> Image.Image:
    return Image.open(existing_path(path), formats=FORMATS)


def _read(path: Path) -> np.ndarray:
    """Return pixels, uint8 (h, w, 3)."""
    try:
        with _quiet(), _open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(path, f"its header claims {image.width} x {image.height} pixels, {_MOST}")
            return np.array(opaque_rgb(ImageOps.exif_transpose(image)))
    except (VideoError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise VideoError(path, f"its header claims {_MOST}") from error
    except FileNotFoundError as error:
        raise VideoError(path, "the file does not exist") from error
    except UnidentifiedImageError as error:
        raise VideoError(
            path, f"this is not a supported picture; supported formats are {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # damaged data makes Pillow's readers raise OSError, SyntaxError, IndexError and others
        raise VideoError(path, f"the picture is damaged: {error}") from error


def opaque_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB, and blend transparent pixels with grey."""
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey to 255 instead of scaling it
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # grey multiplied by alpha, which Pillow converts only in two steps
        image = image.convert("LA")
    image = image.convert("RGBA")
    return over_ground(image, image.getchannel("A"))


def _quiet() -> warnings.catch_warnings:
    """Silence Pillow's warning about large pictures. They are rejected here."""
    return warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
