"""Measure `vop index`, and its two limits: decoding alone and embedding alone.

python bench/index.py [--model mini] [--videos 24] [--seconds 60] [--times 1] [--copies 1] [--size 640x360]
                      [--repeats 3] [--json]

The script generates the videos: the panning picture of bench/decode.py with different starting points, encoded with
x264's fast preset at 25 frames per second. For many hours of video, it encodes the seconds once, repeats them within
the video (`--times`), and writes every video more than once, each with other bytes at its end (`--copies`). The three
measurements alternate in one process with the same threads and batches. With an accelerator, indexing takes at least
the larger of the two times. If decoding and embedding share the same cores, it takes at least their sum, which is also
reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import av
import torch

from decode import Clip, mux_repeatedly, pictures
from vop.search.manifest import Manifest, SegmentationConfig
from vop.search.models import describe, open_model
from vop.search.pipeline import run
from vop.search.store import Store
from vop.search.sync import index
from vop.search.sync.reader import Reader
from vop.storage.scratch import Scratch
from vop.utils.threads import usable_cores
from vop.video.find import find_videos
from vop.video.isolated import DecodingProcesses

RATE, BATCH = 25, 16


def make_videos(folder: Path, arguments: argparse.Namespace) -> None:
    width, height = map(int, arguments.size.split("x"))
    for number in range(arguments.videos):
        path = folder / f"{number:03}.mp4"
        make_video(path, number=number, seconds=arguments.seconds, width=width, height=height, times=arguments.times)
        for copy in range(1, arguments.copies):
            free = struct.pack(">I4sI", 12, b"free", copy)  # a box that players skip
            path.with_name(f"{number:03}-{copy}.mp4").write_bytes(path.read_bytes() + free)


def make_video(path: Path, *, number: int, seconds: float, width: int, height: int, times: int = 1) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "fast"}
        first = 7 * number  # all videos differ
        last = first + round(seconds * RATE)
        clip = Clip(seconds=last, times=1, key_distance=250, width=width, height=height)
        packets = [packet for frame in islice(pictures(clip), first, last) for packet in stream.encode(frame)]
        mux_repeatedly(container, packets + stream.encode(), times)


def decode_alone(folder: Path, library: Store, workers: int) -> int:
    """Decode all segments and make their thumbnail strips with the same threads, without embedding."""
    nothing = partial(lambda e, frames: [torch.zeros(len(frames), e)], 1)
    with Scratch() as scratch, DecodingProcesses() as processes:
        reader = Reader(library, {}, processes, scratch)
        done = run(find_videos([folder]).files, reader.read_video, nothing, workers=workers, batch_size=BATCH)
        return sum(len(finished.clips) for finished in done)


def embed_alone(model, segments: int) -> None:
    frames = torch.randint(0, 256, (BATCH, model.num_frames, 3, model.image_size, model.image_size), dtype=torch.uint8)
    for start in range(0, segments, BATCH):
        model.encode_frames(frames[: min(BATCH, segments - start)], batch_size=BATCH)


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(model_name: str, folder: Path, *, repeats: int, workers: int) -> dict:
    model = open_model(model_name)
    described = describe(model, name=model_name, column="embedding_1")
    about = Manifest(
        table="segments_bench",
        models=(described,),
        num_frames=model.num_frames,
        image_size=model.image_size,
        segmentation=SegmentationConfig(),
    )
    times: dict[str, list[float]] = {"decode": [], "embed": [], "index": []}
    with tempfile.TemporaryDirectory() as scratch:
        library = Store.create(Path(scratch, "decode"), about)
        for number in range(repeats):
            seconds, segments = timed(partial(decode_alone, folder, library, workers))
            times["decode"].append(seconds)
            times["embed"].append(timed(partial(embed_alone, model, segments))[0])
            place = Path(scratch, f"library-{number}")
            report = index(place, [folder], model=model_name, workers=workers, batch_size=BATCH)
            times["index"].append(report.seconds)
            hours, videos = report.hours, report.added
    decode, embed, whole = (statistics.median(times[name]) for name in ("decode", "embed", "index"))
    return {
        "model": model_name,
        "segments": segments,
        "videos": videos,
        "hours": hours,
        "decode_seconds": decode,
        "embed_seconds": embed,
        "index_seconds": whole,
        "videos_per_second": videos / whole,
        "hours_per_hour": hours * 3600 / whole,
        "to_the_larger_limit": whole / max(decode, embed),
        "to_their_sum": whole / (decode + embed),
        "cores": usable_cores(),
        "device": str(model.device),
        "precision": described.precision,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=int, default=1, help="How often a video repeats its seconds.")
    parser.add_argument("--copies", type=int, default=1, help="How many files each video is written to.")
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), arguments)
        found = measure(arguments.model, Path(folder), repeats=arguments.repeats, workers=arguments.workers)
    found |= {"size": arguments.size, "seconds_a_video": arguments.seconds * arguments.times}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:22} {value:.3f}" if isinstance(value, float) else f"{name:22} {value}")


if __name__ == "__main__":
    main()
