"""How a frame is resized, to a square for a backbone."""

from __future__ import annotations

from dataclasses import dataclass

from vop.utils.checks import check_choice, check_whole

MAX_SIZE = 4096  # pixels

CROP, SQUASH, WHOLE = "crop", "squash", "whole"
MODES = (CROP, SQUASH, WHOLE)
BICUBIC, BILINEAR = "bicubic", "bilinear"
INTERPOLATIONS = (BICUBIC, BILINEAR)


@dataclass(frozen=True)
class Resizing:
    """How a frame is resized; by default as for OpenAI's CLIP.

    Attributes:
        size: height and width of the square, in pixels.
        mode: "crop" scales the shorter side to `size` and crops the centre. "squash" scales both sides to `size`,
            whatever the shape of the frame. "whole" scales the shorter side to `size` and keeps the rest, so that the
            result is no square: for crops that are chosen later.
        interpolation: "bicubic" or "bilinear", both antialiased, as Pillow computes them.

    Raises:
        UsageError: a value is not allowed.
    """

    size: int = 224
    mode: str = CROP
    interpolation: str = BICUBIC

    def __post_init__(self) -> None:
        check_whole("size", self.size, at_least=1, at_most=MAX_SIZE)
        check_choice("resize", self.mode, MODES)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __str__(self) -> str:
        sides = "both sides" if self.mode == SQUASH else "shorter side"
        centre = "; centre crop" if self.mode == CROP else ""
        return f"{sides}, {self.interpolation}, antialiased{centre}"

    def differences(self) -> dict[str, str]:
        """Mode and interpolation where they differ from CLIP's: in files, CLIP's are left out."""
        values = {"resize": (self.mode, CROP), "interpolation": (self.interpolation, BICUBIC)}
        return {name: value for name, (value, usual) in values.items() if value != usual}
