"""Thumbnail strips of segments."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vop.errors import UsageError
from vop.search.segmentation import thumbnail_strip


def plain(level: int, *, width: int = 160, height: int = 90) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def levels(image: Image.Image, count: int) -> list[int]:
    """Return the mean level of each of the `count` cells."""
    return [round(float(cell.mean())) for cell in np.split(np.asarray(image), count, axis=1)]


def test_pictures_stand_side_by_side_in_equal_cells():
    image = opened(thumbnail_strip([plain(level) for level in (20, 90, 160, 230)]))
    assert image.size == (640, 90)
    assert levels(image, 4) == pytest.approx([20, 90, 160, 230], abs=2)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(120, 160, (2 * 68, 90)), (160, 40, (2 * 270, 90)), (160, 1, (2 * 270, 90)), (1, 160, (2 * 30, 90))],
)
def test_cells_have_the_shape_of_the_first_picture_within_limits(width, height, size):
    image = opened(thumbnail_strip([plain(200, width=width, height=height)] * 2))
    assert image.size == size
    middles = [cell[40:50, size[0] // 4 - 5 : size[0] // 4 + 5] for cell in np.split(np.asarray(image), 2, axis=1)]
    assert min(middle.max() for middle in middles) > 150


def test_a_picture_of_another_shape_is_shown_whole():
    image = opened(thumbnail_strip([plain(200), plain(200, width=90, height=160)]))
    assert image.size == (320, 90)
    row = np.asarray(image)[45, :, 0]
    assert row[:150].min() > 190
    assert row[165:205].max() < 20  # a black bar on the left
    assert row[225:255].min() > 190


def test_the_height_can_be_chosen():
    assert opened(thumbnail_strip([plain(7)], height=45)).size == (80, 45)


def test_a_strip_of_noisy_pictures_stays_small():
    random = np.random.default_rng(0)
    tiles = [np.kron(random.integers(0, 255, (15, 20, 3)), np.ones((6, 8, 1))).astype(np.uint8) for _ in range(4)]
    assert 5_000 < len(thumbnail_strip(tiles)) < 40_000


@pytest.mark.parametrize(
    ("pictures", "settings", "message"),
    [
        ([], {}, "pictures is empty"),
        ([np.zeros((9, 16), np.uint8)], {}, r"uint8 of shape \(9, 16\)"),
        ([plain(1), np.zeros((9, 16, 3), np.float32)], {}, r"float32 of shape \(9, 16, 3\)"),
        ([np.zeros((0, 16, 3), np.uint8)], {}, r"uint8 of shape \(0, 16, 3\)"),
        ([plain(1)], {"height": 0}, "height is 0"),
    ],
)
def test_invalid_pictures_are_refused(pictures, settings, message):
    with pytest.raises(UsageError, match=message):
        thumbnail_strip(pictures, **settings)
