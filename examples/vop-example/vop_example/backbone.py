"""The backbone `mini-half`: the built-in `mini` with pixels in [-1, 1]."""

from dataclasses import replace

from vop.backbones import Backbone, find_backbone


def mini_half() -> Backbone:
    """Return the backbone: a CLIP folder and its pixel normalisation. The function takes no arguments."""
    return replace(find_backbone("mini"), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
