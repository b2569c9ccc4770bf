"""Compare attention and its gradient on a CPU: PyTorch's fused kernel and `vop.backbones.layers.attend`.

    python bench/attention.py [--repeats 5] [--json]

The two alternate. The script measures the CPU time of one thread, so that other jobs on the machine matter little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from vop.backbones.layers import attend

# Sequences, heads, tokens, head width.
SHAPES = [(48, 12, 58, 64), (192, 2, 45, 64), (4, 12, 230, 64), (2, 12, 608, 64)]
KINDS = {"fused": F.scaled_dot_product_attention, "ours": attend}


def seconds(function, shape: tuple[int, ...], dtype: torch.dtype) -> float:
    b, h, n, d = shape
    q, k, v = (
        torch.randn(b, n, 3, h, d, dtype=dtype).requires_grad_().permute(2, 0, 3, 1, 4)
    )  # strided as in `Attention`
    started = time.process_time()
    function(q, k, v).sum().backward()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            taken = {kind: [] for kind in KINDS}
            for _ in range(arguments.repeats + 1):
                for kind, function in KINDS.items():
                    taken[kind].append(seconds(function, shape, dtype))
            medians = {kind: 1000 * statistics.median(times[1:]) for kind, times in taken.items()}
            rows.append({"shape": shape, "dtype": str(dtype), **medians, "ratio": medians["fused"] / medians["ours"]})
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        times = f"fused {row['fused']:.1f} ms, ours {row['ours']:.1f} ms, {row['ratio']:.2f}x"
        print(f"{row['shape']} {row['dtype']}: {times}")


if __name__ == "__main__":
    main()
