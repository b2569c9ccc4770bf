"""TempMe: tokens that are alike are merged, first within frames, then across more and more of them (Shen et al., ICLR
2025, arXiv 2409.01156, section 3).

Both towers have low-rank updates beside the attention's input projection (`low_rank.py`). In the vision tower, merging
is ToMe's (`vop.backbones.merging`: pairs by bipartite soft matching, weighted means, proportional attention), and it is
part of training, too. A clip is a run of neighbouring frames; at first every frame is one. With n the number of a
clip's tokens, [CLS] tokens included, and merge(x; m) the merging of the m most similar pairs:

    ImgMe, the lower layers         x = x + attention(norm(x));  x = merge(x; 2);             x = x + mlp(norm'(x))

    ClipMe, a layer of `join_layers` joins J neighbouring clips, with P the position of a clip among those that enter:

    cross-clip merging              x = merge([x_1 + P_1, .., x_J + P_J]; 0.3 n J)            by the features of x alone
    intra-clip merging              x = x + attention(norm(x));  x = merge(x; 0.1 n);         x = x + mlp(norm'(x))

Layers above the first ClipMe block that join nothing do intra-clip merging. The last layer does not merge, since only
[CLS] is read after it. The pairs of a merge after attention are those of similar keys. As in the released code, the
first patch belongs to B if the clip has an odd number of [CLS] tokens. Every frame keeps its [CLS]; the video's
embedding is the usual mean over frames.

In a tower that pools its patches instead of reading [CLS], the frames of a clip share what is pooled from its tokens.

Shapes: `b` videos, `f` frames, `c` clips, `j` clips that are joined, `t` tokens, `d` the vision tower's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones.layers import free_parameter
from vop.backbones.merging import Merger
from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP
from vop.errors import UsageError
from vop.methods.base import Method
from vop.methods.low_rank import LowRanks
from vop.methods.prompts import which_layers
from vop.utils.checks import check_frames, check_list, check_number, check_whole

MOST_JOINS = 3  # of the release, for 12 layers


class TempMe(Method):
    """Low-rank updates, and merging of tokens within and across frames.

    Settings:
        rank: the rank of the updates.
        merge_patches: how many patches of a frame are merged away in each layer below `join_layers`.
        join_layers: the layers that join clips. None means the three before the last (of 12: 9, 10 and 11).
        join_clips: how many neighbouring clips each of them joins. None divides the number of frames into factors that
            are about equal, so that the last of them makes one clip of the video (12 frames: 2, 2 and 3).
        merge_across: the share of tokens that are merged away where clips are joined.
        merge_within: the share of tokens that each layer from the first of `join_layers` merges away after attention.
    """

    needs_layers = True
    learning_rate = 6e-4
    compiles = False

    def __init__(
        self,
        sizes: Sizes,
        *,
        rank: int = 8,
        merge_patches: int = 2,
        join_layers: Sequence[int] | None = None,
        join_clips: Sequence[int] | None = None,
        merge_across: float = 0.3,
        merge_within: float = 0.1,
        **settings: Any,
    ) -> None:
        super().__init__(sizes, **settings)
        tower = sizes.vision
        if tower.rope is not None:
            raise UsageError(
                "this backbone has rotary positions, which every layer needs for each patch, so that tempme cannot "
                "merge any: use lora"
            )
        check_whole("rank", rank, at_least=1)
        check_whole("merge_patches", merge_patches, at_least=0)
        check_number("merge_across", merge_across, at_least=0, below=1)
        check_number("merge_within", merge_within, at_least=0, below=1)
        if join_layers is None:
            join_layers = range(max(2, tower.layers - MOST_JOINS), tower.layers)
        self.join_layers = which_layers(join_layers, depth=tower.layers, setting="join_layers")
        if 1 in self.join_layers:
            raise UsageError("join_layers names layer 1; the first layer sees single frames: use layers from 2")
        self.join_clips = None if join_clips is None else self._checked(join_clips)
        self.merge_patches, self.merge_across, self.merge_within = merge_patches, merge_across, merge_within
        self.text, self.vision = LowRanks(sizes.text, rank), LowRanks(tower, rank)
        lengths = self._clips(self.num_frames)
        self.positions = nn.ParameterList(free_parameter(length, tower.width, std=0) for length in lengths)

    def _checked(self, join_clips: Sequence[int]) -> list[int]:
        check_list("join_clips", join_clips, example="[2, 2, 3]")
        for clips in join_clips:
            check_whole("join_clips", clips, at_least=1)
        if len(join_clips) != len(self.join_layers):
            raise UsageError(
                f"join_clips is {list(join_clips)}; it must have a number for each of join_layers, "
                f"{list(self.join_layers)}"
            )
        return list(join_clips)

    def _joins(self, num_frames: int) -> list[int]:
        """Return how many clips each of `join_layers` joins."""
        if self.join_clips is None:
            return _factors(num_frames, len(self.join_layers))
        return self.join_clips

    def _clips(self, num_frames: int) -> list[int]:
        """Return the number of clips that enter each of `join_layers`."""
        found, clips = [], num_frames
        for joined in self._joins(num_frames):
            if clips % joined:
                raise UsageError(
                    f"join_clips is {self.join_clips}; of {num_frames} frames it would have to join {joined} of "
                    f"{clips} clips: use numbers that divide num_frames, or leave join_clips out"
                )
            found.append(clips)
            clips //= joined
        return found

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        return [(positions, 0) for positions in self.positions]  # each (c, d)

    def table_lengths(self, num_frames: int) -> list[int]:
        return self._clips(num_frames)

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        return clip.text(ids, self.text.blocks(clip.text))

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        vision, (b, f) = clip.vision, pixels.shape[:2]
        check_frames(f, self.num_frames)
        x = vision.embed(pixels.flatten(0, 1))  # (b * c, t, d), c = f until clips are joined
        k = vision.sizes.summaries  # of a frame, then of a clip
        merger = Merger((), vision.sizes, images=b * f, device=x.device, first=k % 2)
        joins = dict(zip(self.join_layers, zip(self._joins(f), self.positions, strict=True), strict=True))
        for number, layer in enumerate(self.vision.blocks(vision), start=1):
            if number in joins:
                joined, positions = joins[number]
                x, k = self._join(x, k, merger, joined, positions.to(x.dtype))
            merger.counts = iter([merger.patches - self._merged_after_attention(number, merger, k, len(vision.layers))])
            x = vision.run_layer(number, x, summaries=k, layer=layer, merger=merger)
        if vision.sizes.readout == "class":
            return vision.head(x[:, :k].reshape(b, f, -1))
        clips = vision.head(vision.read(x, merger))
        return clips.repeat_interleave(f * b // len(clips), dim=0).unflatten(0, (b, f))

    def _join(self, x: Tensor, k: int, merger: Merger, joined: int, positions: Tensor) -> tuple[Tensor, int]:
        """Join clips (b * c, t, d) of k [CLS] tokens: (b * c / j, t', d), and their number of [CLS] tokens."""
        clips, width = len(positions), x.shape[2]

        def together(tokens: Tensor) -> Tensor:
            parts = (tokens[:, :k], tokens[:, k:])
            return torch.cat([part.reshape(len(x) // joined, -1, width) for part in parts], dim=1)

        features = together(x.detach())
        x = together((x.unflatten(0, (-1, clips)) + positions[:, None]).flatten(0, 1))
        k, merger.first = k * joined, k * joined % 2
        merger.sizes = merger.sizes.reshape(len(x), -1)
        merged = min(int(x.shape[1] * self.merge_across), merger.patches // 2)
        return merger.merge_nearest(x, features[:, k:], merged) if merged else x, k

    def _merged_after_attention(self, number: int, merger: Merger, k: int, depth: int) -> int:
        if number == depth:
            return 0
        in_clips = any(number >= layer for layer in self.join_layers)
        merged = int((k + merger.patches) * self.merge_within) if in_clips else self.merge_patches
        return min(merged, merger.patches // 2)


def _factors(number: int, parts: int) -> list[int]:
    """Divide a number into factors that are about equal, the smallest first: 12 into 2, 2 and 3."""
    found = []
    for left in range(parts, 0, -1):
        factor = max(n for n in range(1, number + 1) if number % n == 0 and n**left <= number)
        found.append(factor)
        number //= factor
    return found
