from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image

from clips import FILMS, remux, write_clip, write_film
from hdr import (
    BT470BG,
    BT470M,
    BT709,
    BT2020,
    BT2020_10,
    CHROMA_DERIVED,
    COLOURS,
    DCI,
    FULL,
    GAMMA22,
    GAMMA28,
    HLG,
    ICTCP,
    LIMITED,
    LINEAR,
    LOG,
    P3,
    PQ,
    SMPTE170M,
    SMPTE240M,
    SRGB,
    XVYCC,
    YCGCO,
    centres,
    hdr_frame,
    patches,
    set_alpha,
    write_frames,
)
from vop import probe, read_frames
from vop.errors import VideoError
from vop.video.colour import GROUND, ColourConverter, alpha_decoder
from vop.video.resizing import MODES, Resizing
from vop.video.shape import square

UNTAGGED = 2
MAGENTA, GREEN, SKIN = (255, 0, 255), (30, 200, 40), (200, 150, 120)

# Tolerance by bit depth: one step of 8, 10 or 12 bits changes the darkest channel of a strong colour by less.
STEP = {8: 16, 10: 10, 12: 3}
ALPHA_FORMATS = ["yuva420p", "yuva422p", "yuva444p", "yuva420p10le", "yuva444p12le", "bgra", "rgba", "argb", "gbrap",
                 "gbrap12le", "rgba64le", "ya8", "ya16le"]  # fmt: skip


def first_frame(path: Path) -> tuple[av.VideoFrame, ColourConverter]:
    with av.open(str(path)) as container:
        converter = ColourConverter(container.streams.video[0].codec_context)
        return next(container.decode(video=0)), converter


def picture(width: int = 320, height: int = 180) -> np.ndarray:
    """Smooth shades of all colours, with edges and a little texture."""
    down, across = np.mgrid[:height, :width] / [[[height]], [[width]]]
    shades = np.stack([across, down, 0.5 + 0.5 * np.sin(9 * across * down)], axis=2)
    shades[height // 4 : height // 2, width // 4 : width // 2] = (0.9, 0.1, 0.2)
    shades += np.random.default_rng(0).normal(0, 0.02, shades.shape)
    return np.round(255 * shades.clip(0, 1)).astype(np.uint8)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other)


# -- ordinary frames


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p10le", "yuv444p", "nv12", "gray", "rgb24", "bgr0"])
@pytest.mark.parametrize("tag", [UNTAGGED, BT709])
def test_ordinary_frames_are_converted_by_swscale(pix_fmt, tag):
    frame = av.VideoFrame.from_ndarray(picture(97, 60), format="rgb24").reformat(format=pix_fmt)
    frame.color_trc = frame.color_primaries = tag
    converter = ColourConverter()
    assert converter.is_plain(frame)
    expected = VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    assert np.array_equal(converter.rgb(frame), expected)
    assert np.array_equal(converter.rgb(frame, shorter_side=8), expected)
    size = {"width": 31, "height": 20}
    small = VideoReformatter().reformat(frame, **size, format="rgb24", interpolation="AREA", threads=1).to_ndarray()
    assert np.array_equal(converter.rgb(frame, **size), small)


@pytest.mark.parametrize("name", FILMS)
def test_ordinary_videos_are_converted_by_swscale(tmp_path, name):
    frame, converter = first_frame(write_film(tmp_path, name, seconds=0.2))
    assert np.array_equal(converter.rgb(frame), frame.to_ndarray(format="rgb24"))


def test_a_reserved_matrix_is_read_as_bt601():
    frame = av.VideoFrame.from_ndarray(picture(96, 60), format="rgb24").reformat(format="yuv420p")
    expected = ColourConverter().rgb(frame)
    frame.colorspace = 3
    with pytest.raises(OSError, match="not supported"):
        frame.to_ndarray(format="rgb24")
    assert np.array_equal(ColourConverter().rgb(frame), expected)
    assert not ColourConverter().is_plain(frame)


def test_xyz_is_converted_by_swscale():
    frame = av.VideoFrame.from_ndarray(picture(96, 60), format="rgb24").reformat(format="xyz12le")
    expected = frame.to_ndarray(format="rgb24")
    frame.color_trc, frame.color_primaries = 17, 10
    assert np.array_equal(ColourConverter().rgb(frame), expected)


