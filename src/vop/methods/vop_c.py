"""VoP^C: context-specific video prompts (arXiv 2211.12764, section 3.3).

The [CLS] tokens of a video's f frames at the input of a layer form a sequence. A context modelling module (CMM)
processes it, and an FC layer computes S prompts for every frame:

    P_i^j = [shared_i, FC(CMM(c_i^1, ..., c_i^f))_j]

All layers share one CMM and one FC. The [CLS] tokens themselves do not change. In a tower without [CLS], c is the
frame's summary that the tower defines (`VisionTower.summarise`).

Shapes: `b` videos, `f` frames, `S` specific prompts, `P` prompts, `n` patches, `d` the vision tower's width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones.merging import Merger
from vop.backbones.sizes import Sizes
from vop.backbones.towers import VisionTower
from vop.errors import UsageError
from vop.methods.cmm import ContextModule
from vop.methods.vop import VoP
from vop.methods.vop_p import check_specific
from vop.utils.checks import check_choice, check_frames

CMM_ROLES = ("prompts", "replace")


class VoPC(VoP):
    """VoP with prompts generated from the content of the frames.

    Settings:
        specific_prompts: the number of generated visual prompts (paper: 4 of 8).
        cmm: "bilstm" (as in the paper), "lstm" or "transformer".
        cmm_role: "prompts" generates prompts with the CMM. "replace" is an ablation: the CMM's outputs replace the
            [CLS] tokens at the input of a layer, and all visual prompts are shared.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        visual_prompts: int = 8,
        specific_prompts: int = 4,
        cmm: str = "bilstm",
        cmm_role: str = "prompts",
        **settings: Any,
    ) -> None:
        check_choice("cmm_role", cmm_role, CMM_ROLES)
        if cmm_role == "replace" and not sizes.vision.class_token:
            raise UsageError("cmm_role is 'replace'; this backbone has no [CLS] token to replace: use 'prompts'")
        check_specific(specific_prompts, visual_prompts)
        generated = specific_prompts if cmm_role == "prompts" else 0
        super().__init__(sizes, visual_prompts=visual_prompts - generated, **settings)
        self.cmm_role = cmm_role
        module = ContextModule(sizes, kind=cmm, outputs=generated or 1, num_frames=self.num_frames)
        self.context = module if self.visual_layers else None  # without visual layers it would never train

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        positions = None if self.context is None else self.context.cmm.positions
        return [*super().frame_tables(), *([] if positions is None else [(positions, 0)])]

    def vision_layer(
        self, vision: VisionTower, number: int, cls: Tensor, patches: Tensor, merger: Merger | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.cmm_role == "replace" and number in self.visual_layers:
            cls = self._contexts(cls.squeeze(2)).to(cls.dtype)
        return super().vision_layer(vision, number, cls, patches, merger)

    def frame_prompts(self, vision: VisionTower, number: int, cls: Tensor, patches: Tensor) -> Tensor | None:
        shared = super().frame_prompts(vision, number, cls, patches)
        if self.cmm_role == "replace" or number not in self.visual_layers:
            return shared
        specific = self._contexts(vision.summarise(cls, patches))  # (b, f, S, d)
        return specific if shared is None else torch.cat([shared.expand(*specific.shape[:2], -1, -1), specific], dim=2)

    def _contexts(self, cls: Tensor) -> Tensor:
        """Run the CMM over the frames' summaries (b, f, d): (b, f, S, d)."""
        assert self.context is not None  # called only for layers with visual prompts
        if self.context.cmm.positions is not None:  # an LSTM takes any number of frames
            check_frames(cls.shape[1], self.num_frames)
        return self.context(cls)
