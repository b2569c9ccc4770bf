from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from clips import naive_square
from vop.video.resizing import Resizing
from vop.video.shape import display_size, square, upright

ONE = 65536


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(240, 320, 224), (320, 240, 64), (100, 100, 224), (33, 65, 16), (720, 1280, 224), (48, 300, 48)],
)
@pytest.mark.parametrize("kind", ["noise", "gradient"])
def test_square_equals_pillow(height, width, size, kind):
    if kind == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    else:
        ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(0, 1, height)[:, None, None]
        pixels = (ramp * np.array([1, 0.5, 0.2])).astype(np.uint8)
    ours = square(pixels, resizing=Resizing(size))
    assert ours.shape == (3, size, size)
    theirs = naive_square(Image.fromarray(pixels), size)
    difference = np.abs(ours.transpose(1, 2, 0).astype(int) - theirs)
    assert difference.max() <= 2
    assert difference.mean() < 0.2


def test_a_frame_of_the_right_height_is_only_cropped():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 16, 3)).astype(np.uint8)
    assert np.array_equal(square(pixels, resizing=Resizing(10)), pixels[:, 3:13].transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(1, 5000), (5000, 1), (2, 1001), (1, 1)])
def test_only_the_middle_of_extreme_shapes_is_scaled(height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    middle = 5 * min(height, width)
    pixels[max(height // 2 - middle, 0) : height // 2 + middle, max(width // 2 - middle, 0) : width // 2 + middle] = 200
    tracemalloc.start()
    out = square(pixels, resizing=Resizing(224))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert out.shape == (3, 224, 224)
    assert np.unique(out).tolist() == [200]
    assert peak < 2**20


@pytest.mark.parametrize("aspect", [2.0, 0.5, 64 / 27, 1.0])
def test_non_square_pixels_keep_their_display_shape(aspect):
    """The result is that of scaling to square pixels first."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    size = display_size(240, 192, aspect=aspect, matrix=None)
    first = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    difference = np.abs(
        square(pixels, resizing=Resizing(96), aspect=aspect).transpose(1, 2, 0).astype(int) - naive_square(first, 96)
    )
    assert difference.mean() < 3


# x' = ax + cy, y' = bx + dy, with y downwards. Each display matrix, and the same operation in NumPy.
MATRICES = [
    ((ONE, 0, 0, ONE), lambda p: p),
    ((-ONE, 0, 0, -ONE), lambda p: np.rot90(p, 2)),
    ((0, ONE, -ONE, 0), lambda p: np.rot90(p, -1)),  # clockwise
    ((0, -ONE, ONE, 0), lambda p: np.rot90(p, 1)),
    ((-ONE, 0, 0, ONE), np.fliplr),
    ((ONE, 0, 0, -ONE), np.flipud),
    ((0, ONE, ONE, 0), lambda p: p.transpose(1, 0, 2)),
    ((0, -ONE, -ONE, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
]


@pytest.mark.parametrize(("matrix", "expected"), MATRICES)
def test_the_display_matrix_is_applied(matrix, expected):
    pixels = np.arange(2 * 3 * 3).reshape(2, 3, 3).astype(np.uint8)
    assert np.array_equal(upright(pixels, matrix), expected(pixels))


def test_without_a_display_matrix_nothing_changes():
    pixels = np.zeros((2, 3, 3), np.uint8)
    assert upright(pixels, None) is pixels
