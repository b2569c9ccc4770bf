"""Token merging: a faster vision tower for evaluation and indexing (ToMe: Bolya et al. 2023, arXiv 2210.09461).

Between attention and MLP of every layer but the last, the patches are split alternately into two sets A and B. Every
patch of A finds the most similar one of B, by the cosine of their keys, averaged over the heads. The most similar pairs
are merged (bipartite soft matching). A token x of size s, the number of patches that it stands for, becomes

    x_b = (s_b x_b + sum_a s_a x_a) / (s_b + sum_a s_a)        s_b = s_b + sum_a s_a        over the a merged into b

and counts in attention as s tokens would (proportional attention):

    softmax(q k^T / sqrt(w) + log s)

After layer i of L, the following number of the N patches is left. The linear schedule is steeper in the first layers
where a later one could not merge enough, because at most half of the patches can be merged at once:

    n_i = min(round(N - (N - n_L) i / (L - 1)), 2 n_{i+1})        n_{L-1} = n_L = round((1 - ratio) N)

Across frames (after TempMe: Shen et al. 2025, arXiv 2409.01156), the tokens of neighbouring frames go through the upper
half of the layers as one sequence [C_1..C_g, E_1..E_g], so that patches of different frames attend to each other and
can be merged. [CLS] tokens and prompts are never merged.

Shapes: `b` images or groups of frames, `n` patches, `t` tokens including [CLS] and prompts, `d` the tower's width, `h`
heads, `w` the width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from vop.backbones.embedding_config import TokenMerging
from vop.backbones.sizes import VisionSizes

__all__ = ["Merger", "TokenMerging", "match"]


class Merger:
    """Merges the patches of one batch, layer by layer.

    Attributes:
        sizes: (b, n), the number of patches that each token stands for.
        frames: the number of frames in a sequence.
        counts: the number of patches of a frame that are left after each layer.
        first: the first patch of A, 0 or 1; A has every other patch.
    """

    def __init__(
        self, counts: Iterable[int], tower: VisionSizes, *, images: int, device: torch.device, first: int = 0
    ) -> None:
        self.counts, self.first = iter(counts), first
        self._merged = False
        self.sizes = torch.ones(images, tower.patches, device=device)
        self.frames = 1

    @property
    def patches(self) -> int:
        """The number of tokens that stand for patches, in each sequence."""
        return self.sizes.shape[1]

    def join(self, frames: int) -> None:
        """Treat the patches of `frames` neighbouring frames as one sequence from here on."""
        self.sizes = self.sizes.reshape(-1, frames * self.patches)
        self.frames *= frames

    def key_bias(self, tokens: Tensor) -> Tensor | None:
        """Return log s for tokens (b, t, d), whose last ones are the patches: (b, t). None if all sizes are 1."""
        if not self._merged:
            return None
        return F.pad(self.sizes.log(), (tokens.shape[1] - self.patches, 0)).to(tokens.dtype)

    def mean(self, patches: Tensor) -> Tensor:
        """Return the mean (b, d) over all patches of merged ones (b, n, d)."""
        weights = (self.sizes / self.sizes.sum(dim=1, keepdim=True)).to(patches.dtype)
        return (patches * weights[..., None]).sum(dim=1)

    def merge(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """Merge the last tokens of (b, t, d) as the next layer of the schedule says. `keys` are (b, h, t, w)."""
        merged = self.patches - next(self.counts) * self.frames
        return self.merge_nearest(tokens, keys[:, :, -self.patches :].mean(dim=1), merged) if merged else tokens

    def merge_nearest(self, tokens: Tensor, features: Tensor, merged: int) -> Tensor:
        """Merge away `merged` of the patches, the last tokens of (b, t, d), by the patches' features (b, n, w)."""
        first, patches = tokens.split([tokens.shape[1] - self.patches, self.patches], dim=1)
        kept, source, target = match(features, merged, first=self.first)
        sizes, of_b = self.sizes[..., None], slice(1 - self.first, None, 2)
        sums = _merge(patches * sizes.to(patches.dtype), kept, source, target, of_b)
        sizes = _merge(sizes, kept, source, target, of_b)
        self.sizes, self._merged = sizes.squeeze(2), True
        return torch.cat([first, sums / sizes.to(sums.dtype)], dim=1)


def match(keys: Tensor, merged: int, *, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Match similar tokens by their keys (b, n, w). A begins with token `first`, 0 or 1.

    Returns:
        Indices into the tokens: those of A that are kept (b, a - merged), those of A that are merged (b, merged), and
        for each of the latter the token of B that it is merged into, as an index into B.
    """
    keys = F.normalize(keys, dim=-1)
    best, nearest = (keys[:, first::2] @ keys[:, 1 - first :: 2].transpose(1, 2)).max(dim=-1)  # each (b, a)
    order = best.argsort(dim=-1, descending=True, stable=True)
    source, kept = order[:, :merged], order[:, merged:].sort(dim=-1).values
    return 2 * kept + first, 2 * source + first, nearest.gather(1, source)


def _merge(x: Tensor, kept: Tensor, source: Tensor, target: Tensor, of_b: slice) -> Tensor:
    """Add the tokens `source` of (b, n, d) to the tokens `target` of B, and return the kept ones and B."""
    index = target[..., None].expand(-1, -1, x.shape[2])
    sums = x[:, of_b].scatter_add(1, index, x.take_along_dim(source[..., None], dim=1))
    return torch.cat([x.take_along_dim(kept[..., None], dim=1), sums], dim=1)
