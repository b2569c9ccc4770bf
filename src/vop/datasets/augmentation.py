"""Which random views of a training video a training sees, and the presets."""

from __future__ import annotations

from dataclasses import dataclass

from vop.errors import UsageError
from vop.utils.checks import check_choice

MIDDLE, RANDOM = "middle", "random"
FRAME_SAMPLINGS = (MIDDLE, RANDOM)
NONE, RELEASE = "none", "release"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random views of training videos. The defaults change nothing.

    Attributes:
        frame_sampling: the frame of each interval: "middle", as in evaluation, or "random".
        crop_area: the smallest share of the frame that a random crop keeps, above 0 and up to 1; 1 does not crop.
        flip: the probability that a video is mirrored, 0 to 1. A video whose captions mention left or right is never
            mirrored, because they would be wrong.

    Raises:
        UsageError: a value is not allowed.
    """

    frame_sampling: str = MIDDLE
    crop_area: float = 1.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        check_choice("frame_sampling", self.frame_sampling, FRAME_SAMPLINGS)
        if not 0 < self.crop_area <= 1:
            raise UsageError(f"crop_area is {self.crop_area}; it must be above 0 and at most 1")
        if not 0 <= self.flip <= 1:
            raise UsageError(f"flip is {self.flip}; it must be from 0 to 1")

    @property
    def samples_frames(self) -> bool:
        """Whether frames other than the middle ones are chosen."""
        return self.frame_sampling == RANDOM

    @property
    def crops(self) -> bool:
        """Whether frames are cropped at random."""
        return self.crop_area < 1

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return self.samples_frames or self.crops or self.flip > 0


AUGMENTATIONS = {
    NONE: Augmentation(),
    RELEASE: Augmentation(frame_sampling=RANDOM, crop_area=0.5, flip=0.5),  # as the released training code does
}
