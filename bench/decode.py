"""12 frames of a 15 s clip with one key frame: one forward pass against an OpenCV seek per frame, and the cache.

python bench/decode.py [--repeats 9] [--json]

The clip is made here: 320 x 240, 30 frames a second, H.264 by x264's medium preset. All ways give the same frames,
scaled and cropped to 224 x 224 by the same code; what differs is how the frames are got at.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from vop.data.frames import FrameStore
from vop.data.types import Video
from vop.video.decode import decode_frames
from vop.video.pixels import square

WIDTH, HEIGHT, RATE, SECONDS = 320, 240, 30, 15
NUM_FRAMES, SIZE = 12, 224


def make_clip(path: Path) -> None:
    """A textured background that pans under a moving square, with some noise, as a camera gives."""
    random = np.random.default_rng(0)
    tiles = random.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    background = np.kron(tiles, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": "100000", "keyint_min": "100000", "sc_threshold": "0"}
        for number in range(RATE * SECONDS):
            pixels = np.roll(background, 2 * number, axis=1).astype(np.int16)
            left = 5 * number % (WIDTH - 60)
            pixels[90:150, left : left + 60] = 255 - pixels[90:150, left : left + 60]
            pixels += random.integers(-4, 5, pixels.shape, dtype=np.int16)
            frame = av.VideoFrame.from_ndarray(pixels.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def by_opencv_seeks(path: Path) -> torch.Tensor:
    """What retrieval code usually does: set the position to each index, read a frame."""
    capture = cv2.VideoCapture(str(path))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    frames = []
    for interval in range(NUM_FRAMES):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int((interval + 0.5) * total / NUM_FRAMES))
        found, pixels = capture.read()
        assert found
        frames.append(square(torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)), size=SIZE))
    capture.release()
    return torch.stack(frames)


def measure(ways: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each way, taken by turns, so that a busy machine disturbs all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def run(repeats: int, threads: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        video = Video("clip", Path(folder, "clip.mp4"))
        make_clip(video.path)
        cached = FrameStore(NUM_FRAMES, SIZE, cache=Path(folder, "cache"))
        ways = {
            "opencv_seeks": lambda: by_opencv_seeks(video.path),
            "one_pass": lambda: decode_frames(video.path, num_frames=NUM_FRAMES, size=SIZE, threads=threads),
            "cache": lambda: cached.load(video),
        }
        results = {name: work() for name, work in ways.items()}  # this also warms everything up
        assert torch.equal(results["one_pass"], results["cache"]), "the cache gives other bits"
        difference = (results["one_pass"].int() - results["opencv_seeks"].int()).abs().float().mean().item()
        assert difference < 3, "the two ways give other frames"
        medians = measure(ways, repeats)
    return {
        "repeats": repeats,
        "decoder_threads": threads,
        "milliseconds": medians,
        "one_pass_against_opencv": medians["opencv_seeks"] / medians["one_pass"],
        "cache_against_one_pass": medians["one_pass"] / medians["cache"],
        "mean_difference_in_levels": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of our decoder; OpenCV takes all cores")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.repeats, arguments.threads)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, milliseconds in result["milliseconds"].items():
        print(f"{name:<14} {milliseconds:8.2f} ms")
    print(f"one pass: {result['one_pass_against_opencv']:.1f} times as fast as OpenCV's seeks")
    print(f"cache:    {result['cache_against_one_pass']:.0f} times as fast as one pass")


if __name__ == "__main__":
    main()
