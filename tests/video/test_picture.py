from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clips import grey_frames, naive_square, write_clip
from vop.errors import UsageError, VideoError
from vop.video.colour import GROUND
from vop.video.picture import FORMATS, is_animation, is_picture, picture_frames
from vop.video.resizing import Resizing

ORIENTATION = 0x0112


def scene(*, width: int = 90, height: int = 60) -> Image.Image:
    """The left half is red, the right half blue, both with a vertical gradient."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 2] = 200
    pixels[..., 1] = np.linspace(0, 100, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


def write_empty_png(path: Path, width: int, height: int) -> Path:
    """Write a PNG with a valid header of this size and only 100 bytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))))
    return path


def test_pictures_are_prepared_like_frames(tmp_path):
    scene().save(tmp_path / "a.png")
    frames = picture_frames(tmp_path / "a.png", num_frames=3, resizing=Resizing(32))
    assert frames.shape == (3, 3, 32, 32)
    assert frames.dtype == np.uint8
    assert all(np.array_equal(frame, frames[0]) for frame in frames)
    expected = naive_square(scene(), 32)
    assert np.abs(frames[0].transpose(1, 2, 0).astype(int) - expected).max() <= 2


def test_frames_do_not_share_memory(tmp_path):
    scene().save(tmp_path / "a.png")
    frames = picture_frames(tmp_path / "a.png", num_frames=2, resizing=Resizing(8))
    frames[0] = 0
    assert frames[1].any()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(tmp_path, kind):
    path = tmp_path / "picture"
    scene().save(path, format=kind)
    assert is_picture(path)
    red, _, blue = picture_frames(path, num_frames=1, resizing=Resizing(30))[0].astype(float)
    assert red[:, :10].mean() > 150 > 50 > red[:, -10:].mean()
    assert blue[:, -10:].mean() > 150 > 50 > blue[:, :10].mean()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """A picture stored in any of the eight orientations looks as it was taken."""
    taken = scene()
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    stored = taken.transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else taken
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    taken.save(tmp_path / "b.png")
    upright, plain = (
        picture_frames(tmp_path / name, num_frames=1, resizing=Resizing(20)) for name in ("a.png", "b.png")
    )
    assert np.array_equal(upright, plain)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_colour_mode_is_read(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    scene().convert(mode).save(path)
    assert picture_frames(path, num_frames=1, resizing=Resizing(16)).shape == (1, 3, 16, 16)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    shades = np.linspace(0, 65535, 64).astype(np.uint16)
    Image.fromarray(np.tile(shades, (64, 1))).save(tmp_path / "a.png")
    row = picture_frames(tmp_path / "a.png", num_frames=1, resizing=Resizing(64))[0, 0, 5]
    assert np.abs(row - shades / 257).max() <= 1


def transparent(mode: str = "RGBA") -> Image.Image:
    """The left half is green, the right half transparent magenta."""
    pixels = np.zeros((32, 64, 4), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (30, 200, 40, 255), (255, 0, 255, 0)
    return Image.fromarray(pixels).convert(mode)


def middle_row(path: Path) -> np.ndarray:
    """The middle row of the prepared picture: int (w, 3)."""
    with Image.open(path) as image:
        size = min(image.size)
    return picture_frames(path, num_frames=1, resizing=Resizing(size))[0, :, size // 2].T.astype(int)


@pytest.mark.parametrize(
    ("name", "mode", "settings"),
    [
        ("a.png", "RGBA", {}),
        ("a.png", "LA", {}),
        ("a.webp", "RGBA", {"lossless": True, "exact": True}),
        ("a.avif", "RGBA", {"quality": 95}),
        ("a.tif", "RGBA", {}),
        ("a.tif", "LA", {}),
    ],
)
def test_transparent_pictures_are_blended_with_grey(tmp_path, name, mode, settings):
    transparent(mode).save(tmp_path / name, **settings)
    row = middle_row(tmp_path / name)
    assert np.abs(row[-8:] - GROUND).max() <= 1
    green = (30, 200, 40) if mode == "RGBA" else transparent("L").getpixel((0, 0))
    assert np.abs(row[:8] - green).max() <= 3
    assert (row[:, 0] - row[:, 1]).max() <= 2  # no magenta at the edge


def test_a_single_transparent_colour_is_blended_with_grey(tmp_path):
    """PNG names it as an entry of the palette, as an RGB colour, or as a shade of grey."""
    paletted = Image.fromarray(np.repeat(np.array([[0, 1]], np.uint8), 32, axis=1).repeat(32, axis=0), "P")
    paletted.putpalette([30, 200, 40, 255, 0, 255])
    sources = {"P": (paletted, 1), "RGB": (transparent("RGB"), (255, 0, 255)), "L": (transparent("L"), 105)}
    for mode, (image, clear) in sources.items():
        image.save(tmp_path / f"{mode}.png", transparency=clear)
        row = middle_row(tmp_path / f"{mode}.png")
        assert np.abs(row[-8:] - GROUND).max() <= 1, mode
        assert (row[:, 0] - row[:, 1]).max() <= 2, mode


@pytest.mark.parametrize(("meaning", "stored"), [(1, (15, 100, 20, 128)), (2, (30, 200, 40, 128))])
@pytest.mark.parametrize("grey", [False, True])
def test_both_kinds_of_tiff_alpha(tmp_path, meaning, stored, grey):
    """`meaning` is 1 for associated alpha (colours are multiplied by it) and 2 for unassociated alpha."""
    samples = stored[1::2] if grey else stored
    _write_tiff(tmp_path / "a.tif", samples, meaning)
    expected = np.array([200] * 3 if grey else (30, 200, 40)) / 2 + np.array(GROUND) / 2
    assert np.abs(middle_row(tmp_path / "a.tif") - expected).max() <= 1


def _write_tiff(path: Path, samples: tuple[int, ...], meaning: int, side: int = 16) -> None:
    """Write a picture of one colour whose last sample is alpha with this meaning."""
    data, count = bytes(samples) * side**2, len(samples)
    entries = 10
    after = 8 + 2 + 12 * entries + 4
    tags = [(256, side), (257, side), (258, after), (259, 1), (262, 2 if count > 2 else 1), (273, after + 2 * count),
            (277, count), (278, side), (279, len(data)), (338, meaning)]  # fmt: skip
    directory = b""
    for tag, value in tags:
        if tag == 258 and count == 2:
            directory += struct.pack("<HHIHH", tag, 3, 2, 8, 8)
        else:
            directory += struct.pack("<HHII", tag, 4 if tag != 258 else 3, count if tag == 258 else 1, value)
    header = b"II*\0" + struct.pack("<IH", 8, entries)
    path.write_bytes(header + directory + bytes(4) + struct.pack(f"<{count}H", *[8] * count) + data)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "PNG"])
def test_the_first_picture_of_an_animation_is_used(tmp_path, kind):
    path = tmp_path / "a"
    others = [Image.new("RGBA", (64, 32), (0, 0, 255, 255))] * 2
    transparent().save(path, format=kind, save_all=True, append_images=others, duration=100, lossless=True)
    assert is_picture(path)
    assert is_animation(path)
    row = middle_row(path)
    assert np.abs(row[-8:] - GROUND).max() <= 1
    assert np.abs(row[:8] - (30, 200, 40)).max() <= 3
    transparent().save(path, format=kind)
    assert not is_animation(path)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (12_000, 12_000), (70_000, 1_000)])
