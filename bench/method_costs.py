"""Measure what each method costs: multiply-adds and time of a video's embedding, and time of a training step.

    python bench/method_costs.py [--methods tempme,stop] [--precision fp32] [--videos 2] [--repeats 3] [--json]

ViT-B/32 with random weights; videos of 12 frames, and one caption for each. Times are processor time of one thread:
medians by turns with those of `vop`, so that other work on the machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from train_step import Step, build, make_batch
from vop import methods
from vop.backbones.sizes import VIT_B_32
from vop.models.model import TextVideoModel
from vop.utils.device import PRECISIONS

FRAMES, TOKENS = 12, 32
REFERENCE = "vop"
COLUMNS = {
    "multiply_adds": "billion multiply-adds of a video",
    "embedding": "embedding of a video, of `vop`'s time",
    "step": "training step, of `vop`'s time",
}


class Costs:
    """One method's model, and what it does."""

    def __init__(self, method: str, ids: Tensor, frames: Tensor, *, dtype: torch.dtype) -> None:
        self.model: TextVideoModel = build(method, VIT_B_32, frames=FRAMES, dtype=dtype)
        self._pixels = self.model.normalise(frames)
        is_trained = any(parameter.requires_grad for parameter in self.model.parameters())
        self.step: Callable[[], object] | None = Step(self.model, ids, self._pixels) if is_trained else None

    @torch.no_grad()
    def embed(self) -> None:
        self.model.eval()
        self.model.embed_frames(self._pixels)
        self.model.train()

    def multiply_adds(self) -> float:
        """Return the billions of multiply-adds of one video's embedding."""
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # it does not count the fused one
            self.embed()
        return counter.get_total_flops() / 2 / len(self._pixels) / 1e9


def processor_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def by_turns(works: Iterable[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median seconds of each piece of work, after one pass that warms up."""
    works = list(works)
    for work in works:
        work()
    turns = [[processor_seconds(work) for work in works] for _ in range(repeats)]
    return [statistics.median(seconds) for seconds in zip(*turns, strict=True)]


def measured(costs: Costs, reference: Costs, repeats: int) -> dict[str, float | None]:
    own, other = by_turns([costs.embed, reference.embed], repeats)
    step = None
    if costs.step and reference.step:
        own_step, other_step = by_turns([costs.step, reference.step], repeats)
        step = own_step / other_step
    return {"multiply_adds": costs.multiply_adds(), "embedding": own / other, "step": step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(methods.available()), help="Methods (default: all).")
    parser.add_argument("--precision", default="fp32", choices=list(PRECISIONS))
    parser.add_argument("--videos", type=int, default=2, help="Videos in a batch.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="Print one JSON document instead of a table.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ids, frames = make_batch(VIT_B_32, videos=arguments.videos, frames=FRAMES, tokens=TOKENS)
    dtype = PRECISIONS[arguments.precision]
    reference = Costs(REFERENCE, ids, frames, dtype=dtype)
    if not arguments.json:
        print(f"| method | {' | '.join(COLUMNS.values())} |\n| --- {'| ---: ' * len(COLUMNS)}|")
    found = {}
    for method in arguments.methods.split(","):
        found[method] = measured(Costs(method, ids, frames, dtype=dtype), reference, arguments.repeats)
        if not arguments.json:
            cells = ("" if value is None else f"{value:.2f}" for value in found[method].values())
            print(f"| `{method}` | {' | '.join(cells)} |", flush=True)
    if arguments.json:
        settings = {"precision": arguments.precision, "videos": arguments.videos, "repeats": arguments.repeats}
        print(json.dumps({**settings, "methods": found, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
