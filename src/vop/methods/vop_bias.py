"""VoP^F+P with the biases of the vision tower: prompts say when, biases fit what a frame shows.

Prompts leave the frozen layers as they are, so a look that the backbone does not know, such as pale colours, must be
made up for by attention alone. The biases of the vision tower's linear and normalisation layers (BitFit, Ben Zaken et
al., 2022, arXiv 2106.10199) change these layers at little cost. This combination is ours; docs/emoji-motion-2.md
measures what each part gives.
"""

from __future__ import annotations

from vop.backbones.towers import CLIP
from vop.methods.baselines import train_biases
from vop.methods.vop_f import VoPFP


class VoPFPBias(VoPFP):
    """VoP^F+P, and the biases of the vision tower except those of the attention's input projections."""

    changes_backbone = True

    def attach(self, clip: CLIP) -> None:
        super().attach(clip)
        train_biases(clip.vision)
