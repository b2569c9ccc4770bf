"""Frames in HDR and other colours for the tests, computed from SDR pixels by the standards' formulas, in float64."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Transfer functions, primaries and matrices, as the standards number them.
PQ, HLG, BT2020_10, GAMMA22, GAMMA28, SMPTE240M, XVYCC, LINEAR, LOG, SRGB = 16, 18, 14, 4, 5, 7, 11, 8, 9, 13
BT709, BT2020, P3, BT470M, BT470BG, SMPTE170M, DCI = 1, 9, 12, 4, 5, 6, 11
YCGCO, CHROMA_DERIVED, ICTCP = 8, 12, 14
LIMITED, FULL = 1, 2

WHITE_NITS = 203

# From linear light to CIE XYZ, as Bruce Lindbloom publishes it; BT.2020 and P3 as in CSS Color 4.
_TO_XYZ = {
    BT709: np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ),
    BT470M: np.array([[0.6068909, 0.1735011, 0.2003480], [0.2989164, 0.5865990, 0.1144845], [0, 0.0660957, 1.1162243]]),
    BT470BG: np.array(
        [[0.4306190, 0.3415419, 0.1783091], [0.2220379, 0.7066384, 0.0713236], [0.0201853, 0.1295504, 0.9390944]]
    ),
    SMPTE170M: np.array(
        [[0.3935891, 0.3652497, 0.1916313], [0.2124132, 0.7010437, 0.0865432], [0.0187423, 0.1119313, 0.9581563]]
    ),
    DCI: np.array([[0.4451698, 0.2771344, 0.1722827], [0.2094917, 0.7215953, 0.0689131], [0, 0.0470606, 0.9073554]]),
    BT2020: np.array([[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017], [0, 0.0280727, 1.0609851]]),
    P3: np.array([[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0, 0.0451134, 1.0439444]]),
}
_LMS_OF_BT2020 = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096

# Nine colours that test a conversion: primaries, mixtures, skin, and greys.
COLOURS = np.array(
    [
        [(235, 30, 30), (30, 200, 40), (40, 60, 220)],
        [(230, 220, 40), (200, 60, 200), (200, 150, 120)],
        [(250, 250, 250), (10, 10, 10), (128, 128, 128)],
    ],
    np.uint8,
)


def patches(side: int = 16) -> np.ndarray:
    """`COLOURS` as fields of a picture: uint8 (3 * side, 3 * side, 3)."""
    return COLOURS.repeat(side, axis=0).repeat(side, axis=1)


def centres(pixels: np.ndarray) -> np.ndarray:
    """The colours in the middle of nine fields: (h, w, 3) -> int (3, 3, 3)."""
    height, width = pixels.shape[:2]
    return pixels[height // 6 :: height // 3, width // 6 :: width // 3].astype(int)


def hdr_frame(
    pixels: np.ndarray,
    transfer: int,
    *,
    pix_fmt: str = "yuv420p10le",
    primaries: int = BT2020,
    matrix: int = 9,
    colour_range: int = LIMITED,
    gain: float = 1.0,
) -> av.VideoFrame:
    """Encode SDR pixels with other colours: the same picture, `gain` times as bright.

    Args:
        pixels: uint8 (h, w, 3).
        pix_fmt: yuv420p or yuv444p of any depth, planar RGB (gbrp) of any depth, or either with alpha (yuva, gbrap).
        matrix: of YUV: 9 (BT.2020), YCGCO, CHROMA_DERIVED, or ICTCP with PQ and BT.2020's primaries.
    """
    light = _screen_light(pixels / 255, transfer) * gain
    light = np.maximum(light @ (np.linalg.inv(_TO_XYZ[primaries]) @ _TO_XYZ[BT709]).T, 0)
    signal = _signal(light @ _LMS_OF_BT2020.T if matrix == ICTCP else light, transfer)
    height, width = pixels.shape[:2]
    frame = av.VideoFrame(width, height, pix_fmt)
    bits = frame.format.components[0].bits
    if frame.format.is_rgb:
        planes = _rgb_planes(signal, bits)
    else:
        chroma_steps = 219 if matrix == YCGCO else 224
        planes = _yuv_planes(_yuv(signal, matrix, primaries), bits, colour_range, chroma_steps)
    for plane, values in zip(frame.planes, planes, strict=False):
        _fill(plane, values if plane.height == height and plane.width == width else _halved(values), bits)
    frame.color_trc, frame.color_primaries = transfer, primaries
    frame.colorspace, frame.color_range = (0, FULL) if frame.format.is_rgb else (matrix, colour_range)
    return frame


def set_alpha(frame: av.VideoFrame, alpha: np.ndarray) -> None:
    """Give a planar frame this alpha channel, 0 to 1 (h, w)."""
    bits = frame.format.components[3].bits
    _fill(frame.planes[3], alpha * (2**bits - 1), bits)


def write_frames(path: Path, frames: list[av.VideoFrame], *, codec: str = "ffv1", rate: int = 10, **options) -> Path:
    """Encode frames as they are; their tags become the stream's. FFV1 keeps all bits and holds no tags itself."""
    first = frames[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={name: str(value) for name, value in options.items()})
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
        context = stream.codec_context
        context.color_trc, context.color_primaries = first.color_trc, first.color_primaries
        context.colorspace, context.color_range = first.colorspace, first.color_range
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def _screen_light(signal: np.ndarray, transfer: int) -> np.ndarray:
    if transfer == SRGB:
        return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return signal**2.4


