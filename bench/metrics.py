"""Compare retrieval metrics with a full argsort, or measure them from embeddings without the similarity matrix.

python bench/metrics.py [--size 10000] [--repeats 5] [--threads N] [--json]
python bench/metrics.py --embeddings 100000 [--width 512] [--threads N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from vop.evaluation.metrics import metrics_from_embeddings, retrieval_metrics


def by_argsort(similarity: np.ndarray) -> dict[str, dict[str, float]]:
    """Rank as usual: sort every row and look up the diagonal, in both directions."""
    results = {}
    for name, scores in (("t2v", similarity), ("v2t", similarity.T)):
        order = np.argsort(-scores, axis=1)
        ranks = np.nonzero(order == np.arange(len(scores))[:, None])[1] + 1
        recalls = {f"r{k}": 100.0 * int(np.sum(ranks <= k)) / len(ranks) for k in (1, 5, 10)}
        results[name] = {**recalls, "mdr": float(np.median(ranks)), "mnr": float(np.mean(ranks))}
    return results


def embeddings(number: int, width: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pairs of unit vectors; `noise` spreads the ranks."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(number, width, generator=generator), dim=1)
    videos = texts + noise * torch.randn(number, width, generator=generator) / width**0.5
    return texts, torch.nn.functional.normalize(videos, dim=1)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def against_argsort(size: int, repeats: int) -> dict:
    texts, videos = embeddings(size, 64, noise=2.0)
    similarity = texts @ videos.T
    ours = retrieval_metrics(similarity).to_dict()
    sorted_ = by_argsort(similarity.numpy())
    assert all(ours[way] == sorted_[way] for way in sorted_), "the two ways disagree"
    times: dict[str, list[float]] = {"argsort": [], "blocks": []}
    for _ in range(repeats):  # alternate, so that a busy machine disturbs both
        times["argsort"].append(seconds(lambda: by_argsort(similarity.numpy())))
        times["blocks"].append(seconds(lambda: retrieval_metrics(similarity)))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "size": size,
        "repeats": repeats,
        "argsort_seconds": medians["argsort"],
        "blocks_seconds": medians["blocks"],
        "ratio": medians["argsort"] / medians["blocks"],
        "same_numbers": True,
    }


def from_embeddings(number: int, width: int) -> dict:
    texts, videos = embeddings(number, width, noise=2.0)
    before = peak_mib()
    start = time.perf_counter()
    metrics = metrics_from_embeddings(texts, videos)
    return {
        "texts": number,
        "videos": number,
        "width": width,
        "seconds": time.perf_counter() - start,
        "peak_mib_before": before,
        "peak_mib": peak_mib(),
        "full_matrix_mib": number**2 * 4 / 2**20,
        "t2v_r1": metrics.t2v.r1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000, help="Number of texts and of videos in the matrix.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--embeddings", type=int, metavar="N", help="Rank N x N from embeddings instead.")
    parser.add_argument("--width", type=int, default=512, help="Width of the embeddings.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="Print one JSON document instead of lines.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.embeddings:
        result = from_embeddings(args.embeddings, args.width)
    else:
        result = against_argsort(args.size, args.repeats)
    result |= {"threads": args.threads, "torch": torch.__version__, "numpy": np.__version__}
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value:,.3f}" if isinstance(value, float) else f"{name:18} {value}")


if __name__ == "__main__":
    main()
