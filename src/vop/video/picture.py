"""A picture as a video that stands still."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from vop.errors import UsageError, VideoError
from vop.video.decode import MAX_PIXELS
from vop.video.pixels import square

# Pillow knows more, but some of it starts other programs (EPS), and GIF files are videos more often than not.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP")

_TOO_LARGE = f"its header claims more than {MAX_PIXELS // 2**20} megapixels"


def picture_frames(path: str | Path, *, num_frames: int, size: int) -> torch.Tensor:
    """A picture, upright and prepared as a video's frames are, `num_frames` times.

    Args:
        size: height and width of the result: shorter side to `size`, bicubic, centre crop.

    Returns:
        uint8 tensor (num_frames, 3, size, size).

    Raises:
        VideoError: this is no picture that can be read; it names the file and the reason.
        UsageError: an argument is out of range.
    """
    if num_frames < 1:
        raise UsageError(f"num_frames is {num_frames}; at least 1 is needed")
    if size < 1:
        raise UsageError(f"size is {size}; at least 1 pixel is needed")
    pixels = torch.from_numpy(_read(Path(path)))
    return square(pixels, size=size).expand(num_frames, -1, -1, -1).contiguous()


def is_picture(path: str | Path) -> bool:
    """Whether the file begins as a picture does that `picture_frames` reads; what follows may still be damaged."""
    try:
        with _quiet(), Image.open(path, formats=FORMATS):
            return True
    except Image.DecompressionBombError:
        return True
    except (OSError, ValueError):  # UnidentifiedImageError is an OSError
        return False


def _read(path: Path) -> np.ndarray:
    """Pixels (h, w, 3)."""
    try:
        with _quiet(), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(path, _TOO_LARGE)
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (VideoError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise VideoError(path, _TOO_LARGE) from error
    except FileNotFoundError as error:
        raise VideoError(path, "there is no such file") from error
    except UnidentifiedImageError as error:
        raise VideoError(path, f"this is not a picture that can be read; {', '.join(FORMATS)} can") from error
    except (
        Exception
    ) as error:  # whatever Pillow's readers trip over in damaged data: OSError, SyntaxError, IndexError …
        raise VideoError(path, f"the picture is damaged: {error}") from error


def _quiet() -> warnings.catch_warnings:
    """Pillow warns of large pictures; here they are refused."""
    return warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
