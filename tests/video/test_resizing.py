from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import vop
from clips import FILMS, naive_square, write_clip, write_film
from vop.errors import UsageError
from vop.video.clip import Clip
from vop.video.decode import VideoDecoder
from vop.video.frames import ClipFrames, decode_clips
from vop.video.isolated import DecodingProcesses
from vop.video.picture import picture_frames
from vop.video.resizing import INTERPOLATIONS, Resizing
from vop.video.shape import square

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SHARP = {"options": {"crf": "1"}, "pix_fmt": "yuv444p"}


def naive(image: Image.Image, resizing: Resizing) -> np.ndarray:
    """The square as Pillow computes it: uint8 (size, size, 3)."""
    resample = FILTERS[resizing.interpolation]
    if resizing.mode == "crop":
        return naive_square(image, resizing.size, resample=resample)
    return np.asarray(image.resize((resizing.size, resizing.size), resample))


def first_picture(path) -> np.ndarray:
    """The stored pixels of the first frame, as PyAV gives them."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def scene(height: int, width: int) -> np.ndarray:
    """Coloured tiles, whose edges show how they were scaled."""
    tiles = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3))
    return np.kron(tiles, np.ones((8, 8, 1))).astype(np.uint8)


def assert_close(ours: np.ndarray, theirs: np.ndarray, *, most: int = 2, mean: float = 0.2) -> None:
    difference = np.abs(ours.astype(int) - theirs.transpose(2, 0, 1))
    assert difference.max() <= most
    assert difference.mean() < mean


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"size": 0}, ["0", "1"]),
        ({"size": 4097}, ["4,097", "4,096"]),
        ({"size": 1.5}, ["1.5"]),
        ({"size": True}, ["True"]),
        ({"mode": "stretch"}, ["stretch", "crop", "squash"]),
        ({"mode": None}, ["None", "crop", "squash"]),
        ({"interpolation": "lanczos"}, ["lanczos", "bicubic", "bilinear"]),
    ],
)
def test_invalid_values_are_refused(values, named):
    with pytest.raises(UsageError) as caught:
        Resizing(**values)
    assert all(word in str(caught.value) for word in named)


def test_resizing_is_an_immutable_value():
    assert Resizing() == Resizing(224, "crop", "bicubic")
    assert len({Resizing(), Resizing(224), Resizing(mode="squash"), Resizing(interpolation="bilinear")}) == 3
    assert pickle.loads(pickle.dumps(Resizing(9, "squash", "bilinear"))) == Resizing(9, "squash", "bilinear")
    with pytest.raises(FrozenInstanceError):
        Resizing().size = 3


def test_import_loads_no_heavy_library():
    code = "import sys, vop.video.resizing\nprint(*({'torch', 'av', 'numpy', 'PIL', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_differences_from_clip():
    assert Resizing(336).differences() == {}
    assert Resizing(mode="squash").differences() == {"resize": "squash"}
    assert Resizing(mode="squash", interpolation="bilinear").differences() == {
        "resize": "squash",
        "interpolation": "bilinear",
    }


@pytest.mark.parametrize(("height", "width", "size"), [(240, 320, 224), (320, 240, 64), (16, 40, 96), (1, 300, 24)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_squash_equals_pillow(height, width, size, interpolation, aspect):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    resizing = Resizing(size, "squash", interpolation)
    ours = square(pixels, resizing=resizing, aspect=aspect)
    assert np.array_equal(ours, naive(Image.fromarray(pixels), resizing).transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width", "size"), [(240, 320, 224), (320, 240, 64), (33, 65, 16), (48, 300, 96)])
def test_bilinear_crop_equals_pillow(height, width, size):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    resizing = Resizing(size, interpolation="bilinear")
    assert_close(square(pixels, resizing=resizing), naive(Image.fromarray(pixels), resizing))


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("mode", ["crop", "squash"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_resized_frames_equal_pillow(tmp_path, name, mode, interpolation):
    path = write_film(tmp_path, name, seconds=0.5)
    ours = vop.read_frames(
        path, num_frames=1, size=64, end_seconds=0.01, aspect="stored", resize=mode, interpolation=interpolation
    )
    assert_close(ours[0].numpy(), naive(Image.fromarray(first_picture(path)), Resizing(64, mode, interpolation)))


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_rotated_video_is_squashed_upright(tmp_path, rotation, interpolation):
    path = write_clip(tmp_path / "turned.mp4", [scene(48, 112)], rotation=rotation, **SHARP)
    upright = Image.fromarray(np.rot90(first_picture(path), rotation // 90))
    assert upright.size == ((112, 48) if rotation == 180 else (48, 112))
    (ours,) = vop.read_frames(path, num_frames=1, size=40, resize="squash", interpolation=interpolation).numpy()
    assert_close(ours, naive(upright, Resizing(40, "squash", interpolation)))


def test_a_mirrored_video_is_squashed_as_displayed(tmp_path):
    matrix = [-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30]
    path = write_clip(tmp_path / "mirrored.mp4", [scene(48, 112)], matrix=matrix, **SHARP)
    (ours,) = vop.read_frames(path, num_frames=1, size=40, resize="squash").numpy()
    assert_close(ours, naive(Image.fromarray(first_picture(path)[:, ::-1]), Resizing(40, "squash")))


@pytest.mark.parametrize("aspect", ["display", "stored"])
def test_squash_ignores_the_shape_of_pixels(tmp_path, aspect):
    path = write_clip(tmp_path / "wide.mp4", [scene(96, 64)], sample_aspect_ratio=Fraction(4), **SHARP)
    (ours,) = vop.read_frames(path, num_frames=1, size=40, aspect=aspect, resize="squash").numpy()
    assert_close(ours, naive(Image.fromarray(first_picture(path)), Resizing(40, "squash")))


def test_squash_shows_the_whole_picture(tmp_path):
    picture = np.zeros((48, 160, 3), np.uint8)
    picture[:, :16] = picture[:, -16:] = 255
    path = write_clip(tmp_path / "edges.mp4", [picture], **SHARP)
    whole, cropped = (vop.read_frames(path, num_frames=1, size=40, resize=mode)[0, 0] for mode in ("squash", "crop"))
    assert min(whole[:, :3].min(), whole[:, -3:].min()) > 240
    assert cropped.max() < 16


def test_every_reader_squashes(tmp_path):
    resizing = Resizing(24, "squash", "bilinear")
    path = write_clip(tmp_path / "a.mp4", [np.roll(scene(32, 64), k, axis=1) for k in range(8)])
    expected = vop.read_frames(path, num_frames=3, size=24, resize="squash", interpolation="bilinear").numpy()
    assert not np.array_equal(expected, vop.read_frames(path, num_frames=3, size=24).numpy())
    with VideoDecoder(path) as video:
        (clip,) = decode_clips(video, [Clip()], num_frames=3, resizing=resizing)
    assert isinstance(clip, ClipFrames)
    assert np.array_equal(clip.frames, expected)
    Image.fromarray(scene(32, 64)).save(tmp_path / "a.png")
    with DecodingProcesses() as processes:
        (still,) = processes.call(picture_frames, tmp_path / "a.png", num_frames=1, resizing=resizing)
    assert np.array_equal(still, naive(Image.fromarray(scene(32, 64)), resizing).transpose(2, 0, 1))


def test_unknown_names_are_refused(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [scene(48, 64)])
    with pytest.raises(UsageError, match="'pad'.*crop.*squash"):
        vop.read_frames(path, resize="pad")
    with pytest.raises(UsageError, match="'nearest'.*bicubic.*bilinear"):
        vop.read_frames(path, interpolation="nearest")
