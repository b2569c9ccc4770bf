"""The similarity heads by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vop.utils.registry import Registry

if TYPE_CHECKING:
    from vop.backbones.clip.config import ClipSizes
    from vop.heads.base import Head

# A name, and where its class stands. A new head is a class and a line here, and one in APART if it is not pairwise. The
# names are their papers'.
HEADS = {
    "meanP": "vop.heads.base:Head",
    "seqLSTM": "vop.heads.clip4clip:SeqLstm",
    "seqTransf": "vop.heads.clip4clip:SeqTransf",
    "tightTransf": "vop.heads.clip4clip:TightTransf",
    "x-pool": "vop.heads.x_pool:XPool",
}
MEAN = "meanP"  # the paper's, and every method's own
APART = ("meanP", "seqLSTM", "seqTransf")  # a text and a video have an embedding each; the others are pairwise
_REGISTRY: Registry[Head] = Registry("head", HEADS, given=["num_frames"])


def create(name: str, sizes: ClipSizes, *, num_frames: int = 12, **settings) -> Head:
    """Builds the head `name` for a backbone of `sizes`, freshly initialised; `start_from` gives it CLIP's weights.

    Args:
        num_frames: of a video; the method's, and no setting of the head.

    Raises:
        UsageError: an unknown name or setting, with the nearest known ones, or a value that is not allowed.
    """
    return _REGISTRY.create(name, sizes, num_frames=num_frames, **settings)


def find(name: str) -> type[Head]:
    """The class of the head `name`."""
    return _REGISTRY.find(name)


def settings_of(name: str) -> dict:
    """The settings of a head and their defaults: the keyword-only arguments of its class, without `num_frames`."""
    return _REGISTRY.settings_of(name)
