"""Convert decoded frames to 8-bit RGB for an ordinary (SDR) screen.

FFmpeg's scaler (swscale) is enough for ordinary video. It ignores the transfer function and the primaries, so that HDR
video looks grey and dim, and wide-gamut video pale. This module converts both like FFmpeg's zscale filter, which PyAV's
FFmpeg lacks:

    signal -> light        by the file's transfer function; 1 is SDR white, which HDR shows at 203 nits
    light  -> light        from the file's primaries to BT.709's, a 3 x 3 matrix
    light  -> SDR signal   by BT.1886 (gamma 2.4); highlights above white and colours out of gamut are clipped

swscale can convert them, too (`dst_color_trc`), but its setup takes 3 s per video, and its highlights differ.
Transparent pixels are blended with grey before scaling, so that their hidden colour never becomes visible.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from PIL import Image

from vop.video.source import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable

GROUND = (128, 128, 128)  # behind transparent pixels: grey, halfway between black and white

_WHITE_NITS = 203  # SDR white in HDR video (ITU-R BT.2408)
_PQ_PEAK_NITS = 10_000
_HLG_PEAK_NITS = 1_000

# An HDR frame is first reduced to this many times the required side. On average this changes the final picture by 0.3
# to 0.4 levels, and the conversion of 4K takes a tenth of the time.
_REDUCTION_MARGIN = 2

_BAND_PIXELS = 2**16  # converted at a time, so that they stay in the processor's cache

Size = tuple[int | None, int | None]  # width, height
AS_IT_IS: Size = (None, None)


class ColourConverter:
    """Converts a video's frames to RGB pixels.

    Args:
        codec: the decoder before its first frame, when it still reports the container's colours. Later it reports
            those of the frames.
    """

    def __init__(self, codec: av.VideoCodecContext | None = None) -> None:
        self._transfer, self._primaries = (codec.color_trc, codec.color_primaries) if codec else _UNTAGGED
        self._uncompressed = codec is not None and codec.name == "rawvideo"
        self._reformatters: defaultdict[tuple[str, Size], VideoReformatter] = defaultdict(VideoReformatter)

    def rgb(
        self,
        frame: av.VideoFrame,
        *,
        width: int | None = None,
        height: int | None = None,
        shorter_side: int | None = None,
    ) -> np.ndarray:
        """Return RGB pixels of a frame as stored, without rotation.

        Untagged colours are read as BT.601 in limited range, FFmpeg's default.

        Args:
            width, height: size of the result, scaled by averaging areas. By default the frame's.
            shorter_side: the size to which the caller will scale the result. To save work, a much larger HDR frame is
                first reduced to about twice this size.

        Returns:
            uint8 array (height, width, 3).
        """
        alpha = self._alpha(frame)
        if alpha is None:
            return self._opaque(frame, (width, height), shorter_side)
        picture = over_ground(Image.fromarray(self._opaque(frame)), Image.fromarray(alpha))
        size = width or frame.width, height or frame.height
        return np.array(picture if size == picture.size else picture.resize(size, Image.Resampling.BOX))

    def hdr(self, frame: av.VideoFrame) -> str | None:
        """Return "pq" or "hlg" for an HDR frame, else None."""
        light = self._light(frame)
        return _HDR_NAMES.get(light[0]) if light else None

    def is_plain(self, frame: av.VideoFrame) -> bool:
        """Return whether swscale alone gives the right colours: opaque SDR with usual primaries and matrix."""
        return not has_alpha(frame) and self._light(frame) is None and self._matrix(frame) is None

    def _alpha(self, frame: av.VideoFrame) -> np.ndarray | None:
        """Return the opacity of each pixel, uint8 (height, width); None if all pixels are opaque."""
        if not has_alpha(frame):
            return None
        # Packed RGBA is not exact: for some formats swscale turns 255 into 254, and adds noise at the edge of odd
        # widths.
        plane = self._reformat(frame, "gbrap").planes[3]
        alpha = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        if self._uncompressed and not alpha.any():
            return None  # AVI's 32-bit pixels have an unused byte, which FFmpeg returns as alpha
        return None if alpha.min() == 255 else np.ascontiguousarray(alpha)

    def _opaque(self, frame: av.VideoFrame, size: Size = AS_IT_IS, shorter_side: int | None = None) -> np.ndarray:
        """Return RGB pixels, ignoring transparency."""
        scaling = "BILINEAR" if size == AS_IT_IS else "AREA"
        light = self._light(frame)
        if light is None:
            return self._reformat(frame, "rgb24", size, scaling).to_ndarray()
        reduced = _reduced(frame, shorter_side) if size == AS_IT_IS else None
        if reduced:
            size, scaling = reduced, "BICUBIC"
        transfer, primaries = light
        # From YUV, swscale interpolates chroma only for planar RGB. From RGB, it keeps the whole range only in packed
        # RGB.
        kind = "rgb48le" if frame.format.is_rgb else "gbrp16le"
        signal = self._reformat(frame, kind, size, scaling).to_ndarray()
        return _to_sdr(signal, _light_table(transfer, _white_level(frame)), _to_bt709(primaries))

    def _light(self, frame: av.VideoFrame) -> tuple[int, int] | None:
        """Return the transfer function and primaries for a frame's conversion; None if swscale alone is enough."""
        transfer, primaries = frame.color_trc, frame.color_primaries
        if transfer == ColorTrc.UNSPECIFIED:
            transfer = self._transfer
        if primaries == ColorPrimaries.UNSPECIFIED:
            primaries = self._primaries
        if transfer in _HDR:
            return transfer, primaries if primaries in _CHROMATICITIES else ColorPrimaries.BT2020
        if transfer in _SDR and primaries in _WIDE:
            return transfer, primaries
        return None

    def _reformat(
        self, frame: av.VideoFrame, kind: str, size: Size = AS_IT_IS, scaling: str = "BILINEAR"
    ) -> av.VideoFrame:
        # By default FFmpeg starts threads for every conversion, which takes a hundred times as long as the conversion.
        return self._reformatters[kind, size].reformat(
            frame, *size, format=kind, interpolation=scaling, src_colorspace=self._matrix(frame), threads=1
        )

    def _matrix(self, frame: av.VideoFrame) -> int | None:
        """Return the YUV matrix for a frame without one, or with one that swscale rejects; None for the frame's own.

        For ICtCp and similar matrices, only greys are then right; hardly any file uses them.
        """
        if frame.format.is_rgb or frame.colorspace in _KNOWN_MATRICES:
            return None
        if self._light(frame) is not None:
            return Colorspace.BT2020
        return None if frame.colorspace == _UNTAGGED_MATRIX else Colorspace.DEFAULT


