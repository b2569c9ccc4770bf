"""Videos with subtitle tracks and speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet

RATE = 5  # frames per second
Cue = tuple[float, float, str]  # start and end in seconds, text


def srt(*cues: Cue) -> str:
    return "".join(f"{i}\n{_clock(a)} --> {_clock(b)}\n{text}\n\n" for i, (a, b, text) in enumerate(cues, start=1))


def _clock(seconds: float) -> str:
    millis = round(seconds * 1000)
    return f"{millis // 3600000:02}:{millis // 60000 % 60:02}:{millis // 1000 % 60:02},{millis % 1000:03}"


def write_media(
    path: Path,
    *,
    seconds: float = 4.0,
    seed: int = 0,
    begins: float = 0.0,
    tracks: Sequence[tuple[str, Mapping[str, str], Sequence[Cue]]] = (),
    images: str | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 22_050,
    sound_begins: float = 0.0,
) -> Path:
    """Write a video of random colours.

    Args:
        begins: the time of the first frame in the file.
        tracks: codec, metadata and cues of subtitle tracks; the times of cues are those in the file.
        images: codec of a track of pictures, without content.
        sound: int16 (samples,).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 255, (round(seconds * RATE), 3, 4, 3), dtype=np.uint8)
    webm = path.suffix == ".webm"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libvpx" if webm else "libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.options = {} if webm else {"bf": "0", "preset": "ultrafast"}
        video.codec_context.time_base = video.time_base = Fraction(1, 1000)
        heard = (
            None if sound is None else container.add_stream("libopus" if webm else "aac", rate=48_000, layout="mono")
        )
        texts = []
        for codec, metadata, _ in tracks:
            stream = container.add_stream(codec)
            stream.time_base = Fraction(1, 1000)
            stream.codec_context.subtitle_header = _HEADER
            stream.metadata.update(metadata)
            texts.append(stream)
        if images is not None:
            picture = container.add_stream(images)
            picture.time_base = Fraction(1, 1000)
        packets = []
        for number, blocks in enumerate(colours):
            frame = av.VideoFrame.from_ndarray(np.kron(blocks, np.ones((16, 16, 1), np.uint8)), format="rgb24")
            frame.pts, frame.time_base = round(1000 * (begins + number / RATE)), Fraction(1, 1000)
            packets += video.encode(frame)
        packets += video.encode()
        if heard is not None and sound is not None:
            packets += _encoded(heard, sound, sound_rate, sound_begins)
        for stream, (_, _, cues) in zip(texts, tracks, strict=True):
            for start, end, text in cues:
                millis = round(1000 * (end - start))
                cue = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, millis, round(1000 * start))
                packet = stream.codec_context.encode_subtitle(cue)
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = round(1000 * start)
                packet.duration = millis
                packets.append(packet)
        for packet in sorted(packets, key=lambda one: one.pts * one.time_base):
            container.mux(packet)
    return path


def _encoded(stream, sound: np.ndarray, rate: int, begins: float) -> list[av.Packet]:
    frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, round(begins * rate), Fraction(1, rate)
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=48_000, frame_size=960)
    packets = []
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        packets += stream.encode(part)
    return packets + stream.encode()


_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize\r\n"
    b"Style: Default,Arial,16\r\n\r\n[Events]\r\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)
