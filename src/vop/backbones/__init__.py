"""Backbones: frozen encoders of texts and frames, and the sources of their weights."""

from vop.backbones.sizes import Sizes, TextSizes, TowerSizes, VisionSizes
from vop.backbones.source import DEFAULT_HUB_ID, MINI, Backbone, find_backbone, find_sizes

__all__ = [
    "DEFAULT_HUB_ID",
    "MINI",
    "Backbone",
    "Sizes",
    "TextSizes",
    "TowerSizes",
    "VisionSizes",
    "find_backbone",
    "find_sizes",
]
