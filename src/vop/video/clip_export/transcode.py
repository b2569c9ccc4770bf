"""Decode a clip's pictures, convert them to a constant frame rate, and encode them as H.264."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from math import ceil

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from vop.video.clip_export.first_picture import completer_of
from vop.video.clip_export.source import SEEKS, ClipSource, Packet, opened_at, time_base_of
from vop.video.colour import ColourConverter, alpha_decoder
from vop.video.shape import display_matrix, display_size, sample_aspect

ShownFrame = tuple[Fraction, Fraction, av.VideoFrame]  # when it appears, when it leaves

_MAX_SIDE = 1280
_ENCODER = {"preset": "veryfast", "crf": "26"}
_RATES = (10, 30)  # frames per second; slower videos repeat frames, faster ones drop some
_THREADS = 2


def encoded_pictures(clip: ClipSource, output: av.container.OutputContainer) -> Iterator[Packet]:
    """Yield packets for a new stream of `output`; none if nothing is shown."""
    rate = _output_rate(clip.rate)
    reformatter = VideoReformatter()
    encoder = None
    with decoding(clip) as (stream, colours, frames):
        for tick, frame in _at_ticks(frames, clip, rate):
            encoder = encoder or _picture_encoder(output, frame, stream, rate, plain=colours.is_plain(frame))
            picture = _picture(frame, encoder, reformatter, colours)
            picture.pts, picture.time_base, picture.pict_type = tick, 1 / rate, 0
            yield from encoder.encode(picture)
        if encoder:
            yield from encoder.encode()


@contextmanager
def decoding(clip: ClipSource) -> Iterator[tuple[av.VideoStream, ColourConverter, Iterator[ShownFrame]]]:
    """Open the file's stream, its colour converter, and its frames from a frame at or before the clip on.

    The nearest key frame may be damaged, or a point of intra refresh. If the first intact frame comes too late,
    decoding begins at an earlier key frame.
    """
    for first_seek in range(len(SEEKS) + 1):
        with opened_at(clip, first_seek=first_seek) as (stream, _, packets):
            codec = alpha_decoder(stream) or stream.codec_context
            colours = ColourConverter(codec, path=clip.path)
            frames = _frames(stream, codec, packets, clip)
            first = next(frames, None)
            if first_seek == len(SEEKS) or (first is not None and first[0] <= clip.start):
                yield stream, colours, chain([first] if first else [], frames)
                return


def _output_rate(rate: Fraction) -> Fraction:
    slowest, fastest = _RATES
    rate = rate / ceil(rate / fastest)
    return rate * ceil(slowest / rate)


def _frames(
    stream: av.VideoStream, codec: av.VideoCodecContext, packets: Iterable[Packet], clip: ClipSource
) -> Iterator[ShownFrame]:
    """Yield intact frames in presentation order, with their times."""
    codec.thread_type, codec.thread_count = "AUTO", _THREADS
    decoded: deque[Fraction | None] = deque()  # times of decoding
    time_base = time_base_of(stream)
    completer = completer_of(clip.path, stream)
    pictures = (packet for packet in packets if packet.stream_index == stream.index)
    for number, packet in enumerate(chain(pictures, [None])):  # None makes the decoder return its last frames
        if packet is not None and packet.size:
            decoded.append(clip.first + number / clip.rate if clip.counted else clip.time_of(packet))
        try:
            frames = codec.decode(packet)
        except av.FFmpegError:
            continue
        for frame in frames:
            stamp = decoded.popleft() if decoded else None
            if not clip.ordinal:
                stamp = None if frame.pts is None else frame.pts * time_base
            if stamp is not None and not frame.is_corrupt:
                duration = Fraction(0) if clip.ordinal else frame.duration * time_base
                yield stamp, stamp + (duration or 1 / clip.rate), completer.complete(frame)


def _at_ticks(frames: Iterable[ShownFrame], clip: ClipSource, rate: Fraction) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield, for each interval of a constant rate, its number and the frame shown in its middle."""
    count = max(round((clip.end - clip.start) * rate), 1)
    middles = deque((tick, clip.start + (tick + Fraction(1, 2)) / rate) for tick in range(count))
    shown: av.VideoFrame | None = None
    leaves = clip.start
    for appears, next_leaves, frame in frames:
        while shown and middles and middles[0][1] < appears:
            yield middles.popleft()[0], shown
        if not middles:
            return
        shown, leaves = frame, next_leaves
    if clip.holds_last_frame:
        leaves = clip.end
    while shown and middles and middles[0][1] < leaves:
        yield middles.popleft()[0], shown


def _picture_encoder(
    output: av.container.OutputContainer, frame: av.VideoFrame, stream: av.VideoStream, rate: Fraction, *, plain: bool
) -> av.VideoStream:
    encoder = output.add_stream("libx264", rate=rate, options=_ENCODER)
    encoder.width, encoder.height = _fitted(frame, stream)
    encoder.pix_fmt = "yuv420p"
    codec = encoder.codec_context
    codec.thread_count, codec.time_base, codec.gop_size = _THREADS, 1 / rate, round(2 * rate)
    if not plain:
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    elif has_luma(frame):
        codec.colorspace, codec.color_range = frame.colorspace, 1
        codec.color_primaries, codec.color_trc = frame.color_primaries, frame.color_trc
    matrix = display_matrix(frame, stream.codec_context.name)
    if matrix is not None:
        a, b, c, d = matrix
        encoder.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
    return encoder


def _fitted(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Return an even width and height in square pixels, neither above `_MAX_SIDE`."""
    sides = display_size(frame.width, frame.height, aspect=sample_aspect(stream), matrix=None)
    scale = min(Fraction(1), Fraction(_MAX_SIDE, max(sides)))
    width, height = (max(2 * round(side * scale / 2), 2) for side in sides)
    return width, height


def _picture(
    frame: av.VideoFrame, encoder: av.VideoStream, reformatter: VideoReformatter, colours: ColourConverter
) -> av.VideoFrame:
    if not colours.is_plain(frame):
        rgb = colours.rgb(frame, width=encoder.width, height=encoder.height)
        return reformatter.reformat(
            av.VideoFrame.from_ndarray(rgb, format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
    # 1 is the limited range. Untagged videos have it, and every player assumes it for the result.
    source = {"src_color_range": frame.color_range or 1} if has_luma(frame) else {}
    return reformatter.reformat(
        frame, width=encoder.width, height=encoder.height, format="yuv420p", dst_color_range=1, threads=1, **source
    )


def has_luma(frame: av.VideoFrame) -> bool:
    return not (frame.format.is_rgb or frame.format.has_palette)
