"""The contact sheet: its content, and refused input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vop.errors import UsageError
from vop.evaluation.figures import _RIGHT, Clip, SheetRow, _font, _thumbnails, _wrap, contact_sheet


def solid(colour, frames=4, height=32, width=32):
    return np.broadcast_to(np.uint8(colour)[None, :, None, None], (frames, 3, height, width))


def colours(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return set(map(tuple, np.asarray(image).reshape(-1, 3).tolist())), image.size


def test_the_sheet_shows_frames_and_marks(tmp_path):
    red, blue = (200, 10, 10), (10, 10, 200)
    row = SheetRow("a cat", [Clip(solid(red), 0.5, right=False), Clip(solid(blue), 0.4, right=True)])
    found, _ = colours(contact_sheet([row], tmp_path / "sub" / "sheet.png"))
    assert {red, blue, _RIGHT} <= found
    unmarked = SheetRow("a cat", [Clip(solid(red), 0.5, right=False), Clip(solid(blue), 0.4)])
    found, _ = colours(contact_sheet([unmarked], tmp_path / "unmarked.png"))
    assert _RIGHT not in found


def test_tensors_and_arrays_of_any_size_are_drawn(tmp_path):
    clips = [
        Clip(torch.zeros(12, 3, 20, 30, dtype=torch.uint8), 0.1),
        Clip(solid((9, 9, 9), frames=1, height=1, width=1000), 0.1),
        Clip(solid((9, 9, 9), frames=2, height=1000, width=1), 0.1),
    ]
    _, (width, height) = colours(contact_sheet([SheetRow("odd", clips)], tmp_path / "sheet.png"))
    assert width < 6000
    assert height < 1000


def test_long_texts_make_the_sheet_higher_not_wider(tmp_path):
    def size(sentence, caption):
        row = SheetRow(sentence, [Clip(solid((0, 0, 0)), 0.1, caption=caption)])
        return colours(contact_sheet([row], tmp_path / "sheet.png"))[1]

    short, long = size("a cat", "a dog"), size("a cat sleeps " * 20, "a dog barks " * 20)
    assert long[0] == short[0]
    assert long[1] > short[1]


@pytest.mark.parametrize("text", ["", "word", "many words " * 30, "x" * 500, "a " + "y" * 300 + " b"])
def test_wrapped_lines_fit_and_keep_all_words(text):
    font = _font(20)
    lines = _wrap(text, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_first_and_last_frame_are_shown():
    frames = np.zeros((9, 3, 8, 8), np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None]
    assert [image.getpixel((0, 0))[0] for image in _thumbnails(frames, 5)] == [0, 2, 4, 6, 8]
    assert len(_thumbnails(frames[:3], 5)) == 3


def test_errors_leave_no_file(tmp_path):
    path = tmp_path / "sheet.png"
    with pytest.raises(UsageError, match="0 rows"):
        contact_sheet([], path)
    with pytest.raises(UsageError, match="at least one row, and at least one clip in each row"):
        contact_sheet([SheetRow("a", [])], path)
    with pytest.raises(UsageError, match=r"float32 of shape \(4, 3, 8, 8\)"):
        contact_sheet([SheetRow("a", [Clip(torch.zeros(4, 3, 8, 8), 0.1)])], path)
    with pytest.raises(UsageError, match=r"shape \(4, 8, 8, 3\)"):
        contact_sheet([SheetRow("a", [Clip(np.zeros((4, 8, 8, 3), np.uint8), 0.1)])], path)
    assert not list(tmp_path.iterdir())
