"""Backbones and random embeddings for the heads."""

from __future__ import annotations

from dataclasses import replace

import torch

from vop import heads
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes

FRAMES = 4
# The text tower is as wide as the joint space, so heads can be initialised from its layers.
WIDE = Sizes(
    vision=VisionSizes(width=32, layers=1, heads=1, mlp_width=64, image_size=16, patch_size=8),
    text=TextSizes(width=128, layers=3, heads=2, mlp_width=512, vocab_size=50, positions=9, eos_token_id=49),
    embed_dim=128,
)
NARROW = replace(WIDE, embed_dim=16)  # narrower than the text tower, so its layers do not fit
VARIANTS = [
    ("meanP", {}),
    ("seqLSTM", {}),
    ("seqTransf", {"layers": 2}),
    ("tightTransf", {"layers": 2}),
    ("tightTransf", {"layers": 1}),
    ("x-pool", {}),
    ("x-pool", {"heads": 4}),
]
EMBEDDING = [(name, settings) for name, settings in VARIANTS if not heads.find(name).pairwise]
PAIRWISE = [(name, settings) for name, settings in VARIANTS if heads.find(name).pairwise]


def build(name, sizes=WIDE, *, seed=1, num_frames=FRAMES, **settings):
    torch.manual_seed(seed)
    return heads.create(name, sizes, num_frames=num_frames, **settings)


def moved(head):
    """The head in eval mode, far from its initial values, so that each tensor matters."""
    for parameter in head.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return head.eval()


def embeddings(*, texts=5, videos=3, width=128, seed=0):
    """Raw (t, e) and (v, f, e), at the scale of CLIP's: norms of about 10."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10 * width**-0.5
    return (
        scale * torch.randn(texts, width, generator=generator),
        scale * torch.randn(videos, FRAMES, width, generator=generator),
    )
