"""Real H.264 videos, all different, one of them long enough for several windows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from clips import write_clip
from vop.search.store import Store

RATE = 5  # frames per second, so that a minute is 300 small pictures


def write_video(path: Path, *, seed: int, seconds: float = 4.0) -> Path:
    """Write blocks of random colours that change every two seconds, so that all segments differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(seed, seconds, path.suffix))
    return path


@cache
def _encoded(seed: int, seconds: float, suffix: str) -> bytes:
    """Many tests use the same few videos."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(max(1, round(seconds / 2))):
        blocks = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        pictures += [np.kron(blocks, np.ones((8, 8, 1), np.uint8))] * (2 * RATE)
    with TemporaryDirectory() as folder:
        path = write_clip(Path(folder) / f"video{suffix}", pictures[: max(1, round(seconds * RATE))], rate=RATE)
        return path.read_bytes()


def write_folder(folder: Path, *, count: int = 4) -> dict[str, Path]:
    """Write videos a.mp4, b.mp4, …; b has 26 s (three windows), the others have 4 s (one window)."""
    names = "abcdefgh"[:count]
    return {
        name: write_video(folder / f"{name}.mp4", seed=seed, seconds=26.0 if name == "b" else 4.0)
        for seed, name in enumerate(names)
    }


def rows(folder: Path) -> dict[tuple[str, int], dict]:
    """Return the rows of a library by file name and place."""
    table = Store.open(folder).table.to_arrow()
    return {(row["name"], row["place"]): row for row in table.to_pylist()}


def embeddings(folder: Path) -> dict[tuple[str, int], np.ndarray]:
    return {key: np.array(row["embedding_1"], np.float32) for key, row in rows(folder).items()}
