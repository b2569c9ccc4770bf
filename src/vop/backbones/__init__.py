"""Backbones: frozen encoders of texts and frames, and the sources of their weights."""

from vop.backbones.sizes import Sizes, TextSizes, TowerSizes, VisionSizes
from vop.backbones.source import BUILT_IN, DEFAULT_HUB_ID, Backbone, find_backbone, find_sizes

__all__ = [
    "BUILT_IN",
    "DEFAULT_HUB_ID",
    "Backbone",
    "Sizes",
    "TextSizes",
    "TowerSizes",
    "VisionSizes",
    "find_backbone",
    "find_sizes",
]