def over_ground(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    """Blend a picture with `GROUND` by the opacity `alpha` (mode L). Return mode RGB."""
    ground = Image.new("RGB", picture.size, GROUND)
    ground.paste(picture, mask=alpha)
    return ground


def alpha_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """Return a decoder that also decodes the transparency of a VP8 or VP9 stream.

    FFmpeg's own decoders of these codecs, which PyAV uses, ignore the alpha channel. libvpx's decoders return it, in
    frames of the format yuva420p.

    Returns:
        A decoder for the stream's packets; None if the stream has no alpha channel, or this FFmpeg has no libvpx.
    """
    own = stream.codec_context
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(own.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return None
    try:
        decoder = av.CodecContext.create(name, "r")
    except UnknownCodecError:
        return None
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options, decoder.extradata = {"max_pixels": str(MAX_PIXELS)}, own.extradata
    decoder.color_trc, decoder.color_primaries = own.color_trc, own.color_primaries
    return decoder


def has_alpha(frame: av.VideoFrame) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def _reduced(frame: av.VideoFrame, shorter_side: int | None) -> Size | None:
    """Return the size to which a large frame is reduced before its colours are converted; None if it is small."""
    shorter = min(frame.width, frame.height)
    if shorter_side is None or shorter <= _REDUCTION_MARGIN * shorter_side:
        return None
    # Rounded down, so that scaling the shorter side gives the same width as from the whole frame.
    width, height = (side * _REDUCTION_MARGIN * shorter_side // shorter for side in (frame.width, frame.height))
    return width, height


def _white_level(frame: av.VideoFrame) -> int:
    """Return white in swscale's 16-bit RGB. swscale shifts the bits of YUV and leaves the new ones zero."""
    if frame.format.is_rgb:
        return 2**16 - 1
    bits = frame.format.components[0].bits
    if frame.color_range == ColorRange.JPEG:
        return 2**16 - (1 << 16 - bits)
    return 65283


def _to_sdr(signal: np.ndarray, table: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Convert uint16 RGB (h, w, 3) of any transfer function and primaries to uint8 RGB in SDR."""
    height, width = signal.shape[:2]
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(_BAND_PIXELS // width, 1)
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        red, green, blue = (table.take(signal[band, :, channel]) for channel in range(3))
        for channel, (of_red, of_green, of_blue) in enumerate(matrix):
            light = of_red * red + of_green * green + of_blue * blue
            steps = np.sqrt(np.clip(light, 0, 1)) * (len(_FROM_ROOT) - 1) + np.float32(0.5)
            pixels[band, :, channel] = _FROM_ROOT.take(steps.astype(np.uint16))
    return pixels


@lru_cache(maxsize=8)
def _light_table(transfer: int, white_level: int) -> np.ndarray:
    """Return the light of every 16-bit signal value: float32 (65536,)."""
    return _TRANSFER[transfer](np.arange(2**16) / white_level).astype(np.float32)


@lru_cache(maxsize=8)
def _to_bt709(primaries: int) -> np.ndarray:
    """Return the matrix from linear light of these primaries to BT.709: float32 (3, 3)."""
    return np.linalg.solve(_to_xyz(ColorPrimaries.BT709), _to_xyz(primaries)).astype(np.float32)


def _to_xyz(primaries: int) -> np.ndarray:
    *colours, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in (*_CHROMATICITIES[primaries], _D65))
    columns = np.stack(colours, axis=1)
    return columns * np.linalg.solve(columns, white)


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


def _gamma(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda signal: signal**exponent


_UNTAGGED = ColorTrc.UNSPECIFIED, ColorPrimaries.UNSPECIFIED
_UNTAGGED_MATRIX = 2

HDR_TRANSFERS = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
_HDR_NAMES: dict[int, str] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
_HDR: dict[int, Callable[[np.ndarray], np.ndarray]] = {ColorTrc.SMPTE2084: _pq, ColorTrc.ARIB_STD_B67: _hlg}
# Cameras' curves are not undone: screens show their signals by BT.1886, as they show signals without a tag.
_SDR: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    **dict.fromkeys(
        (
            ColorTrc.UNSPECIFIED,
            ColorTrc.BT709,
            ColorTrc.SMPTE170M,
            ColorTrc.SMPTE240M,
            ColorTrc.IEC61966_2_4,
            ColorTrc.BT1361_ECG,
            ColorTrc.IEC61966_2_1,
            ColorTrc.BT2020_10,
            ColorTrc.BT2020_12,
        ),
        _gamma(2.4),
    ),
    ColorTrc.GAMMA22: _gamma(2.2),
    ColorTrc.GAMMA28: _gamma(2.8),
}
_TRANSFER = {**_HDR, **_SDR}

_KNOWN_MATRICES = (1, 4, 5, 6, 7, 9)  # by the numbers of the standards: BT.709, FCC, BT.601 twice, 240M, BT.2020

_D65 = (0.3127, 0.3290)
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_CHROMATICITIES: dict[int, tuple[tuple[float, float], ...]] = {
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ColorPrimaries.SMPTE431: _P3,  # with the white of a cinema, which a screen shows as its own white
    ColorPrimaries.SMPTE432: _P3,
}
_WIDE = (ColorPrimaries.BT2020, ColorPrimaries.SMPTE431, ColorPrimaries.SMPTE432)

# The SDR signal by the square root of light. The root gives enough steps to dark tones, where gamma is steep.
_FROM_ROOT = np.round(255 * np.linspace(0, 1, 2**14) ** (2 / 2.4)).astype(np.uint8)
