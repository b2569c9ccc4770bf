"""A moment's sound as AAC: copied where it is that already, else decoded and encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np

from vop.server.media.reading import Moment, reading
from vop.video.probe import codec_name

_SOUND_RATE = 48000
_LONGEST_SOUND = 1  # seconds of sound in one packet; what begins earlier does not reach into the moment


def sound_packets(moment: Moment, output: av.container.OutputContainer, *, copy: bool) -> list[av.Packet]:
    """The moment's sound as AAC, as far as it can be had: a video without its sound is better than none."""
    found: list[av.Packet] = []
    with reading(moment) as (_, stream, packets), suppress(av.FFmpegError, ValueError):
        if stream is not None:
            own = (packet for packet in packets if packet.stream_index == stream.index)
            if copy and codec_name(stream) == "aac":
                found.extend(_copied_sound(stream, own, moment, output))
            else:
                found.extend(_encoded_sound(_samples(stream, own, moment), output))
    return found


def _copied_sound(
    stream: av.AudioStream, packets: Iterable[av.Packet], moment: Moment, output: av.container.OutputContainer
) -> Iterator[av.Packet]:
    start, end = round(moment.start / stream.time_base), round(moment.end / stream.time_base)
    copied = None
    for packet in packets:
        if packet.pts is None or packet.pts < start:
            continue
        if packet.pts >= end:
            return
        copied = copied or output.add_stream_from_template(stream, opaque=True)
        packet.pts = packet.dts = packet.pts - start
        packet.stream = copied
        yield packet


def _samples(stream: av.AudioStream, packets: Iterable[av.Packet], moment: Moment) -> Iterator[tuple[int, np.ndarray]]:
    """(position, samples): where in the moment these float32 samples (channels, n) are heard."""
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=_SOUND_RATE)
    total = round((moment.end - moment.start) * _SOUND_RATE)
    heard = 0  # samples so far: where recordings were joined, the sound of the second may begin within the first's
    for frame in _sound_frames(packets):
        if frame.pts is None or frame.pts * frame.time_base < moment.start - _LONGEST_SOUND:
            continue
        for part in resampler.resample(frame):
            position = round((part.pts * part.time_base - moment.start) * _SOUND_RATE)
            if position >= total:
                return
            samples = part.to_ndarray()[:, max(heard - position, 0) : total - position]
            if samples.size:
                begins = max(position, heard)
                yield begins, samples
                heard = begins + samples.shape[1]


def _sound_frames(packets: Iterable[av.Packet]) -> Iterator[av.AudioFrame]:
    for packet in packets:
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue


def _encoded_sound(
    samples: Iterable[tuple[int, np.ndarray]], output: av.container.OutputContainer
) -> Iterator[av.Packet]:
    encoder = None
    for position, part in samples:
        layout = "mono" if len(part) == 1 else "stereo"
        encoder = encoder or output.add_stream("aac", rate=_SOUND_RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = _SOUND_RATE, position, Fraction(1, _SOUND_RATE)
        yield from encoder.encode(frame)
    if encoder:
        yield from encoder.encode()
