"""The stickers: names, the atlas and its resizing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vop.benchmarks import artwork
from vop.benchmarks.artwork import ATLAS_PIXELS, CONCEPTS, load_atlas
from vop.errors import VopError


def test_concepts_are_several_hundred_short_distinct_names():
    assert 300 <= len(CONCEPTS) == len(set(CONCEPTS))
    assert {"cat", "dog", "car", "red apple"} <= set(CONCEPTS)
    assert max(len(name.split()) for name in CONCEPTS) <= 3


def test_drawings_are_distinct_and_fill_their_square():
    pixels = load_atlas().pixels
    assert pixels.shape == (len(CONCEPTS), ATLAS_PIXELS, ATLAS_PIXELS, 4)
    drawn = pixels[..., 3] > 0
    extent = np.maximum(drawn.any(1).sum(1), drawn.any(2).sum(1))
    assert extent.min() >= ATLAS_PIXELS - 4
    assert len({drawing.tobytes() for drawing in pixels}) == len(CONCEPTS)


def test_colours_are_premultiplied():
    pixels = load_atlas().pixels.astype(int)
    assert (pixels[..., :3] <= pixels[..., 3:] + 1).all()


def test_rasterising_again_gives_the_same_drawing():
    folder, _ = artwork._artwork()
    index = CONCEPTS.index("cat")
    again = artwork._rasterise(folder, "CAT")
    np.testing.assert_array_equal(again, load_atlas().pixels[index])


@pytest.mark.parametrize("side", [7, 20, 40, 80])
def test_resizing_averages_areas(side):
    drawing = load_atlas().pixels[3] / np.float32(255)
    small = load_atlas().drawing(3, side)
    assert small.shape == (side, side, 4)
    np.testing.assert_allclose(small.mean((0, 1)), drawing.mean((0, 1)), atol=1e-5)
    if ATLAS_PIXELS % side == 0:
        step = ATLAS_PIXELS // side
        blocks = drawing.reshape(side, step, side, step, 4).mean((1, 3))
        np.testing.assert_allclose(small, blocks, atol=1e-5)


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(VopError, match=r"'resvg_py'.*vop\[demo\]"):
        artwork._artwork()


def test_unknown_unicode_names_are_named():
    with pytest.raises(VopError, match="'NO SUCH THING'"):
        artwork._codepoint("NO SUCH THING")


def test_importing_emoji_motion_loads_no_torch_or_artwork():
    code = "import sys, vop.benchmarks.emoji_motion; print(sorted({'torch', 'av', 'resvg_py'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
