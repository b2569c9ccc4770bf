"""Measure the memory that a training step takes on the CPU: for a whole batch, in chunks, and with recomputed layers.

    python bench/training_memory.py [--method vop-f+p] [--videos 16] [--frames 12] [--chunk 4] [--threads 1]

Weights are random ViT-B/32 in fp32. The memory is the peak of the process (VmHWM of Linux) above what it has before the
step. Each row is the second step of a process of its own; the first one allocates what stays. Times are of the CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from train_step import build, make_batch
from vop.backbones.layers import recompute_layers
from vop.backbones.sizes import VIT_B_32
from vop.training.gradient_cache import cached_gradient
from vop.training.loss import contrastive_loss

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def megabytes(name: str) -> float:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    model = build(args.method, VIT_B_32, frames=args.frames, dtype=torch.float32)
    recompute_layers(model, args.recompute)
    ids, frames = make_batch(VIT_B_32, videos=args.videos, frames=args.frames, tokens=32)
    rows = torch.arange(args.videos)

    def loss(texts: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
        return contrastive_loss(model.logits(texts, videos), rows, rows)

    size = args.chunk or args.videos
    chunks = list(zip(ids.split(size), frames.split(size), strict=True))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        if len(chunks) == 1:
            loss(*model(ids, frames)).backward()
        else:
            cached_gradient(chunks, lambda chunk: model(*chunk), loss, seeds=range(len(chunks) + 1))

    step()
    CLEAR.write_text("5")  # begin a new peak
    before, started = megabytes("VmRSS"), time.process_time()
    step()
    print(f"{megabytes('VmHWM') - before:8.0f} MB {time.process_time() - started:8.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="vop-f+p")
    parser.add_argument("--videos", type=int, default=16, help="Videos and captions of the batch.")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--chunk", type=int, help="Videos of a chunk; by default a quarter of them.")
    parser.add_argument("--recompute", action="store_true", help="Only with --one.")
    parser.add_argument("--one", action="store_true", help="Measure only the row of these options.")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.one:
        measure(args)
        return
    chunk = args.chunk or max(1, args.videos // 4)
    given = ["--method", args.method, "--videos", str(args.videos), "--frames", str(args.frames)]
    for options in ([], ["--chunk", str(chunk)], ["--recompute"], ["--chunk", str(chunk), "--recompute"]):
        command = [sys.executable, __file__, "--one", *given, "--threads", str(args.threads), *options]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed tensors go back to the system
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        print(f"{args.method} {args.videos} x {args.frames} {' '.join(options):24} {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
