"""Searches by words and an example together: which weight of the example finds the most.

    python bench/words_and_example.py DATA

DATA is a folder of `emoji-motion-2`. The words are the caption of a test video, and the example is the other video
whose caption shares the largest part of its words, which is not in the gallery.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import vop
from vop.benchmarks.emoji_motion_2 import benchmark

VIDEOS = 600
WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)


def main(data: Path) -> None:
    split = benchmark.dataset(data).split("test")
    captions, paths = list(split.captions)[:VIDEOS], [video.path for video in split.videos][:VIDEOS]
    model = vop.load("mini-2", num_frames=6)
    texts, videos = model.encode_text(captions).numpy(), model.encode_video(paths, batch_size=32).numpy()
    examples = np.array([_most_alike(captions, number) for number in range(len(captions))])
    by_words, by_example = texts @ videos.T, videos[examples] @ videos.T
    centred = (texts - texts.mean(0)) @ videos.T, (videos[examples] - videos.mean(0)) @ videos.T
    _print("words", by_words, examples)
    _print("example", by_example, examples)
    for weight in WEIGHTS:
        _print(f"words + {weight:g} x example", by_words + weight * by_example, examples)
    for weight in WEIGHTS:
        _print(f"centred, words + {weight:g} x example", centred[0] + weight * centred[1], examples)


def _most_alike(captions: list[str], number: int) -> int:
    own = set(captions[number].lower().split())

    def share(other: int) -> float:
        words = set(captions[other].lower().split())
        return len(own & words) / len(own | words)

    return max((other for other, text in enumerate(captions) if text != captions[number]), key=share)


def _print(name: str, scores: np.ndarray, examples: np.ndarray) -> None:
    """Print the recall of the described videos; ties count against them."""
    scores = scores.copy()
    rows = np.arange(len(scores))
    scores[rows, examples] = -np.inf
    ranks = (scores >= scores[rows, rows][:, None]).sum(axis=1)
    recalls = "  ".join(f"R@{k} {100 * (ranks <= k).mean():5.1f}" for k in (1, 5, 10))
    print(f"{name:36} {recalls}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
