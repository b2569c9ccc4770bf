"""A small set of pairs with generated frames instead of files."""

from __future__ import annotations

from pathlib import Path

import torch

from vop.datasets.types import Split, Video


class MadeFrames:
    """A frame store in which each video has its own colour and noise."""

    def __init__(self, num_frames: int = 4, size: int = 32) -> None:
        self.num_frames, self.size = num_frames, size

    def load(self, video: Video) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, video.id)))
        colour = torch.randint(0, 256, (1, 3, 1, 1), generator=generator)
        noise = torch.randint(-20, 20, (self.num_frames, 3, self.size, self.size), generator=generator)
        return (colour + noise).clamp(0, 255).to(torch.uint8)


def split(name: str = "train", *, videos: int = 10, captions: int = 2) -> Split:
    listed = tuple(Video(f"{name}{i}", Path(f"{name}{i}.mp4")) for i in range(videos))
    targets = [i for i in range(videos) for _ in range(captions)]
    texts = [f"{chr(97 + i) * (3 + i % 4)} {name} {n}" for i in range(videos) for n in range(captions)]
    return Split(name, listed, tuple(texts), tuple(targets))