# -- HDR


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("primaries", [BT2020, P3, BT709])
@pytest.mark.parametrize(
    ("pix_fmt", "colour_range"),
    [
        ("yuv420p10le", LIMITED),
        ("yuv420p10le", FULL),
        ("yuv444p12le", LIMITED),
        ("yuv444p12le", FULL),
        ("gbrp10le", FULL),
        ("gbrp12le", FULL),
    ],
)
def test_hdr_colours_equal_their_sdr_originals(transfer, primaries, pix_fmt, colour_range):
    frame = hdr_frame(patches(), transfer, primaries=primaries, pix_fmt=pix_fmt, colour_range=colour_range)
    converter = ColourConverter()
    assert not converter.is_plain(frame)
    pixels = converter.rgb(frame)
    assert pixels.dtype == np.uint8
    assert difference(centres(pixels), COLOURS).max() <= STEP[frame.format.components[0].bits]
    assert difference(centres(frame.to_ndarray(format="rgb24")), COLOURS).max() > 30  # swscale alone


def test_hdr_of_eight_bits_keeps_its_colours():
    for transfer in (PQ, HLG):
        for colour_range in (LIMITED, FULL):
            frame = hdr_frame(patches(), transfer, pix_fmt="yuv420p", colour_range=colour_range)
            assert difference(centres(ColourConverter().rgb(frame)), COLOURS).max() <= STEP[8]


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_missing_primaries_and_matrix_default_to_bt2020(transfer):
    for matrix in (UNTAGGED, CHROMA_DERIVED):
        frame = hdr_frame(patches(), transfer, pix_fmt="yuv444p12le")
        frame.color_primaries, frame.colorspace = UNTAGGED, matrix
        assert difference(centres(ColourConverter().rgb(frame)), COLOURS).max() <= 3
        assert frame.colorspace == matrix


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_highlights_are_clipped(transfer):
    """Levels up to SDR white do not change. Brighter ones become white."""
    greys = np.repeat(np.arange(0, 256, 4, dtype=np.uint8), 16 * 3).reshape(64, 16, 3)
    pixels = ColourConverter().rgb(hdr_frame(greys, transfer, gain=2.0))
    expected = np.minimum(greys * 2 ** (1 / 2.4), 255)
    assert difference(pixels, expected).max() <= 2
    assert (np.diff(pixels[:, 8, 0].astype(int)) >= 0).all()
    assert (pixels[48:] == 255).all()


# -- other colours


@pytest.mark.parametrize("transfer", [UNTAGGED, BT709, GAMMA22, GAMMA28, SMPTE240M, XVYCC, BT2020_10, LINEAR])
@pytest.mark.parametrize("primaries", [BT2020, P3])
def test_wide_gamut_sdr_keeps_its_colours(primaries, transfer):
    frame = hdr_frame(patches(), transfer, primaries=primaries, pix_fmt="yuv444p16le")
    assert difference(centres(ColourConverter().rgb(frame)), COLOURS).max() <= 3


@pytest.mark.parametrize("transfer", [UNTAGGED, BT709, SMPTE240M, XVYCC, BT2020_10, SRGB])
def test_without_a_tag_the_gamut_is_that_of_bt709(transfer):
    frame = hdr_frame(patches(), transfer)
    frame.color_primaries = UNTAGGED
    assert ColourConverter().is_plain(frame)


@pytest.mark.parametrize("pix_fmt", ["yuv444p12le", "gbrp12le"])
def test_srgb_keeps_its_curve(pix_fmt):
    frame = hdr_frame(patches(), SRGB, primaries=P3, pix_fmt=pix_fmt)
    assert difference(centres(ColourConverter().rgb(frame)), COLOURS).max() <= 3


@pytest.mark.parametrize("primaries", [BT470M, DCI, P3])
def test_primaries_are_converted(primaries):
    pale = COLOURS // 2 + 50  # within all gamuts
    frame = hdr_frame(pale.repeat(16, 0).repeat(16, 1), BT709, primaries=primaries, pix_fmt="yuv444p12le")
    assert difference(centres(frame.to_ndarray(format="rgb24")), pale).max() >= 5
    assert difference(centres(ColourConverter().rgb(frame)), pale).max() <= 2


