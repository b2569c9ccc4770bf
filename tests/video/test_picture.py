from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clips import grey_frames, naive_square, write_clip
from vop.errors import UsageError, VideoError
from vop.video.picture import FORMATS, is_picture, picture_frames

ORIENTATION = 0x0112


def scene(*, width: int = 90, height: int = 60) -> Image.Image:
    """Left half red, right half blue, a little shaded."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 2] = 200
    pixels[..., 1] = np.linspace(0, 100, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


def write_claim(path: Path, width: int, height: int) -> Path:
    """A sound PNG header that claims this size, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))))
    return path


def test_prepared_as_frames_are(tmp_path):
    scene().save(tmp_path / "a.png")
    frames = picture_frames(tmp_path / "a.png", num_frames=3, size=32)
    assert frames.shape == (3, 3, 32, 32)
    assert frames.dtype == torch.uint8
    assert all(torch.equal(frame, frames[0]) for frame in frames)
    expected = naive_square(scene(), 32)
    assert np.abs(frames[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2


def test_frames_can_be_changed_one_by_one(tmp_path):
    scene().save(tmp_path / "a.png")
    frames = picture_frames(tmp_path / "a.png", num_frames=2, size=8)
    frames[0] = 0
    assert frames[1].any()


@pytest.mark.parametrize("kind", FORMATS)
def test_kinds(tmp_path, kind):
    path = tmp_path / "picture"
    scene().save(path, format=kind)
    assert is_picture(path)
    red, _, blue = picture_frames(path, num_frames=1, size=30)[0].float()
    assert red[:, :10].mean() > 150 > 50 > red[:, -10:].mean()
    assert blue[:, -10:].mean() > 150 > 50 > blue[:, :10].mean()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_by_its_exif(tmp_path, orientation):
    """A picture stored in any of the eight ways is seen as it was taken."""
    taken = scene()
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    stored = taken.transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else taken
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    taken.save(tmp_path / "b.png")
    upright, plain = (picture_frames(tmp_path / name, num_frames=1, size=20) for name in ("a.png", "b.png"))
    assert torch.equal(upright, plain)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_colours(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    scene().convert(mode).save(path)
    assert picture_frames(path, num_frames=1, size=16).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (12_000, 12_000), (70_000, 1_000)])
def test_huge_claims_are_refused_unread(tmp_path, width, height):
    path = write_claim(tmp_path / "bomb.png", width, height)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_picture(path)
        with pytest.raises(VideoError, match="bomb.png.*claims more than 64 megapixels"):
            picture_frames(path, num_frames=1, size=8)


def test_damaged(tmp_path):
    scene(width=900, height=600).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    write_claim(tmp_path / "thin.png", 100, 100)
    for name in ("half.jpg", "thin.png"):
        assert is_picture(tmp_path / name)
        with pytest.raises(VideoError, match=f"{name}.*damaged"):
            picture_frames(tmp_path / name, num_frames=1, size=8)


def test_no_picture(tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "figure.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")  # starts a program
    write_clip(tmp_path / "clip.mp4", grey_frames(2))
    for name in ("notes.jpg", "empty.png", "figure.eps", "clip.mp4"):
        assert not is_picture(tmp_path / name)
        with pytest.raises(VideoError, match=f"{name}.*not a picture that can be read; JPEG"):
            picture_frames(tmp_path / name, num_frames=1, size=8)
    assert not is_picture(tmp_path / "gone.png")
    with pytest.raises(VideoError, match=r"gone.png: there is no such file"):
        picture_frames(tmp_path / "gone.png", num_frames=1, size=8)


def test_arguments(tmp_path):
    with pytest.raises(UsageError, match="num_frames is 0"):
        picture_frames(tmp_path / "a.png", num_frames=0, size=8)
    with pytest.raises(UsageError, match="size is -1"):
        picture_frames(tmp_path / "a.png", num_frames=1, size=-1)
