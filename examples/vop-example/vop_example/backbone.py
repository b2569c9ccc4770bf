"""`mini-half`: the built-in `mini`, given pixels in [-1, 1]."""

from dataclasses import replace

from vop.backbones import Backbone, find_backbone


def mini_half() -> Backbone:
    """A function without arguments finds the backbone: a CLIP folder, and how its pixels are prepared."""
    return replace(find_backbone("mini"), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
