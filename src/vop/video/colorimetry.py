"""Convert colours to those of an ordinary (SDR) screen, by the formulas of the standards.

    YUV    -> signal       by the file's matrix, where FFmpeg's scaler does not know it
    signal -> light        by the file's transfer function; 1 is SDR white, which HDR shows at 203 nits
    light  -> light        from the file's primaries to BT.709's, a 3 x 3 matrix
    light  -> SDR signal   by BT.1886 (gamma 2.4), or by sRGB's curve if the file has it; highlights above white and
                           colours out of gamut are clipped

This is what FFmpeg's zscale filter does. Transfer functions, primaries and matrices are numbered as in ITU-T H.273.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

_WHITE_NITS = 203  # SDR white in HDR video (ITU-R BT.2408)
_PQ_PEAK_NITS = 10_000
_HLG_PEAK_NITS = 1_000

_BAND_PIXELS = 2**14  # converted at a time, so that they stay in the processor's cache

HDR_NAMES: dict[int, str] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}

UNTAGGED = 2
_RGB, _YCGCO, _BT2020_CONSTANT, _CHROMA_DERIVED, _ICTCP = 0, 8, 10, 12, 14
_BT601, _BT2020 = 5, 9
SCALER_MATRICES = (1, 4, _BT601, 6, 7, _BT2020)  # BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020

# Matrices that need more than a product with 3 x 3 numbers. Hardly any file has them.
_REFUSED = {
    _BT2020_CONSTANT: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    13: "a chroma-derived matrix with constant luminance",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}


class Colours(NamedTuple):
    """What the numbers of a frame mean."""

    transfer: int
    primaries: int
    matrix: int

    @classmethod
    def of(cls, *, transfers: tuple[int, int], primaries: tuple[int, int], matrix: int, is_rgb: bool) -> Colours:
        """Fill in what is untagged: BT.2020 for HDR, else BT.709, and BT.601's matrix, which is FFmpeg's default.

        Args:
            transfers, primaries: the tags of the frame, and those of its container, which count if the frame has none.
        """
        transfer = next((tag for tag in transfers if tag in _TO_LIGHT), int(ColorTrc.BT709))
        is_hdr = transfer in HDR_NAMES
        default = ColorPrimaries.BT2020 if is_hdr else ColorPrimaries.BT709
        primary = next((tag for tag in primaries if tag in _CHROMATICITIES), int(default))
        if primary in _LIKE_BT709 and matrix != _CHROMA_DERIVED:
            primary = int(ColorPrimaries.BT709)
        if is_rgb:
            matrix = _RGB
        elif matrix not in (*SCALER_MATRICES, *_REFUSED, _YCGCO, _CHROMA_DERIVED, _ICTCP):
            matrix = _BT2020 if is_hdr or primary == ColorPrimaries.BT2020 else _BT601
        return cls(transfer, primary, matrix)

    @property
    def are_usual(self) -> bool:
        """Whether FFmpeg's scaler alone converts them rightly."""
        is_usual_curve = _TO_LIGHT[self.transfer] in (_bt1886, _srgb)
        return is_usual_curve and self.primaries == ColorPrimaries.BT709 and not self.is_computed

    @property
    def is_computed(self) -> bool:
        """Whether FFmpeg's scaler does not know the matrix."""
        return self.matrix not in (_RGB, *SCALER_MATRICES)

    @property
    def refused(self) -> str | None:
        """The name of a matrix that is not supported; None if it is supported."""
        if self.matrix == _ICTCP and self.transfer != ColorTrc.SMPTE2084:
            return "ICtCp without PQ"
        return _REFUSED.get(self.matrix)


BT709 = Colours(ColorTrc.BT709, ColorPrimaries.BT709, 1)


