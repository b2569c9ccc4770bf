"""Measure what compiled layers give and cost: towers of random weights with and without, by turns in one process.

    python bench/compiling.py [--backbone ViT-B/32] [--precision bf16] [--videos 1] [--repeats 5] [--device cpu]

Embedding videos of 12 frames, and a training step (both towers forward, and back to the pixels and the positions of the
captions, as prompts need it). "First" is the first pass, which compiles; PyTorch keeps what it compiled on the disk, in
the folder TORCHINDUCTOR_CACHE_DIR, so a second run of the script shows a warm start. On a CPU, times are processor time
of all threads, because other programs share the machine; use OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from vop.backbones import find_sizes
from vop.backbones.compiling import check_compiler, compile_layers
from vop.backbones.speed import NUM_FRAMES, random_ids, random_pixels
from vop.backbones.towers import CLIP
from vop.utils.device import PRECISIONS
from vop.utils.timing import timed


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    if device.type != "cpu":
        return timed(work, device)
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ViT-B/32", help="A backbone with layers (default: ViT-B/32).")
    parser.add_argument("--precision", default="bf16", choices=list(PRECISIONS))
    parser.add_argument("--videos", type=int, default=1, help="Videos of 12 frames in a batch, with 8 captions each.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    plain = CLIP(find_sizes(arguments.backbone)).eval().requires_grad_(False).to(device)
    plain.compute_in(PRECISIONS[arguments.precision])
    ways = {"plain": plain, "compiled": copy.deepcopy(plain)}
    started = time.perf_counter()
    check_compiler(device.type)
    print(f"loading the compiler and trying it: {time.perf_counter() - started:.1f} s")
    compile_layers(ways["compiled"])
    pixels = random_pixels(plain.sizes, arguments.videos, frames=NUM_FRAMES).to(device)
    ids = random_ids(plain.sizes.text, arguments.videos * 8).to(device)

    @torch.no_grad()
    def embed(clip: CLIP) -> None:
        clip.embed_frames(pixels)

    def step(clip: CLIP) -> None:
        clip.text.positions.requires_grad_(True)
        videos = clip.embed_frames(pixels.clone().requires_grad_(True))
        (videos.float().sum() + clip.embed_tokens(ids).float().sum()).backward()
        clip.text.positions.requires_grad_(False)
        clip.text.positions.grad = None

    for name, work in (("embedding", embed), ("step", step)):
        report(name, work, ways, repeats=arguments.repeats, device=device)


def report(
    name: str, work: Callable[[CLIP], None], ways: dict[str, CLIP], *, repeats: int, device: torch.device
) -> None:
    first = {way: timed(partial(work, clip), device) for way, clip in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, clip in ways.items():
            seconds[way].append(seconds_of(partial(work, clip), device))
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    print(
        f"{name}: plain {middle['plain'] * 1000:.0f} ms, compiled {middle['compiled'] * 1000:.0f} ms, "
        f"{middle['plain'] / middle['compiled']:.2f} times as fast; first pass {first['compiled']:.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