def _signal(light: np.ndarray, transfer: int) -> np.ndarray:
    if transfer == PQ:
        power = (light * WHITE_NITS / 10_000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    if transfer == HLG:
        scene = (light * WHITE_NITS / 1000) ** (1 / 1.2)
        bright = 0.17883277 * np.log(np.maximum(12 * scene, 1) - 0.28466892) + 0.55991073
        return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
    if transfer == LINEAR:
        return light
    if transfer == LOG:
        return 1 + np.log10(np.maximum(light, 0.01)) / 2
    if transfer == SRGB:
        return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return light ** (1 / {GAMMA22: 2.2, GAMMA28: 2.8}.get(transfer, 2.4))


def _rgb_planes(signal: np.ndarray, bits: int) -> list[np.ndarray]:
    red, green, blue = np.moveaxis(np.round(signal.clip(0, 1) * (2**bits - 1)), 2, 0)
    return [green, blue, red]


def _yuv(signal: np.ndarray, matrix: int, primaries: int) -> list[np.ndarray]:
    red, green, blue = np.moveaxis(signal, 2, 0)
    if matrix == YCGCO:
        return [(red + 2 * green + blue) / 4, (2 * green - red - blue) / 4, (red - blue) / 2]
    if matrix == ICTCP:
        tritan, protan = [6610, -13613, 7003], [17933, -17390, -543]
        return [(red + green) / 2, signal @ tritan / 4096, signal @ protan / 4096]
    weights = _TO_XYZ[primaries][1] if matrix == CHROMA_DERIVED else np.array([0.2627, 0.6780, 0.0593])
    luma = signal @ weights
    return [luma, (blue - luma) / (2 - 2 * weights[2]), (red - luma) / (2 - 2 * weights[0])]


def _yuv_planes(yuv: list[np.ndarray], bits: int, colour_range: int, chroma_steps: int) -> list[np.ndarray]:
    luma, blue, red = yuv
    unit, most = 2 ** (bits - 8), 2**bits - 1
    if colour_range == FULL:
        return [luma * most, blue * most + 128 * unit, red * most + 128 * unit]
    return [(16 + 219 * luma) * unit, (128 + chroma_steps * blue) * unit, (128 + chroma_steps * red) * unit]


def _halved(values: np.ndarray) -> np.ndarray:
    values = np.pad(values, [(0, side % 2) for side in values.shape], mode="edge")
    height, width = values.shape
    return values.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


def _fill(plane: av.video.plane.VideoPlane, values: np.ndarray, bits: int) -> None:
    height, width = values.shape
    kind = np.uint8 if bits == 8 else np.uint16
    stored = np.frombuffer(memoryview(plane).cast("B"), kind).reshape(plane.height, -1)
    stored[:height, :width] = np.round(values.clip(0, 2**bits - 1))