def to_signal(yuv: np.ndarray, colours: Colours, *, full_white: int | None) -> np.ndarray:
    """Convert 16-bit YUV (h, w, 3) by a computed matrix to a signal in which 65535 is white.

    Args:
        full_white: the largest luma of a full range; None for a limited range.
    """
    middle = 2**15
    if full_white is not None:
        zero, one = (0, middle, middle), (full_white,) * 3
    elif colours.matrix == _YCGCO:  # made of RGB in limited range, of which all have 219 steps
        zero, one = (16 * 256, middle, middle), (219 * 256,) * 3
    else:
        zero, one = (16 * 256, middle, middle), (219 * 256, 224 * 256, 224 * 256)
    fractions = (yuv - np.array(zero, np.float32)) / np.array(one, np.float32)
    signal = fractions.reshape(-1, 3) @ _rgb_of_yuv(colours.matrix, colours.primaries).T
    return (np.clip(signal, 0, 1) * (2**16 - 1) + 0.5).astype(np.uint16).reshape(yuv.shape)


def to_sdr(signal: np.ndarray, colours: Colours, *, white_level: int) -> np.ndarray:
    """Convert a uint16 signal (h, w, 3) to uint8 RGB for an SDR screen.

    Args:
        white_level: the signal of white.
    """
    height, width = signal.shape[:2]
    to_light, to_bt709 = _light_table(colours.transfer, white_level), _light_matrix(colours)
    to_screen = _screen_table(colours.transfer)
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(_BAND_PIXELS // width, 1)
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        light = to_light.take(signal[band]).reshape(-1, 3) @ to_bt709
        steps = np.sqrt(np.clip(light, 0, 1)) * (len(to_screen) - 1) + np.float32(0.5)
        pixels[band] = to_screen.take(steps.astype(np.uint16)).reshape(-1, width, 3)
    return pixels


# -- transfer functions


@lru_cache(maxsize=8)
def _light_table(transfer: int, white_level: int) -> np.ndarray:
    """Return the light of every 16-bit signal value: float32 (65536,)."""
    return _TO_LIGHT[transfer](np.arange(2**16) / white_level).astype(np.float32)


@lru_cache(maxsize=2)
def _screen_table(transfer: int) -> np.ndarray:
    """Return the SDR signal by the square root of light: uint8 (16384,).

    The root gives enough steps to dark tones, where the curve is steep.
    """
    signals = np.linspace(0, 1, 2**18)
    curve = _srgb if _TO_LIGHT[transfer] is _srgb else _bt1886
    return np.round(255 * np.interp(np.linspace(0, 1, 2**14) ** 2, curve(signals), signals)).astype(np.uint8)


def _bt1886(signal: np.ndarray) -> np.ndarray:
    return signal**2.4


def _srgb(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _pq(signal: np.ndarray) -> np.ndarray:
    """Convert a signal to light by SMPTE ST 2084."""
    root = signal ** (1 / 78.84375)
    ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return ratio ** (1 / 0.1593017578125) * (_PQ_PEAK_NITS / _WHITE_NITS)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Convert a signal to light by ARIB STD-B67, as on a screen of 1000 nits.

    A screen adds a gamma of 1.2. As in zscale by default, it applies to each channel instead of the luminance.
    """
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return scene**1.2 * (_HLG_PEAK_NITS / _WHITE_NITS)


# The curves of cameras are not undone: screens show their signals by BT.1886.
_TO_LIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    **dict.fromkeys(
        (
            ColorTrc.BT709,
            ColorTrc.SMPTE170M,
            ColorTrc.SMPTE240M,
            ColorTrc.IEC61966_2_4,
            ColorTrc.BT1361_ECG,
            ColorTrc.BT2020_10,
            ColorTrc.BT2020_12,
        ),
        _bt1886,
    ),
    ColorTrc.IEC61966_2_1: _srgb,
    ColorTrc.GAMMA22: lambda signal: signal**2.2,
    ColorTrc.GAMMA28: lambda signal: signal**2.8,
    ColorTrc.SMPTE428: lambda signal: signal**2.6 * (52.37 / 48),
    ColorTrc.LINEAR: lambda signal: signal,
    ColorTrc.LOG: lambda signal: 10 ** (2 * (signal - 1)),
    ColorTrc.LOG_SQRT: lambda signal: 10 ** (2.5 * (signal - 1)),
    ColorTrc.SMPTE2084: _pq,
    ColorTrc.ARIB_STD_B67: _hlg,
}


# -- primaries


class _Chromaticities(NamedTuple):
    """The coordinates x, y of a screen's primaries and of its white."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]


_D65, _C, _DCI, _E = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351), (1 / 3, 1 / 3)
_SMPTE = _Chromaticities((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)
_P3 = _Chromaticities((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65)
_CHROMATICITIES: dict[int, _Chromaticities] = {
    ColorPrimaries.BT709: _Chromaticities((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    ColorPrimaries.BT470M: _Chromaticities((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),
    ColorPrimaries.BT470BG: _Chromaticities((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    ColorPrimaries.SMPTE170M: _SMPTE,
    ColorPrimaries.SMPTE240M: _SMPTE,
    ColorPrimaries.FILM: _Chromaticities((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    ColorPrimaries.BT2020: _Chromaticities((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    ColorPrimaries.SMPTE428: _Chromaticities((1, 0), (0, 1), (0, 0), _E),
    ColorPrimaries.SMPTE431: _P3._replace(white=_DCI),
    ColorPrimaries.SMPTE432: _P3,
    ColorPrimaries.EBU3213: _Chromaticities((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}

# The gamuts of SD video differ little from BT.709's, and FFmpeg's command ignores the difference.
_LIKE_BT709 = (
    ColorPrimaries.BT470BG,
    ColorPrimaries.SMPTE170M,
    ColorPrimaries.SMPTE240M,
    ColorPrimaries.EBU3213,
)


def _xyz(point: tuple[float, float]) -> np.ndarray:
    x, y = point
    return np.array([x, y, 1 - x - y])


def _to_xyz(primaries: int) -> np.ndarray:
    """Return the matrix from linear light of these primaries to CIE XYZ, with their own white."""
    *colours, white = map(_xyz, _CHROMATICITIES[primaries])
    columns = np.stack(colours, axis=1)
    return columns * np.linalg.solve(columns, white / white[1])


def _to_bt709(primaries: int) -> np.ndarray:
    """Return the matrix from linear light of these primaries to BT.709, which keeps the colour of their white."""
    return np.linalg.solve(_to_xyz(ColorPrimaries.BT709), _to_xyz(primaries))


@lru_cache(maxsize=8)
def _light_matrix(colours: Colours) -> np.ndarray:
    """Return the matrix for rows of linear light to BT.709: float32 (3, 3)."""
    matrix = _to_bt709(colours.primaries)
    if colours.matrix == _ICTCP:
        matrix = _to_bt709(ColorPrimaries.BT2020) @ np.linalg.inv(_LMS_OF_BT2020)
    return np.ascontiguousarray(matrix.T, np.float32)


# -- matrices that FFmpeg's scaler does not know

_YCGCO_OF_RGB = np.array([[1, 2, 1], [-1, 2, -1], [2, 0, -2]]) / 4
# Those of ICtCp (ITU-R BT.2100): L, M and S, the colours of the eye's cones, take the place of red, green and blue.
_LMS_OF_BT2020 = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
_ICTCP_OF_LMS = np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096


@lru_cache(maxsize=8)
def _rgb_of_yuv(matrix: int, primaries: int) -> np.ndarray:
    """Return the matrix from YUV to a signal: float32 (3, 3)."""
    known = {_YCGCO: _YCGCO_OF_RGB, _ICTCP: _ICTCP_OF_LMS}
    forward = known[matrix] if matrix in known else _yuv_of_rgb(_to_xyz(primaries)[1])
    return np.linalg.inv(forward).astype(np.float32)


def _yuv_of_rgb(weights: np.ndarray) -> np.ndarray:
    """Return the matrix for a luma with these weights of red, green and blue."""
    red, _, blue = np.eye(3)
    return np.stack([weights, (blue - weights) / (2 - 2 * weights[2]), (red - weights) / (2 - 2 * weights[0])])
