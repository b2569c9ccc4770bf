"""Cut a clip to keep at exact times, and encode it at high quality."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.sidedata.sidedata import SideData
from av.video.reformatter import VideoReformatter

from vop.errors import VideoError
from vop.video.clip_export.audio import audio_packets
from vop.video.clip_export.output import SHORT, new_output
from vop.video.clip_export.source import ClipSource, Packet, time_base_of
from vop.video.clip_export.transcode import ShownFrame, decoding
from vop.video.colour import ColourConverter, has_alpha
from vop.video.shape import Matrix, display_matrix, display_size, sample_aspect, turns_sideways
from vop.video.source import open_video

_AUDIO_BIT_RATE = 256_000
_X265 = ("log-level=none", "bframes=0")
_NARROW = 64  # pixels; in narrower pictures, x265's analysis of blocks that refer to others writes beyond its memory


@dataclass(frozen=True)
class _Coding:
    """How pictures are encoded: the name of FFmpeg's encoder, its options, and the pixel formats that it keeps."""

    encoder: str
    options: dict[str, str]
    formats: tuple[str, ...]


# Without reordered frames, decoding times are presentation times: the last frame lasts to the end in every player.
_H264 = _Coding(
    "libx264",
    {"preset": "medium", "crf": "16", "bf": "0"},
    ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"),
)
_HEVC = _Coding(
    "libx265",
    {"preset": "fast", "crf": "16"},
    ("yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le", "yuv444p12le"),
)
_VP9 = _Coding(
    "libvpx-vp9",
    {"crf": "16", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    ("yuv420p", "yuv422p", "yuv444p"),
)


def cut_clip(clip: ClipSource, temporary: Path, container: str) -> None:
    """Write the clip as H.264 or HEVC with AAC; or as VP9 with Opus, in square pixels, if the container is WebM."""
    with new_output(temporary, container, source=clip.path) as output:
        pictures = _encoded_pictures(clip, output)
        first = next(pictures, None)
        if first is None:
            raise VideoError(clip.path, f"nothing is shown {float(clip.start - clip.first):.3f} s after its start")
        sound = "libopus" if container == "webm" else "aac"
        audio = audio_packets(clip, output, copy=True, encoder=sound, bit_rate=_AUDIO_BIT_RATE)
        for packet in chain(audio, [first], pictures):
            output.mux(packet)


def _encoded_pictures(clip: ClipSource, output: av.container.OutputContainer) -> Iterator[Packet]:
    """Yield packets for a new stream of `output`, at the times of the file's frames."""
    colours = _Tags.of(clip.path)
    reformatter = VideoReformatter()
    encoder = None
    durations: dict[int | None, int] = {}
    with decoding(clip) as (stream, converter, frames):
        base = time_base_of(stream)
        for start, end, frame in _shown_in(frames, clip):
            if encoder is None:
                encoder = _encoder(output, frame, stream, clip.rate, colours)
            picture = _picture(frame, encoder, reformatter, converter)
            picture.pts, picture.time_base, picture.pict_type = round(start / base), base, 0
            picture.duration = durations[picture.pts] = round(end / base) - picture.pts
            yield from _lasting(encoder.encode(picture), durations)
        if encoder:
            yield from _lasting(encoder.encode(), durations)


def _lasting(packets: Iterable[Packet], durations: dict[int | None, int]) -> Iterator[Packet]:
    """Give each packet the duration of its frame, so that the last one ends with the clip."""
    for packet in packets:
        packet.duration = durations.pop(packet.pts, packet.duration or 0)
        yield packet


def _shown_in(frames: Iterable[ShownFrame], clip: ClipSource) -> Iterator[ShownFrame]:
    """Yield the frames that are shown in the clip, each with its start and end there, from 0 on."""
    before: ShownFrame | None = None
    for shown in frames:
        if before and shown[0] > clip.start + SHORT:
            yield max(before[0] - clip.start, Fraction(0)), min(shown[0], clip.end) - clip.start, before[2]
        before = shown
        if shown[0] >= clip.end - SHORT:
            return
    if before:
        leaves = clip.end if clip.holds_last_frame else min(before[1], clip.end)
        if leaves > clip.start + SHORT:
            yield max(before[0] - clip.start, Fraction(0)), leaves - clip.start, before[2]


@dataclass(frozen=True)
class _Tags:
    """The colours that a container declares; those of its frames come first."""

    space: int
    colour_range: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, path: Path) -> _Tags:
        with open_video(path) as (_, stream):
            codec = stream.codec_context
            return cls(codec.colorspace, codec.color_range, codec.color_primaries, codec.color_trc)


