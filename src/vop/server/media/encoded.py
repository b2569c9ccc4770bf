"""A moment's pictures decoded, brought to a constant rate, and encoded as H.264."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from math import ceil

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vop.server.media.reading import Moment, reading

_LONGEST_SIDE = 1280
_ENCODER = {"preset": "veryfast", "crf": "26"}
_RATES = (10, 30)  # frames per second: slower sources repeat frames, faster ones are thinned out
_THREADS = 2


def encoded_pictures(moment: Moment, output: av.container.OutputContainer) -> Iterator[av.Packet]:
    """Packets of a new stream of `output`; none where nothing is shown."""
    rate = _output_rate(moment.rate)
    reformatter = VideoReformatter()
    encoder = None
    with reading(moment) as (stream, _, packets):
        for tick, frame in _at_ticks(_frames(stream, packets, moment), moment, rate):
            encoder = encoder or _picture_encoder(output, frame, stream, rate)
            picture = _picture(frame, encoder, reformatter)
            picture.pts, picture.time_base, picture.pict_type = tick, 1 / rate, 0
            yield from encoder.encode(picture)
        if encoder:
            yield from encoder.encode()


def _output_rate(rate: Fraction) -> Fraction:
    slowest, fastest = _RATES
    rate = rate / ceil(rate / fastest)
    return rate * ceil(slowest / rate)


def _frames(
    stream: av.VideoStream, packets: Iterable[av.Packet], moment: Moment
) -> Iterator[tuple[Fraction, Fraction, av.VideoFrame]]:
    """(appears, leaves, frame): intact frames in the order of presentation, with their times."""
    codec = stream.codec_context
    codec.thread_type, codec.thread_count = "AUTO", _THREADS
    decoded: deque[Fraction] = deque()  # times of decoding
    pictures = (packet for packet in packets if packet.stream_index == stream.index)
    for number, packet in enumerate(chain(pictures, [None])):  # None: give what is held back
        if packet is not None and packet.size:
            decoded.append(moment.first + number / moment.rate if moment.counted else moment.time_of(packet))
        try:
            frames = codec.decode(packet)
        except av.FFmpegError:
            continue
        for frame in frames:
            stamp = decoded.popleft() if decoded else None
            if not moment.ordinal:
                stamp = None if frame.pts is None else frame.pts * stream.time_base
            if stamp is not None and not frame.is_corrupt:
                duration = 0 if moment.ordinal else frame.duration * stream.time_base
                yield stamp, stamp + (duration or 1 / moment.rate), frame


def _at_ticks(
    frames: Iterable[tuple[Fraction, Fraction, av.VideoFrame]], moment: Moment, rate: Fraction
) -> Iterator[tuple[int, av.VideoFrame]]:
    """For each interval of a constant rate its number and the frame on display in its middle."""
    count = max(round((moment.end - moment.start) * rate), 1)
    middles = deque((tick, moment.start + (tick + Fraction(1, 2)) / rate) for tick in range(count))
    shown, leaves = None, None
    for appears, next_leaves, frame in frames:
        while shown and middles and middles[0][1] < appears:
            yield middles.popleft()[0], shown
        if not middles:
            return
        shown, leaves = frame, next_leaves
    while shown and middles and middles[0][1] < leaves:
        yield middles.popleft()[0], shown


def _picture_encoder(
    output: av.container.OutputContainer, frame: av.VideoFrame, stream: av.VideoStream, rate: Fraction
) -> av.VideoStream:
    encoder = output.add_stream("libx264", rate=rate, options=_ENCODER)
    encoder.width, encoder.height = _fitted(frame, stream)
    encoder.pix_fmt = "yuv420p"
    codec = encoder.codec_context
    codec.thread_count, codec.time_base, codec.gop_size = _THREADS, 1 / rate, round(2 * rate)
    if _has_luma(frame):
        codec.colorspace, codec.color_range = frame.colorspace, 1
        codec.color_primaries, codec.color_trc = frame.color_primaries, frame.color_trc
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        encoder.set_display_matrix(np.frombuffer(bytes(matrix), dtype=np.int32).tolist())
    return encoder


def _fitted(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Width and height in square pixels, even, the longer one no more than allowed."""
    aspect = stream.sample_aspect_ratio or 1
    width = frame.width * (aspect if Fraction(1, 4) < aspect < 4 else 1)
    scale = min(1, Fraction(_LONGEST_SIDE) / max(width, frame.height))
    return tuple(max(2 * round(side * scale / 2), 2) for side in (width, frame.height))


def _picture(frame: av.VideoFrame, encoder: av.VideoStream, reformatter: VideoReformatter) -> av.VideoFrame:
    # 1 is the limited range, which is what a video without a tag has, and what every player takes the result for.
    source = {"src_color_range": frame.color_range or 1} if _has_luma(frame) else {}
    return reformatter.reformat(
        frame, width=encoder.width, height=encoder.height, format="yuv420p", dst_color_range=1, threads=1, **source
    )


def _has_luma(frame: av.VideoFrame) -> bool:
    return not (frame.format.is_rgb or frame.format.has_palette)
