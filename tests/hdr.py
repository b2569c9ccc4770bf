"""HDR frames for the tests, computed from SDR pixels by the formulas of the standards, in float64."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Transfer functions, as the standards number them.
PQ, HLG, BT2020_10, GAMMA22, GAMMA28, SMPTE240M, XVYCC = 16, 18, 14, 4, 5, 7, 11
BT709, BT2020, P3 = 1, 9, 12  # primaries
LIMITED, FULL = 1, 2

WHITE_NITS = 203

# From linear light of BT.709's primaries to that of others, by ITU-R BT.2087 and as published for Display P3.
_FROM_BT709 = {
    BT709: np.eye(3),
    BT2020: np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]),
    P3: np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]]),
}

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
    colour_range: int = LIMITED,
    gain: float = 1.0,
) -> av.VideoFrame:
    """Encode SDR pixels with another transfer function: the same picture, `gain` times as bright.

    Args:
        pixels: uint8 (h, w, 3).
        pix_fmt: yuv420p or yuv444p of any depth, planar RGB (gbrp) of any depth, or either with alpha (yuva, gbrap).
    """
    light = (pixels / 255) ** 2.4 * gain
    signal = _signal(np.maximum(light @ _FROM_BT709[primaries].T, 0), transfer)
    height, width = pixels.shape[:2]
    frame = av.VideoFrame(width, height, pix_fmt)
    bits = frame.format.components[0].bits
    planes = _rgb_planes(signal, bits) if frame.format.is_rgb else _yuv_planes(signal, bits, colour_range)
    for plane, values in zip(frame.planes, planes, strict=False):
        _fill(plane, values if plane.height == height and plane.width == width else _halved(values), bits)
    frame.color_trc, frame.color_primaries = transfer, primaries
    frame.colorspace, frame.color_range = (0, FULL) if frame.format.is_rgb else (9, colour_range)
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


def _signal(light: np.ndarray, transfer: int) -> np.ndarray:
    if transfer == PQ:
        power = (light * WHITE_NITS / 10_000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    if transfer == HLG:
        scene = (light * WHITE_NITS / 1000) ** (1 / 1.2)
        bright = 0.17883277 * np.log(np.maximum(12 * scene, 1) - 0.28466892) + 0.55991073
        return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
    return light ** (1 / {GAMMA22: 2.2, GAMMA28: 2.8}.get(transfer, 2.4))


def _rgb_planes(signal: np.ndarray, bits: int) -> list[np.ndarray]:
    red, green, blue = np.moveaxis(np.round(signal.clip(0, 1) * (2**bits - 1)), 2, 0)
    return [green, blue, red]


def _yuv_planes(signal: np.ndarray, bits: int, colour_range: int) -> list[np.ndarray]:
    luma = signal @ [0.2627, 0.6780, 0.0593]
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    unit, most = 2 ** (bits - 8), 2**bits - 1
    if colour_range == FULL:
        return [luma * most, blue * most + 128 * unit, red * most + 128 * unit]
    return [(16 + 219 * luma) * unit, (128 + 224 * blue) * unit, (128 + 224 * red) * unit]


def _halved(values: np.ndarray) -> np.ndarray:
    values = np.pad(values, [(0, side % 2) for side in values.shape], mode="edge")
    height, width = values.shape
    return values.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


def _fill(plane: av.video.plane.VideoPlane, values: np.ndarray, bits: int) -> None:
    height, width = values.shape
    kind = np.uint8 if bits == 8 else np.uint16
    stored = np.frombuffer(memoryview(plane).cast("B"), kind).reshape(plane.height, -1)
    stored[:height, :width] = np.round(values.clip(0, 2**bits - 1))
