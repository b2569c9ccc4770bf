"""The preprocessing of pixels: mean and standard deviation, and the file that holds them."""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from typing import Any

from vop.errors import VopError
from vop.utils.parsing import read_json_object

FILE = "preprocessor_config.json"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's


def read_preprocessing(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of pixels in [0, 1], per colour channel. The defaults are OpenAI's.

    Raises:
        VopError: the folder's file is damaged, or a value is not allowed.
    """
    if not (folder / FILE).exists():
        return CLIP_MEAN, CLIP_STD
    config = read_json_object(folder / FILE, remedy="fetch the folder again")
    return _channels(config, "image_mean", CLIP_MEAN, folder), _channels(config, "image_std", CLIP_STD, folder)


def preprocessor_config(image_size: int) -> dict[str, Any]:
    """Return the content of a `preprocessor_config.json` for OpenAI's preprocessing at `image_size` pixels."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }


def _channels(config: dict[str, Any], name: str, usual: tuple[float, ...], folder: Path) -> tuple[float, ...]:
    """Return a value with one number per colour channel."""
    values = config.get(name, usual)
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(_is_number(x) for x in values):
        raise VopError(f"{folder}: {name} in its {FILE} is {reprlib.repr(values)}; it must be three numbers")
    if name == "image_std" and min(values) <= 0:
        raise VopError(f"{folder}: image_std in its {FILE} is {values!r}; it must be above 0")
    return tuple(values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
