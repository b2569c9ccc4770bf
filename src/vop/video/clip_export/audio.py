"""Write a clip's audio as AAC, or Opus for WebM: copied if the file has it so, else decoded and encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from vop.video.clip_export.source import ClipSource, Packet, opened_at, time_base_of
from vop.video.probe import codec_name

_COPIED = {"aac": ("aac",), "libopus": ("opus", "vorbis")}  # by encoder: what its place in a file may hold instead
_SAMPLE_RATE = 48000
_MAX_PACKET_SECONDS = 1  # a packet that begins earlier than this ends before the clip

Samples = NDArray[np.float32]  # (channels, n)


def audio_packets(
    clip: ClipSource,
    output: av.container.OutputContainer,
    *,
    copy: bool,
    encoder: str = "aac",
    bit_rate: int | None = None,
) -> list[Packet]:
    """Return the clip's audio, up to the first error. A silent clip is better than no clip.

    Args:
        copy: whether to copy audio that needs no encoding.
        encoder: FFmpeg's encoder, "aac" or "libopus".
        bit_rate: of encoded audio, in bits per second; by default FFmpeg's choice.
    """
    found: list[Packet] = []
    with opened_at(clip) as (_, stream, packets), suppress(av.FFmpegError, ValueError):
        if stream is not None:
            own = (packet for packet in packets if packet.stream_index == stream.index)
            if copy and codec_name(stream) in _COPIED[encoder]:
                found.extend(copied_audio(stream, own, clip, output))
            else:
                found.extend(_encoded(_samples(stream, own, clip), output, encoder, bit_rate))
    return found


def copied_audio(
    stream: av.AudioStream, packets: Iterable[Packet], clip: ClipSource, output: av.container.OutputContainer
) -> Iterator[Packet]:
    """Yield the packets of a clip's audio for a new stream of `output`, in the format of the file.

    In joined recordings, the audio of the second may begin before that of the first ends. What overlaps is left out.
    """
    start, end = (round(time / time_base_of(stream)) for time in (clip.start, clip.end))
    copied = None
    due = start
    for packet in packets:
        if packet.pts is None or packet.pts < due:
            continue
        if packet.pts >= end:
            return
        copied = copied or output.add_stream_from_template(stream, opaque=True)
        due = packet.pts + max((packet.duration or 0) // 2, 1)  # half, since times are rounded
        packet.pts = packet.dts = packet.pts - start
        packet.stream = copied
        yield packet


def _samples(stream: av.AudioStream, packets: Iterable[Packet], clip: ClipSource) -> Iterator[tuple[int, Samples]]:
    """Yield (position, samples); the position in the clip is a number of samples."""
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=_SAMPLE_RATE)
    total = round((clip.end - clip.start) * _SAMPLE_RATE)
    heard = 0  # samples so far; in joined recordings, the audio of the second may begin before that of the first ends
    for frame in _frames(stream, packets):
        if frame.pts is None or frame.pts * time_base_of(frame) < clip.start - _MAX_PACKET_SECONDS:
            continue
        for part in resampler.resample(frame):
            position = round(((part.pts or 0) * time_base_of(part) - clip.start) * _SAMPLE_RATE)
            if position >= total:
                return
            samples = part.to_ndarray().astype(np.float32, copy=False)[:, max(heard - position, 0) : total - position]
            if samples.size:
                begins = max(position, heard)
                yield begins, samples
                heard = begins + samples.shape[1]


def _frames(stream: av.AudioStream, packets: Iterable[Packet]) -> Iterator[av.AudioFrame]:
    for packet in packets:
        try:
            yield from stream.decode(packet)
        except av.FFmpegError:
            continue


def _encoded(
    samples: Iterable[tuple[int, Samples]], output: av.container.OutputContainer, encoder: str, bit_rate: int | None
) -> Iterator[Packet]:
    encoded: av.AudioStream | None = None
    for position, part in samples:
        layout = "mono" if len(part) == 1 else "stereo"
        if encoded is None:
            stream = output.add_stream(encoder, rate=_SAMPLE_RATE, layout=layout)
            assert isinstance(stream, av.AudioStream)
            encoded = stream
            if bit_rate:
                encoded.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = _SAMPLE_RATE, position, Fraction(1, _SAMPLE_RATE)
        yield from encoded.encode(frame)
    if encoded:
        yield from encoded.encode()
