"""Backbones: frozen CLIPs and the sources of their weights."""

from vop.backbones.clip.config import ClipSizes, TowerSizes
from vop.backbones.source import DEFAULT_HUB_ID, MINI, Backbone, find_backbone, find_sizes

__all__ = ["DEFAULT_HUB_ID", "MINI", "Backbone", "ClipSizes", "TowerSizes", "find_backbone", "find_sizes"]
