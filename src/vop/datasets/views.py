"""Random views of training videos.

The frames to choose from are the middle frames of `CANDIDATES` parts of each interval. A cache can hold them, and a
training from the cache equals one from the files. For crops they are whole and somewhat larger than the backbone's
images. All frames of a video have the same crop and are mirrored together, so that motion stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, exp, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from vop.datasets.augmentation import Augmentation
from vop.datasets.frames import FrameStore
from vop.datasets.types import Video
from vop.video.resizing import CROP, WHOLE
from vop.video.shape import cropped

if TYPE_CHECKING:
    from torch import Tensor

CANDIDATES = 3  # frames to choose from in each interval; the second one is the interval's middle
ROOM = 8 / 7  # size of the frames to crop, relative to the backbone's images: 256 pixels for 224
ASPECTS = (3 / 4, 4 / 3)  # of a crop
_TRIES = 10

_SIDES = re.compile(r"\b(left|right)(most|wards?)?\b", re.IGNORECASE)


def candidates(store: FrameStore, augmentation: Augmentation) -> FrameStore:
    """Return the store of the frames from which the views of `augmentation` are made; `store` itself without one."""
    num_frames, resizing = store.num_frames, store.resizing
    if augmentation.samples_frames:
        num_frames *= CANDIDATES
    if augmentation.crops:
        mode = WHOLE if resizing.mode == CROP else resizing.mode
        resizing = replace(resizing, size=ceil(resizing.size * ROOM), mode=mode)
    return replace(store, num_frames=num_frames, resizing=resizing)


@dataclass(frozen=True)
class RandomViews:
    """Loads random views of videos. A view depends on `seed` and on the key that is given to `load`.

    Attributes:
        store: the store of the unchanged frames.
    """

    store: FrameStore
    augmentation: Augmentation
    seed: int

    def load(self, video: Video, *, captions: Iterable[str], key: tuple[int, ...]) -> Tensor:
        """Return a view of a video, uint8 (num_frames, 3, size, size).

        Args:
            captions: all captions of the video; if one mentions a side, the view is not mirrored.
            key: numbers that identify the view, for example the epoch and the item.

        Raises:
            VideoError: the video cannot be read.
        """
        import torch

        rng = np.random.default_rng([self.seed, *key])
        frames = candidates(self.store, self.augmentation).load_array(video)
        if self.augmentation.samples_frames:
            chosen = rng.integers(CANDIDATES, size=self.store.num_frames)
            frames = frames[np.arange(self.store.num_frames) * CANDIDATES + chosen]
        if self.augmentation.crops:
            box = random_box(frames.shape[3], frames.shape[2], smallest=self.augmentation.crop_area, rng=rng)
            frames = np.stack([cropped(frame, box, resizing=self.store.resizing) for frame in frames])
        if rng.random() < self.augmentation.flip and not mentions_side(captions):
            frames = frames[..., ::-1]
        return torch.from_numpy(np.ascontiguousarray(frames))


def random_box(width: int, height: int, *, smallest: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return a random crop of a frame: left, top, right, bottom in pixels.

    Area and aspect ratio are drawn as for the "inception crop" (Szegedy et al., 2015): the share of the area uniformly
    from `smallest` to 1, the logarithm of the aspect ratio uniformly. If no crop fits, it is the largest one in the
    middle whose aspect ratio is allowed.
    """
    for _ in range(_TRIES):
        area = width * height * rng.uniform(smallest, 1)
        aspect = exp(rng.uniform(log(ASPECTS[0]), log(ASPECTS[1])))
        across, down = round(sqrt(area * aspect)), round(sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
            return left, top, left + across, top + down
    across = min(width, round(height * ASPECTS[1]))
    down = min(height, round(width / ASPECTS[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def mentions_side(captions: Iterable[str]) -> bool:
    """Return whether a caption mentions left or right (in English)."""
    return any(_SIDES.search(caption) for caption in captions)
