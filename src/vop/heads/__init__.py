"""Find and create similarity heads by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vop.errors import UsageError
from vop.utils.registry import ClassRegistry

if TYPE_CHECKING:
    from vop.backbones.sizes import Sizes
    from vop.heads.base import Head

# The built-in heads, named as in their papers. Other packages add theirs through entry points of the group
# `vop.heads`.
HEADS = {
    "meanP": "vop.heads.base:Head",
    "seqLSTM": "vop.heads.clip4clip:SeqLstm",
    "seqTransf": "vop.heads.clip4clip:SeqTransf",
    "tightTransf": "vop.heads.clip4clip:TightTransf",
    "x-pool": "vop.heads.x_pool:XPool",
}
MEAN = "meanP"  # the paper's head: the method's own pooling
APART = ("meanP", "seqLSTM", "seqTransf")  # heads with video embeddings; the others are pairwise
REGISTRY: ClassRegistry[Head] = ClassRegistry(
    "head", HEADS, group="vop.heads", base="vop.heads.base:Head", given=["num_frames"]
)


def create(name: str, sizes: Sizes, *, num_frames: int = 12, **settings: Any) -> Head:
    """Build the head `name` for a backbone of `sizes`, freshly initialised. `Head.start_from` copies weights of a CLIP.

    Args:
        name: a built-in name, one that an installed package adds, or "package.module:Class".
        num_frames: frames per video, from the method.

    Raises:
        UsageError: a name or setting is unknown (the error suggests the nearest known ones), a value is not allowed, or
            the backbone is a video encoder, which has one embedding per video and none of frames.
    """
    if name != MEAN and find(name) and sizes.num_frames is not None:
        raise UsageError(
            f"head is {name}; this backbone reads the frames of a video together and gives one embedding for all of "
            f"them, so a head has no frames to compare: use {MEAN}, or a backbone that embeds single frames"
        )
    return REGISTRY.create(name, sizes, num_frames=num_frames, **settings)


def find(name: str) -> type[Head]:
    """Return the class of the head `name`."""
    return REGISTRY.find(name)


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings of a head and their defaults: its keyword-only arguments except `num_frames`."""
    return REGISTRY.settings_of(name)
