"""Compare decoders on 12 frames of videos from 15 s to 2 h: vop and its frame cache, decord, torchcodec and OpenCV.

python bench/decode.py [--clips DIR] [--rows 15s,2h-250] [--ways ours,decord] [--container mp4] [--threads 1]
                       [--repeats 5] [--json]

The script generates the clips: H.264 with x264's medium preset, 30 frames per second, a noisy texture that pans, at a
bit rate typical of web videos. This takes some minutes and 1.8 GB; `--clips` keeps the clips for later runs.

All decoders return the frames on display in the middle of 12 equal intervals, scaled and cropped to 224 x 224 by the
same code. They differ only in how they read the file. A decoder that returns other frames, or whose package is not
installed, is skipped with a note. CPU time is the sum over all threads.

The extra `bench` installs OpenCV. Install the others by hand: decord, which is unmaintained, with `pip install
decord==0.6.0` (Linux on x86-64); torchcodec with the FFmpeg libraries of the system (apt-get install ffmpeg) and the
release that fits PyTorch, for 2.13 `pip install torchcodec==0.13.0`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import tempfile
import textwrap
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import OutputContainer

from vop.datasets.frames import FrameStore
from vop.datasets.types import Video
from vop.video.frames import decode_frames
from vop.video.resizing import Resizing
from vop.video.shape import square

NUM_FRAMES, SIZE, RATE = 12, 224, 30
MAX_DIFFERENCE = 3  # mean of 256 levels between two frames; more than rounding, less than to the next frame


class Clip(NamedTuple):
    """A clip of `times` repetitions of the same `seconds`. `key_distance` is a number of frames."""

    seconds: int
    times: int
    key_distance: int
    width: int = 640
    height: int = 360
    bit_rate: int = 800_000


# With these lengths the distances of the wanted frames from their key frames are evenly distributed.
CLIPS = {
    "15s": Clip(15, 1, 1_000_000, width=320, height=240, bit_rate=300_000),  # the first frame is the only key frame
    "3min-250": Clip(180, 1, 250),
    "3min-60": Clip(180, 1, 60),
    "10min-250": Clip(125, 5, 250),
    "10min-150": Clip(125, 5, 150),
    "10min-30": Clip(125, 5, 30),
    "2h-250": Clip(154, 47, 250),
    "2h-60": Clip(154, 47, 60),
}


@dataclass(frozen=True)
class Request:
    """The frames to decode: their numbers, and times in seconds at which they are on display."""

    path: Path
    numbers: list[int]
    seconds: list[float]
    threads: int
    cache: Path


def pictures(clip: Clip) -> Iterator[av.VideoFrame]:
    """Render a texture that pans under a moving square, with noise as from a camera."""
    random = np.random.default_rng(0)
    turn = 4 * clip.width
    tiles = np.kron(random.integers(16, 236, (clip.height // 8, turn // 8)), np.ones((8, 8)))
    texture = np.hstack([tiles, tiles]).astype(np.int16)
    noise = random.integers(-6, 7, (clip.height + 64, clip.width + 64), dtype=np.int16)
    colour = np.full((clip.height // 2, clip.width), 128, np.uint8)
    for number in range(RATE * clip.seconds):
        pan, top, left = 2 * number % turn, *random.integers(64, size=2)
        luma = texture[:, pan : pan + clip.width] + noise[top : top + clip.height, left : left + clip.width]
        across = 5 * number % (clip.width - 60)
        luma[90:150, across : across + 60] = 255 - luma[90:150, across : across + 60]
        planes = np.vstack([luma.clip(0, 255).astype(np.uint8), colour])
        yield av.VideoFrame.from_ndarray(planes, format="yuv420p")


def make_clip(clip: Clip, path: Path) -> None:
    """Encode the clip's seconds once and repeat their packets with later timestamps up to its length."""
    distance = str(clip.key_distance)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = clip.width, clip.height, "yuv420p", clip.bit_rate
        stream.options = {"g": distance, "keyint_min": distance, "sc_threshold": "0"}
        packets = [packet for picture in pictures(clip) for packet in stream.encode(picture)] + stream.encode()
        mux_repeatedly(container, packets, clip.times)


def mux_repeatedly(container: OutputContainer, packets: list[av.Packet], times: int) -> None:
    """Write all packets, one for each frame, several times, with later timestamps each time."""
    stamps = [(packet.pts, packet.dts) for packet in packets]
    for start in range(0, times * len(packets), len(packets)):
        for packet, (pts, dts) in zip(packets, stamps, strict=True):
            packet.time_base, packet.duration = Fraction(1, RATE), 1
            packet.pts, packet.dts = pts + start, dts + start
            container.mux(packet)


def kept_clip(name: str, folder: Path, container: str) -> Path:
    path = folder / f"{name}.{container}"
    if not path.exists():
        unfinished = folder / f"unfinished-{path.name}"
        make_clip(CLIPS[name], unfinished)
        unfinished.rename(path)
    return path


