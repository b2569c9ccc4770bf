"""Small videos for the tests, and a naive way to choose frames from them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from PIL import Image

from vop.video.decode import VideoDecoder
from vop.video.shape import PixelConverter
from vop.video.source import open_video

logging.getLogger("libav").setLevel(logging.CRITICAL)


def grey_frames(count: int, *, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Frames whose level encodes their number: frame k is grey of level 10 k (up to 25 frames)."""
    return [np.full((height, width, 3), 10 * number, np.uint8) for number in range(count)]


def numbers(frames) -> list[int]:
    """The numbers of frames from `grey_frames`: (f, 3, h, w) -> f numbers."""
    return [round(float(np.asarray(frame, np.float32).mean()) / 10) for frame in frames]


class LateStreams:
    """A container in which streams appear late: PyAV raises an error before the last frames were decoded."""

    def __init__(self, container: av.container.InputContainer) -> None:
        self._container = container

    def __getattr__(self, name: str):
        return getattr(self._container, name)

    def demux(self, streams) -> Iterator[av.Packet]:
        for packet in self._container.demux(streams):
            if not packet.size:
                raise IndexError("list index out of range")
            yield packet


@contextmanager
def open_with_late_streams(path: Path, **settings):
    """Stands in for `open_video`."""
    with open_video(path, **settings) as (container, stream):
        yield LateStreams(container), stream


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int | Fraction = 25,
    stamps: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int | None = None,
    matrix: Sequence[int] | None = None,
    audio: bool = False,
    audio_seconds: float = 0.5,
    **attributes,
) -> Path:
    """Encode RGB frames; `stamps` are presentation times in milliseconds."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = pix_fmt, options or {}
        for name, value in attributes.items():
            setattr(stream.codec_context, name, value)
        if stamps is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if audio:
            write_tone(container, seconds=audio_seconds)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def write_tone(
    container: av.container.OutputContainer, *, seconds: float = 0.5, codec: str = "aac", rate: int = 16000
) -> None:
    stream = container.add_stream(codec, rate=rate, layout="mono")
    samples = np.sin(np.arange(int(rate * seconds)) / 20).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate = rate
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def remux(source: Path, target: Path, bitstream_filter: str = "null", *, most: int | None = None) -> Path:
    """Copy a video stream to another file; a bitstream filter changes its packets, or only the first `most`."""
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        changed = BitStreamFilterContext(bitstream_filter, given.streams.video[0], stream)
        same = BitStreamFilterContext("null", given.streams.video[0])
        packets = (packet for packet in given.demux(video=0) if packet.size)
        for number, packet in enumerate(packets):
            for out in (changed if most is None or number < most else same).filter(packet):
                out.stream = stream
                container.mux(out)
    return Path(target)


def packets_of(path: Path) -> list[tuple[int, int]]:
    """(position, size) of every video packet in a file, in the order of decoding."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def damage(path: Path, which: Sequence[int]) -> None:
    """Overwrite these packets of a file with noise."""
    spots = packets_of(path)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    for number in which:
        position, size = spots[number]
        data[position : position + size] = noise.bytes(size)
    path.write_bytes(data)


def naive_choice(
    times: Sequence[Fraction], end: Fraction, num_frames: int, *, start: Fraction | None = None
) -> list[int]:
    """For each of `num_frames` equal intervals, the last frame that has appeared by its middle."""
    begin = times[0] if start is None else start
    chosen = []
    for interval in range(num_frames):
        middle = begin + (end - begin) * (interval + Fraction(1, 2)) / num_frames
        chosen.append(max([k for k, time in enumerate(times) if time <= middle], default=0))
    return chosen


def naive_square(image: Image.Image, size: int, *, resample: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
    """CLIP's preprocessing by Pillow: (size, size, 3) uint8."""
    scale = size / min(image.size)
    width, height = (max(int(side * scale), size) for side in image.size)
    image = image.resize((width, height), resample)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


# Videos as from cameras, phones and the web: various codecs, rates, sizes, key frame distances, frame orders.
FILMS: dict[str, dict] = {
    "h264.mp4": {"rate": 25, "width": 640, "height": 272, "options": {"preset": "fast", "g": "250", "bf": "3"}},
    "h264-small.mp4": {"rate": Fraction(30000, 1001), "width": 176, "height": 144, "options": {"g": "12", "crf": "35"}},
    "mpeg4.mov": {"codec": "mpeg4", "rate": 15, "width": 320, "height": 240, "bit_rate": 700_000},
    "vp9.webm": {"codec": "libvpx-vp9", "rate": 24, "width": 256, "height": 144, "options": {"cpu-used": "8"}},
}


def write_film(folder: Path, name: str, *, seconds: float = 5) -> Path:
    """A texture that pans under a moving square, with a camera's noise, encoded as `FILMS` says."""
    settings = {**FILMS[name]}
    width, height = settings.pop("width"), settings.pop("height")
    random = np.random.default_rng(0)
    texture = random.integers(16, 236, (height // 8, width // 2, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    noise = random.integers(-6, 7, (height, width + 97, 3)).astype(np.uint8)  # modulo 256; no level leaves 10 to 241
    frames = []
    for number in range(round(seconds * settings["rate"])):
        shift = 37 * number % 97  # a drawing of fresh noise for every frame takes longer than encoding
        frame = texture[:, 2 * number : 2 * number + width] + noise[:, shift : shift + width]
        across = 5 * number % (width - 40)
        frame[40:90, across : across + 40] = 255 - frame[40:90, across : across + 40]
        frames.append(frame)
    return write_clip(folder / name, frames, **settings)


def watch_decoding(monkeypatch) -> tuple[list[int], list[int]]:
    """Record the timestamps of decoded frames, and of frames converted to pixels."""
    decoded, converted = [], []
    frames, square = VideoDecoder._frames, PixelConverter.square

    def watched(*args, **settings):
        for stamp, frame in frames(*args, **settings):
            decoded.append(stamp)
            yield stamp, frame

    def counted(self, frame):
        converted.append(frame.pts)
        return square(self, frame)

    monkeypatch.setattr(VideoDecoder, "_frames", watched)
    monkeypatch.setattr(PixelConverter, "square", counted)
    return decoded, converted
