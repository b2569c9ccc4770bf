"""Convert decoded frames to 8-bit RGB for an ordinary (SDR) screen.

FFmpeg's scaler (swscale) is enough for ordinary video. It ignores the transfer function and the primaries, so that HDR
video looks grey and dim, and wide-gamut video pale. `vop.video.colorimetry` converts both like FFmpeg's zscale filter,
which PyAV's FFmpeg lacks. swscale can convert them, too (`dst_color_trc`), but its setup takes 3 s per video, and its
highlights differ.

Transparent pixels are blended with grey before scaling, so that their hidden colour never becomes visible.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image

from vop.errors import VideoError
from vop.video.colorimetry import BT709, HDR_NAMES, SCALER_MATRICES, UNTAGGED, Colours, to_sdr, to_signal
from vop.video.source import MAX_PIXELS

GROUND = (128, 128, 128)  # behind transparent pixels: grey, halfway between black and white

# An HDR frame is first reduced to this many times the required side. On average this changes the final picture by 0.3
# to 0.4 levels, and the conversion of 4K takes a tenth of the time.
_REDUCTION_MARGIN = 2

HDR_TRANSFERS = tuple(HDR_NAMES)

Size = tuple[int | None, int | None]  # width, height
AS_IT_IS: Size = (None, None)


class ColourConverter:
    """Converts a video's frames to RGB pixels.

    Args:
        codec: the decoder before its first frame, when it still reports the container's colours. Later it reports
            those of the frames.
        path: the file, for the error if its colours are not supported.
    """

    def __init__(self, codec: av.VideoCodecContext | None = None, *, path: str | Path = "the video") -> None:
        self._transfer, self._primaries = (codec.color_trc, codec.color_primaries) if codec else (UNTAGGED, UNTAGGED)
        self._path = path
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
            shorter_side: the size to which the caller will scale the result. To save work, a much larger HDR or
                wide-gamut frame is first reduced to about twice this size.

        Returns:
            uint8 array (height, width, 3).

        Raises:
            VideoError: the colours use a matrix that is not supported.
        """
        alpha = self._alpha(frame)
        if alpha is None:
            return self._opaque(frame, (width, height), shorter_side)
        picture = over_ground(Image.fromarray(self._opaque(frame)), Image.fromarray(alpha))
        size = width or frame.width, height or frame.height
        return np.array(picture if size == picture.size else picture.resize(size, Image.Resampling.BOX))

    def hdr(self, frame: av.VideoFrame) -> str | None:
        """Return "pq" or "hlg" for an HDR frame, else None."""
        return HDR_NAMES.get(self._colours(frame).transfer)

    def is_plain(self, frame: av.VideoFrame) -> bool:
        """Return whether swscale alone gives the right colours: opaque SDR with usual primaries and matrix."""
        has_usual_tag = frame.format.is_rgb or frame.colorspace in (*SCALER_MATRICES, UNTAGGED)
        return has_usual_tag and not has_alpha(frame) and self._colours(frame).are_usual

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
        colours = self._colours(frame)
        if colours.are_usual:
            return self._reformat(frame, "rgb24", size, scaling).to_ndarray()
        if colours.refused:
            reason = f"its colours use {colours.refused}, which is not supported: convert it to BT.709 with ffmpeg"
            raise VideoError(self._path, reason)
        reduced = _reduced(frame, shorter_side) if size == AS_IT_IS else None
        if reduced:
            size, scaling = reduced, "BICUBIC"
        if colours.is_computed:
            full_white = _white_level(frame) if frame.color_range == ColorRange.JPEG else None
            signal = to_signal(self._yuv(frame, size, scaling), colours, full_white=full_white)
            return to_sdr(signal, colours, white_level=2**16 - 1)
        # From YUV, swscale interpolates chroma only for planar RGB. From RGB, it keeps the whole range only in packed
        # RGB.
        kind = "rgb48le" if frame.format.is_rgb else "gbrp16le"
        signal = self._reformat(frame, kind, size, scaling).to_ndarray()
        return to_sdr(signal, colours, white_level=_white_level(frame))

    def _colours(self, frame: av.VideoFrame) -> Colours:
        if frame.format.name.startswith("xyz"):  # swscale converts it completely
            return BT709
        return Colours.of(
            transfers=(frame.color_trc, self._transfer),
            primaries=(frame.color_primaries, self._primaries),
            matrix=frame.colorspace,
            is_rgb=frame.format.is_rgb,
        )

    def _reformat(
        self, frame: av.VideoFrame, kind: str, size: Size = AS_IT_IS, scaling: str = "BILINEAR"
    ) -> av.VideoFrame:
        """Scale a frame and convert it to RGB by swscale."""
        matrix: int | None = self._colours(frame).matrix
        if frame.format.is_rgb or frame.colorspace in SCALER_MATRICES:
            matrix = None  # the frame's own
        elif matrix not in SCALER_MATRICES:
            matrix = Colorspace.DEFAULT
        # By default FFmpeg starts threads for every conversion, which takes a hundred times as long as the conversion.
        return self._reformatters[kind, size].reformat(
            frame, *size, format=kind, interpolation=scaling, src_colorspace=matrix, threads=1
        )

    def _yuv(self, frame: av.VideoFrame, size: Size, scaling: str) -> np.ndarray:
        """Return the values of a scaled YUV frame in 16 bits: uint16 (h, w, 3)."""
        kind, colour_range = "yuv444p16le", frame.color_range or ColorRange.MPEG
        scaled = self._reformatters[kind, size].reformat(
            frame,
            *size,
            format=kind,
            interpolation=scaling,
            src_colorspace=Colorspace.DEFAULT,
            dst_colorspace=Colorspace.DEFAULT,
            src_color_range=colour_range,
            dst_color_range=colour_range,
            threads=1,
        )
        return scaled.to_ndarray()


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
    tags = {tag.lower(): value for tag, value in stream.metadata.items()}  # remuxed files have ALPHA_MODE
    if name is None or tags.get("alpha_mode") != "1":
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