def ask_for_middles(path: Path, *, threads: int, cache: Path) -> Request:
    """Return the frames on display in the middle of equal intervals, from the packet times of the file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = sorted((packet.pts, packet.duration) for packet in container.demux(stream) if packet.size)
    first, length = shown[0][0], sum(shown[-1]) - shown[0][0]
    middles = [first + length * Fraction(2 * k + 1, 2 * NUM_FRAMES) for k in range(NUM_FRAMES)]
    numbers = [bisect_right(shown, middle, key=lambda packet: packet[0]) - 1 for middle in middles]
    seconds = [float((shown[n][0] + Fraction(shown[n][1], 2)) * stream.time_base) for n in numbers]
    return Request(path, numbers, seconds, threads, cache)


def by_ours(request: Request) -> np.ndarray:
    return np.asarray(
        decode_frames(request.path, num_frames=NUM_FRAMES, resizing=Resizing(SIZE), threads=request.threads)
    )


def by_cache(request: Request) -> np.ndarray:
    """Return the frames of `by_ours` from the cache."""
    return np.asarray(FrameStore(NUM_FRAMES, Resizing(SIZE), cache=request.cache).load(Video("clip", request.path)))


def by_decord(request: Request) -> np.ndarray:
    import decord

    reader = decord.VideoReader(str(request.path), ctx=decord.cpu(0), num_threads=request.threads)
    return squares(reader.get_batch(request.numbers).asnumpy())


def by_torchcodec(mode: str, request: Request) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    path, threads = str(request.path), request.threads
    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode=mode)
    return squares(decoder.get_frames_played_at(request.seconds).data.numpy())


def by_opencv(request: Request) -> np.ndarray:
    """Seek to each frame number and read a frame, as retrieval code usually does."""
    import cv2

    capture = cv2.VideoCapture(str(request.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, request.threads])
    frames = []
    for number in request.numbers:
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        found, pixels = capture.read()
        if not found:
            raise ValueError(f"frame {number} is not found")
        frames.append(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    return squares(frames)


def squares(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Scale and crop frames (h, w, 3) as vop does."""
    return np.stack([square(frame, resizing=Resizing(SIZE)) for frame in frames])


class Way(NamedTuple):
    package: str
    get: Callable[[Request], np.ndarray]


WAYS = {
    "ours": Way("vop", by_ours),
    "decord": Way("decord", by_decord),
    "torchcodec-exact": Way("torchcodec", partial(by_torchcodec, "exact")),
    "torchcodec-approximate": Way("torchcodec", partial(by_torchcodec, "approximate")),
    "opencv": Way("cv2", by_opencv),
    "cache": Way("vop", by_cache),
}


def objection(way: Way, asked: Request, expected: np.ndarray) -> str | None:
    """Return the reason why a decoder cannot be measured, or None. This also warms it up."""
    try:
        importlib.import_module(way.package)
    except (ImportError, OSError, RuntimeError) as error:  # a dependency of the package fails
        return f"skipped: {reason(error)}"
    try:
        frames = way.get(asked)
    except Exception as error:  # every package has its own exceptions
        return f"fails: {reason(error)}"
    difference = np.abs(frames.astype(np.int16) - expected).reshape(NUM_FRAMES, -1).mean(axis=1).max()
    return None if difference < MAX_DIFFERENCE else f"gives other frames: one is {difference:.0f} levels away"


def reason(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder=" …")


def measure(ways: dict[str, Way], asked: Request, repeats: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each decoder. They alternate, so that a busy machine disturbs all alike."""
    walls: dict[str, list[float]] = {name: [] for name in ways}
    processors: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            way.get(asked)
            walls[name].append(1000 * (time.perf_counter() - wall))
            processors[name].append(1000 * (time.process_time() - processor))
    return {
        name: {"wall_ms": statistics.median(walls[name]), "processor_ms": statistics.median(processors[name])}
        for name in ways
    }


def run(path: Path, ways: dict[str, Way], *, threads: int, repeats: int) -> dict:
    """Return the milliseconds of the decoders for one clip, and notes on skipped decoders."""
    with tempfile.TemporaryDirectory() as cache:
        asked = ask_for_middles(path, threads=threads, cache=Path(cache))
        expected = by_ours(asked)
        peers = {name: way for name, way in ways.items() if name != "ours"}
        notes = {name: note for name, way in peers.items() if (note := objection(way, asked, expected))}
        times = measure({name: way for name, way in ways.items() if name not in notes}, asked, repeats)
    return {"megabytes": path.stat().st_size / 1e6, "milliseconds": times, "notes": notes}


def show(name: str, row: dict) -> None:
    title = f"{name}, {row['megabytes']:.1f} MB"
    print(f"\n{title:<26} {'wall':>10} {'processor':>13}")
    for way, times in row["milliseconds"].items():
        print(f"  {way:<24} {times['wall_ms']:7.1f} ms {times['processor_ms']:10.1f} ms")
    for way, note in row["notes"].items():
        print(f"  {way:<24} {note}")


def some_of(known: Iterable[str], text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", metavar="DIR", help="Folder that keeps the clips.")
    parser.add_argument("--rows", type=partial(some_of, CLIPS), default=list(CLIPS), help=f"Any of {', '.join(CLIPS)}.")
    parser.add_argument("--ways", type=partial(some_of, WAYS), default=list(WAYS), help=f"Any of {', '.join(WAYS)}.")
    parser.add_argument("--container", choices=("mp4", "mkv", "ts"), default="mp4")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each decoder.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = {}
    with nullcontext(given.clips) if given.clips else tempfile.TemporaryDirectory() as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in given.rows:
            path = kept_clip(name, Path(folder), given.container)
            ways = {way: WAYS[way] for way in given.ways}
            rows[name] = run(path, ways, threads=given.threads, repeats=given.repeats)
            if not given.json:
                show(name, rows[name])
    if given.json:
        about = {"container": given.container, "threads": given.threads, "repeats": given.repeats}
        print(json.dumps({**about, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