_UNKNOWN = 2  # in ITU-T H.273


def _encoder(
    output: av.container.OutputContainer, frame: av.VideoFrame, stream: av.VideoStream, rate: Fraction, tags: _Tags
) -> av.VideoStream:
    is_deep = not frame.format.has_palette and any(component.bits > 8 for component in frame.format.components)
    coding = _coding(output.format.name, is_deep=is_deep)
    options = {**coding.options, "x265-params": _x265(frame)} if coding is _HEVC else coding.options
    encoder = output.add_stream(coding.encoder, rate=rate, options=options)
    assert isinstance(encoder, av.VideoStream)
    encoder.width, encoder.height = frame.width, frame.height
    encoder.pix_fmt = _format(frame, coding.formats, is_deep=is_deep)
    codec = encoder.codec_context
    codec.time_base = time_base_of(stream)
    if coding is _VP9:  # PyAV cannot write another shape of pixels into WebM
        size = display_size(frame.width, frame.height, aspect=sample_aspect(stream), matrix=None)
        encoder.width, encoder.height = size
    elif stream.sample_aspect_ratio:
        codec.sample_aspect_ratio = stream.sample_aspect_ratio
    if coding is _HEVC:
        codec.codec_tag = "hvc1"
    if not (frame.format.is_rgb or has_alpha(frame)):
        codec.colorspace = _known(frame.colorspace, tags.space)
        codec.color_range = frame.color_range or tags.colour_range
        codec.color_primaries = _known(frame.color_primaries, tags.primaries)
        codec.color_trc = _known(frame.color_trc, tags.transfer)
    matrix = display_matrix(frame, stream.codec_context.name)
    if output.format.name == "mpegts" and _is_turned(matrix):
        raise ValueError("MPEG-TS has no place for the rotation")
    _turn(encoder, matrix)
    return encoder


def _coding(container: str, *, is_deep: bool) -> _Coding:
    if container != "webm":
        return _HEVC if is_deep else _H264
    if is_deep:
        raise ValueError("WebM is encoded with 8 bits per channel only")
    return _VP9


def _known(of_frame: int, of_file: int) -> int:
    return of_file if of_frame == _UNKNOWN else of_frame


def _format(frame: av.VideoFrame, allowed: Sequence[str], *, is_deep: bool) -> str:
    """Return the frame's own pixel format, if the encoder takes it."""
    name = frame.format.name.removesuffix("le") + ("le" if is_deep else "")
    halves = frame.width % 2 or frame.height % 2
    if name in allowed and not (halves and "444" not in name):
        return name
    chroma = "yuv444p" if halves else "yuv420p"
    return f"{chroma}10le" if is_deep else chroma


def _is_turned(matrix: Matrix | None) -> bool:
    return matrix is not None and (turns_sideways(matrix) or min(matrix[0], matrix[3]) < 0)


def _turn(encoder: av.VideoStream, matrix: Matrix | None) -> None:
    if matrix is not None:
        a, b, c, d = matrix
        encoder.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])


def _picture(
    frame: av.VideoFrame, encoder: av.VideoStream, reformatter: VideoReformatter, converter: ColourConverter
) -> av.VideoFrame:
    if has_alpha(frame):  # it is not encoded
        frame = av.VideoFrame.from_ndarray(converter.rgb(frame), format="rgb24")
    if (frame.format.name, frame.width, frame.height) == (encoder.pix_fmt, encoder.width, encoder.height):
        return frame
    return reformatter.reformat(frame, width=encoder.width, height=encoder.height, format=encoder.pix_fmt)


def _x265(frame: av.VideoFrame) -> str:
    """Return x265's parameters, with the brightness and colours of the display that HDR was made for."""
    found = list(_X265)
    if frame.width < _NARROW:
        found.append("cutree=0")
    display = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if isinstance(display, SideData):
        # AVMasteringDisplayMetadata: red, green, blue, white point, minimum and maximum luminance, what is known.
        numbers = struct.unpack_from("22i", bytes(display))
        ratios = [Fraction(top, bottom or 1) for top, bottom in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        if all(numbers[20:]):
            red, green, blue, white = (
                f"({round(x * 50000)},{round(y * 50000)})" for x, y in zip(ratios[:8:2], ratios[1:8:2], strict=True)
            )
            darkest, brightest = (round(luminance * 10000) for luminance in ratios[8:])
            found.append(f"master-display=G{green}B{blue}R{red}WP{white}L({brightest},{darkest})")
    light = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    if isinstance(light, SideData):
        found.append("max-cll={},{}".format(*struct.unpack_from("2I", bytes(light))))
    return ":".join(found)
