"""The preprocessing of frames (resizing, mean and standard deviation), and the file that defines it."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vop.errors import VopError
from vop.utils.parsing import read_json_object
from vop.video.resizing import Resizing

FILE, VIDEO_FILE = "preprocessor_config.json", "video_preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"  # in which transformers 5 writes all of them
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
HALF = (0.5, 0.5, 0.5)  # maps pixels to [-1, 1]
# The numbers of filters in Pillow and `transformers`.
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of a frame.

    Attributes:
        resizing: how the frame becomes a square.
        mean, std: mean and standard deviation of pixels in [0, 1], per channel.
    """

    resizing: Resizing
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD


def read_preprocessing(folder: Path, *, image_size: int, usual: Preprocessing | None = None) -> Preprocessing:
    """Read a folder's video_preprocessor_config.json, preprocessor_config.json or processor_config.json.

    Args:
        image_size: the image size in the backbone's configuration, in pixels.
        usual: the defaults. If omitted, OpenAI's.

    Raises:
        VopError: the file is damaged, or a value is not allowed.
    """
    usual = usual or Preprocessing(resizing=Resizing(image_size))
    config, file = _read_config(folder)
    _check_pixels(config, file)
    if config.get("do_normalize") is False:
        config = {**config, "image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}
    return Preprocessing(
        resizing=_resizing(config, image_size, usual.resizing, file),
        mean=read_channels(config, "image_mean", usual.mean, file),
        std=read_channels(config, "image_std", usual.std, file),
    )


def _read_config(folder: Path) -> tuple[Mapping[str, Any], Path]:
    """Return the values of a folder's preprocessing and their file; none if there is no file."""
    for name in (VIDEO_FILE, FILE, PROCESSOR_FILE):
        if (folder / name).exists():
            config = read_json_object(folder / name, remedy="fetch the folder again")
            if name == PROCESSOR_FILE:
                config = config.get("video_processor") or config.get("image_processor") or {}
            if not isinstance(config, Mapping):
                raise VopError(f"{folder / name}: a processor must be an object with named values; fetch it again")
            return config, folder / name
    return {}, folder / FILE


def _check_pixels(config: Mapping[str, Any], file: Path) -> None:
    """Check that frames are resized, and that their pixels are scaled to [0, 1]. Null means the usual, as if absent."""
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if not isinstance(config.get(name), bool | None):
            raise VopError(f"{file}: {name} is {reprlib.repr(config[name])}; it must be true or false")
    for name in ("do_resize", "do_rescale"):
        if config.get(name) is False:
            raise VopError(
                f"{file}: {name} is false; frames are always resized and scaled to [0, 1]: set it to true if the "
                "model was trained so, otherwise take another checkpoint"
            )
    factor = config.get("rescale_factor")
    if factor is not None and not (_is_number(factor) and math.isclose(factor, 1 / 255, rel_tol=1e-3)):
        raise VopError(
            f"{file}: rescale_factor is {reprlib.repr(factor)}; only 1/255, {1 / 255:.6f}, is supported: express "
            "another one by image_mean and image_std, or take another checkpoint"
        )


def _resizing(config: Mapping[str, Any], image_size: int, usual: Resizing, file: Path) -> Resizing:
    """Return the resizing. One size means scaling the shorter side and cropping; height and width mean squashing."""
    size, mode = config.get("size"), usual.mode
    square = {"height": image_size, "width": image_size}
    if isinstance(size, Mapping):
        mode = "squash" if {"height", "width"} <= size.keys() else "crop"
    crops = config.get("do_center_crop")
    if mode == "crop" and crops is False:
        raise VopError(
            f"{file}: do_center_crop is false, so frames would not become squares: set what the model was trained "
            f"with, true for a crop, or size to {square} to squash the whole frame"
        )
    # Without a crop, its size has no effect.
    sizes = {"size": size} if crops is False else {"size": size, "crop_size": config.get("crop_size")}
    for name, value in sizes.items():
        if value not in (None, image_size, square, {"shortest_edge": image_size}):
            raise VopError(
                f"{file}: {name} is {reprlib.repr(value)}; only the image size in the model's configuration, "
                f"{image_size}, is supported for both size and crop_size: correct the wrong file, or take another "
                "checkpoint"
            )
    resample = config.get("resample", next(n for n, name in INTERPOLATIONS.items() if name == usual.interpolation))
    if not isinstance(resample, int) or resample not in INTERPOLATIONS:
        raise VopError(f"{file}: resample is {reprlib.repr(resample)}; 2 (bilinear) and 3 (bicubic) are supported")
    return Resizing(image_size, mode, INTERPOLATIONS[resample])


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


def read_channels(config: Mapping[str, Any], name: str, usual: tuple[float, ...], file: Path) -> tuple[float, ...]:
    """Read one number per colour channel.

    Raises:
        VopError: the values are not three numbers. The message names `file`.
    """
    values = config.get(name, usual)
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(_is_number(x) for x in values):
        raise VopError(f"{file}: {name} is {reprlib.repr(values)}; it must be three numbers")
    if name.endswith("std") and min(values) <= 0:
        raise VopError(f"{file}: {name} is {values!r}; it must be above 0")
    return tuple(values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