@pytest.mark.parametrize("primaries", [BT470BG, SMPTE170M, SMPTE240M])
def test_primaries_of_sd_are_taken_for_those_of_bt709(primaries):
    frame = hdr_frame(patches(), BT709, primaries=BT709, pix_fmt="yuv420p")
    frame.color_primaries = primaries
    assert ColourConverter().is_plain(frame)
    np.testing.assert_array_equal(ColourConverter().rgb(frame), frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("transfer", [GAMMA22, GAMMA28, LINEAR, LOG])
def test_unusual_curves_of_bt709_are_converted(transfer):
    bright = COLOURS // 2 + 120  # the logarithmic curve cannot hold less than a hundredth of white
    frame = hdr_frame(bright.repeat(16, 0).repeat(16, 1), transfer, primaries=BT709, pix_fmt="gbrp12le")
    assert difference(centres(frame.to_ndarray(format="rgb24")), bright).max() >= 5
    assert difference(centres(ColourConverter().rgb(frame)), bright).max() <= 2


@pytest.mark.parametrize(("pix_fmt", "tolerance"), [("yuv420p", STEP[8]), ("yuv444p12le", STEP[12])])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
@pytest.mark.parametrize(
    ("matrix", "primaries"),
    [(YCGCO, BT709), (YCGCO, BT2020), *((CHROMA_DERIVED, given) for given in (BT709, BT2020, P3))],
)
def test_matrices_that_swscale_refuses_are_computed(matrix, primaries, colour_range, pix_fmt, tolerance):
    settings = {"primaries": primaries, "matrix": matrix, "colour_range": colour_range, "pix_fmt": pix_fmt}
    frame = hdr_frame(patches(), BT709, **settings)
    converter = ColourConverter()
    assert not converter.is_plain(frame)
    assert difference(centres(converter.rgb(frame)), COLOURS).max() <= tolerance
    assert difference(centres(converter.rgb(frame, width=33, height=21)), COLOURS).max() <= tolerance
    assert frame.colorspace == matrix


@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_ictcp_is_computed(colour_range):
    frame = hdr_frame(patches(), PQ, matrix=ICTCP, colour_range=colour_range, pix_fmt="yuv444p12le")
    assert difference(centres(ColourConverter().rgb(frame)), COLOURS).max() <= 3
    assert ColourConverter().hdr(frame) == "pq"


@pytest.mark.parametrize(
    ("matrix", "transfer"), [(10, BT2020_10), (10, PQ), (11, PQ), (13, BT709), (ICTCP, HLG), (ICTCP, BT709)]
)
def test_matrices_that_are_not_computed_are_refused(tmp_path, matrix, transfer):
    frame = hdr_frame(patches(), transfer)
    frame.colorspace = matrix
    write_frames(tmp_path / "a.mkv", [frame, frame], codec="libx264", crf=1)
    assert probe(tmp_path / "a.mkv").width == 48
    with pytest.raises(VideoError, match="not supported") as refusal:
        read_frames(tmp_path / "a.mkv", 1, 32)
    assert refusal.value.path == tmp_path / "a.mkv"
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert not ColourConverter().is_plain(next(container.decode(video=0)))


# -- tags, sizes and edges


def test_colour_tags_of_the_container_suffice(tmp_path):
    """The decoder drops them when decoding starts."""
    write_frames(tmp_path / "all.mp4", [hdr_frame(patches(), PQ)], codec="libx264", crf=1)
    untag = "h264_metadata=colour_primaries=2:transfer_characteristics=2:matrix_coefficients=2"
    remux(tmp_path / "all.mp4", tmp_path / "colr.mp4", untag)
    frame, converter = first_frame(tmp_path / "colr.mp4")
    assert frame.color_trc == frame.color_primaries == frame.colorspace == UNTAGGED
    assert difference(centres(converter.rgb(frame)), COLOURS).max() <= STEP[10]
    assert ColourConverter().is_plain(frame)


def test_large_frames_are_reduced_before_conversion():
    whole = np.asarray(Image.fromarray(picture()).resize((1280, 720), Image.Resampling.BICUBIC))
    for transfer in (PQ, HLG):
        frame = hdr_frame(whole, transfer, gain=1.5)
        converter = ColourConverter()
        full, reduced = converter.rgb(frame), converter.rgb(frame, shorter_side=100)
        assert full.shape == (720, 1280, 3)
        assert reduced.shape == (200, 355, 3)
        for mode in MODES:
            ours, exact = (square(pixels, resizing=Resizing(100, mode)) for pixels in (reduced, full))
            assert difference(ours, exact).mean() < 0.4
        assert np.array_equal(converter.rgb(frame, shorter_side=360), full)


def test_hdr_pictures_have_the_requested_size():
    frame = hdr_frame(patches(32), PQ, pix_fmt="yuv444p12le")
    pixels = ColourConverter().rgb(frame, width=33, height=21)
    assert pixels.shape == (21, 33, 3)
    assert difference(centres(pixels), COLOURS).max() <= 3


@pytest.mark.parametrize("width", [1, 2, 17, 33, 63, 129])
def test_hdr_of_any_width_has_clean_edges(width):
    """Between some formats swscale leaves noise at the right edge of odd widths."""
    frame = hdr_frame(np.full((17, width, 3), SKIN, np.uint8), PQ)
    for size in ({}, {"width": 2 * width + 1, "height": 5}):
        assert difference(ColourConverter().rgb(frame, **size), SKIN).max() <= 3


def _zscale(path: Path) -> np.ndarray:
    """All frames of a file as FFmpeg's command gives them with zscale."""
    convert = "zscale=t=bt709:p=bt709:m=gbr:r=full:npl=203,format=gbrp,format=rgb24"
    command = ["ffmpeg", "-v", "error", "-i", path, "-vf", convert, "-f", "rawvideo", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8)


def _has_zscale() -> bool:
    if not shutil.which("ffmpeg"):
        return False
    listed = subprocess.run(["ffmpeg", "-v", "quiet", "-filters"], capture_output=True, text=True).stdout
    return " zscale " in listed


@pytest.mark.skipif(not _has_zscale(), reason="no ffmpeg command with zscale")
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
@pytest.mark.parametrize("primaries", [BT2020, P3])
@pytest.mark.parametrize("transfer", [PQ, HLG, BT2020_10, GAMMA28])
def test_conversion_equals_zscale(tmp_path, transfer, primaries, colour_range):
    pixels = picture()
    gain = 1.2 if transfer in (PQ, HLG) else 1
    frame = hdr_frame(pixels, transfer, primaries=primaries, colour_range=colour_range, gain=gain)
    # This codec records the chroma location. Without it, zscale and swscale assume different ones.
    frame, converter = first_frame(write_frames(tmp_path / "a.mkv", [frame], codec="libx264", crf=1))
    expected = _zscale(tmp_path / "a.mkv").reshape(pixels.shape)
    found = difference(converter.rgb(frame), expected)
    assert found.max() <= 8
    assert found.mean() < 0.05


# -- transparency


def disc(width: int = 96, height: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A green disc with a soft edge on transparent magenta: pixels (h, w, 3) and alpha (h, w)."""
    down, across = np.mgrid[:height, :width]
    from_centre = np.hypot(down - height / 2, across - width / 2)
    alpha = ((height / 3 - from_centre) / 4).clip(0, 1)
    pixels = np.where((from_centre < height / 3 + 4)[..., None], GREEN, MAGENTA).astype(np.uint8)
    return pixels, np.round(255 * alpha).astype(np.uint8)


def composited(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return pixels * share + np.array(GROUND) * (1 - share)


def rgba_frame(pixels: np.ndarray, alpha: np.ndarray, pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.dstack([pixels, alpha]), format="rgba")
    return frame.reformat(format=pix_fmt, threads=1)


@pytest.mark.parametrize("pix_fmt", ALPHA_FORMATS)
@pytest.mark.parametrize("width", [96, 33])
def test_transparent_frames_are_blended_with_grey(pix_fmt, width):
    pixels, alpha = disc(width)
    if pix_fmt.startswith("ya"):
        pixels = pixels[..., :1].repeat(3, axis=2)
    frame = rgba_frame(pixels, alpha, pix_fmt)
    if len(frame.planes) == 4:
        set_alpha(frame, alpha / 255)  # exactly, where swscale has noise at the edge of odd widths
    expected = composited(frame.to_ndarray(format="rgb24"), alpha)
    converter = ColourConverter()
    assert not converter.is_plain(frame)
    assert difference(converter.rgb(frame), expected).max() <= 2
    assert (converter.rgb(frame)[alpha == 0] == GROUND).all()

    small = converter.rgb(frame, width=width // 3, height=16)
    assert difference(small, np.asarray(Image.fromarray(np.uint8(expected)).resize((width // 3, 16), 4))).max() <= 2
    assert (small[..., 0].astype(int) - small[..., 1]).max() <= 2  # no magenta at the edges


@pytest.mark.parametrize("pix_fmt", ALPHA_FORMATS)
def test_opaque_alpha_changes_nothing(pix_fmt):
    frame = rgba_frame(picture(97, 60), np.full((60, 97), 255, np.uint8), pix_fmt)
    if len(frame.planes) == 4:
        set_alpha(frame, np.ones((60, 97)))
    assert np.array_equal(ColourConverter().rgb(frame), frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("pix_fmt", ["yuva444p12le", "gbrap12le"])
def test_transparent_hdr_is_blended_with_grey(pix_fmt):
    pixels, alpha = disc()
    frame = hdr_frame(pixels, PQ, pix_fmt=pix_fmt)
    set_alpha(frame, alpha / 255)
    assert difference(ColourConverter().rgb(frame), composited(pixels, alpha)).max() <= 3


def test_transparent_gif_and_palette_are_blended_with_grey(tmp_path):
    pixels, alpha = disc()
    hard = np.where(alpha > 127, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([pixels, hard])).save(tmp_path / "a.gif")
    paletted = Image.fromarray(np.where(hard, 1, 0).astype(np.uint8), "P")
    paletted.putpalette([*MAGENTA, *GREEN])
    paletted.save(tmp_path / "a.png", transparency=0)
    for name in ("a.gif", "a.png"):
        frame, converter = first_frame(tmp_path / name)
        expected = composited(np.broadcast_to(GREEN, pixels.shape), hard)
        assert difference(converter.rgb(frame), expected).max() <= 2
    assert frame.format.has_palette


def test_the_unused_fourth_byte_is_not_alpha(tmp_path):
    """Uncompressed 32-bit AVI has an unused byte per pixel. All zero, it does not mean transparent."""
    pixels, alpha = disc()
    for name, channel, expected in (("x.avi", 0 * alpha, pixels), ("a.avi", alpha, composited(pixels, alpha))):
        frames = [rgba_frame(pixels, channel, "bgra")]
        frame, converter = first_frame(write_frames(tmp_path / name, frames, codec="rawvideo"))
        assert frame.format.name == "bgra"
        assert difference(converter.rgb(frame), expected).max() <= 1


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparent_vp8_and_vp9_are_blended_with_grey(tmp_path, codec):
    pixels, alpha = disc()
    frames = [rgba_frame(pixels, alpha, "yuva420p") for _ in range(12)]
    path = write_frames(tmp_path / "a.webm", frames, codec=codec, crf=4, b="2M", g=4, **{"auto-alt-ref": 0})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("vp8", "vp9")
        decoder = alpha_decoder(stream)
        converter = ColourConverter(decoder)
        for start in (0, 8):
            container.seek(start * 100, stream=stream)
            decoder.flush_buffers()
            frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]
            assert [round(frame.time * 10) for frame in frames] == list(range(start, 12))
            for rgb in map(converter.rgb, frames):
                assert difference(rgb, composited(pixels, alpha)).mean() < 3
                assert difference(rgb[:8], GROUND).max() <= 2


def test_streams_without_alpha_keep_their_decoder(tmp_path):
    frames = [picture(64, 48)] * 2
    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")):
        with av.open(str(write_clip(tmp_path / name, frames, codec=codec))) as container:
            assert alpha_decoder(container.streams.video[0]) is None


def test_decoding_needs_no_pytorch():
    code = "import sys, vop.video.frames, vop.video.picture; sys.exit('torch' in sys.modules)"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=paths)