def test_huge_pictures_are_refused_before_decoding(tmp_path, width, height):
    path = write_empty_png(tmp_path / "bomb.png", width, height)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_picture(path)
        assert not is_animation(path)
        size = (
            "" if width == height == 100_000 else f"{width} x {height} pixels, "
        )  # Pillow does not report the size of the largest
        with pytest.raises(VideoError, match=f"bomb.png.*{size}more than 64 megapixels"):
            picture_frames(path, num_frames=1, resizing=Resizing(8))


def test_damaged_pictures_are_refused(tmp_path):
    scene(width=900, height=600).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    write_empty_png(tmp_path / "thin.png", 100, 100)
    for name in ("half.jpg", "thin.png"):
        assert is_picture(tmp_path / name)
        with pytest.raises(VideoError, match=f"{name}.*damaged"):
            picture_frames(tmp_path / name, num_frames=1, resizing=Resizing(8))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    # Pillow would run Ghostscript on this one.
    (tmp_path / "figure.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    write_clip(tmp_path / "clip.mp4", grey_frames(2))
    for name in ("notes.jpg", "empty.png", "figure.eps", "clip.mp4"):
        assert not is_picture(tmp_path / name)
        with pytest.raises(VideoError, match=f"{name}.*not a supported picture.*JPEG"):
            picture_frames(tmp_path / name, num_frames=1, resizing=Resizing(8))
        assert not is_animation(tmp_path / name)
    assert not is_picture(tmp_path / "missing.png")
    with pytest.raises(VideoError, match=r"missing\.png"):
        picture_frames(tmp_path / "missing.png", num_frames=1, resizing=Resizing(8))


def test_arguments_out_of_range(tmp_path):
    with pytest.raises(UsageError, match="num_frames is 0"):
        picture_frames(tmp_path / "a.png", num_frames=0, resizing=Resizing(8))
    with pytest.raises(UsageError, match="size is -1"):
        picture_frames(tmp_path / "a.png", num_frames=1, resizing=Resizing(-1))
