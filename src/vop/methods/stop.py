"""STOP: integrated spatial-temporal dynamic prompting (Liu et al., CVPR 2025, arXiv 2503.15973, section 3).
Released code: zhoujiahuan1991/CVPR2025-STOP.

STOP is DGL with linear text prompts (`dgl.py`) and three additions. First, prompts within frames are added to the
pixels X of a video, more strongly in regions R that a network chooses by content and motion:

    X' = X + 0.05 (1 + R) S(X)      S = MLP of each pixel over four 3D convolutions
    R = top(N(X))                   N a 3D convolution

Second, prompts between frames are added to the frames' prompts L_i of every layer i. With E^j the patches of frame j
that enter the first layer, A = attention(E^1 .. E^f) over all of them, and M one number for each frame:

    L_i^j = L_i + 0.05 (1 + M^j) T(A)^j      T = MLP over patches of two convolutions over frames, patches and channels
    M = scale(mean((1 + R) N'(A)))           N' a convolution; `scale` maps the smallest M^j to 0, the largest to 1

Third, each layer of both towers has an adapter A_i with PReLU, beside the MLP and its normalisation:

    x = x + mlp(norm(x)) + 0.1 A_i(x)

Three consequences of the released code:
- R chooses the largest values of N, by comparison, so that N gets no gradient. N stays as it was drawn. Here it is
  drawn from a fixed seed and is no parameter.
- R has one value for each residue class of pixels: pixel (y, x) belongs to class (y mod g, x mod g) in a grid of g x g
  patches. The paper's regions are the patches. In M, class (u, v) stands for the patch in row u, column v.
- `scale` takes the smallest and the largest value of the batch there, and of each video here, so that an embedding does
  not depend on other videos.

Shapes: `b` videos, `f` frames, `g` rows and columns of patches, `n` patches, `P` prompts, `d` the vision tower's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.layers import Linear, PReLU
from vop.backbones.sizes import Sizes, TowerSizes, VisionSizes
from vop.backbones.towers import CLIP, Block, TextTower, VisionTower
from vop.methods.dgl import DGLLinear
from vop.utils.checks import check_whole

PROMPT_SCALE, ADAPTER_SCALE = 0.05, 0.1
HIDDEN = 16  # width of both MLPs of prompts
REGION_KERNEL, REGION_SEED = (5, 11, 11), 0


class STOP(DGLLinear):
    """DGL with prompts for pixels and between frames that depend on the video, and adapters.

    Settings:
        regions: how many regions of a frame get stronger prompts.
        adapter_hidden: the width of the adapters (release: 32).
    """

    learning_rate = 1e-3

    def __init__(self, sizes: Sizes, *, regions: int = 6, adapter_hidden: int = 32, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        check_whole("regions", regions, at_least=1)
        check_whole("adapter_hidden", adapter_hidden, at_least=1)
        self.within_frames = WithinFrames(sizes.vision, regions)
        self.between_frames = BetweenFrames(sizes.vision, self.local_prompts.shape[1])
        self.text, self.vision = Adapters(sizes.text, adapter_hidden), Adapters(sizes.vision, adapter_hidden)

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        """Embed normalised pixels (b, f, 3, h, w): the videos' embeddings (b, 1, e)."""
        vision = clip.vision
        pixels, regions = self.within_frames(pixels)
        x = vision.pre_norm(vision.embed(pixels.flatten(0, 1))).unflatten(0, pixels.shape[:2])
        patches = x[:, :, vision.sizes.summaries :].to(self.local_prompts.dtype)
        added = self.between_frames(patches, regions)  # (b, f, P, d)
        return self.embed_patches(vision, x, self.local_prompts[:, None, None] + added)

    def text_blocks(self, text: TextTower) -> Sequence[Block]:
        return self.text.blocks(text)

    def vision_blocks(self, vision: VisionTower) -> Sequence[Block]:
        return self.vision.blocks(vision)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (b, c, f, h, w) in 3D to (b, C, f, h, w), with zeros around, by one 2D convolution of each frame.

    Its channels are those of the frames within the kernel. On a CPU without AVX-512, PyTorch's 3D convolution of nine
    channels took more than 20 times as long.

    Args:
        weight: the kernels (C, c, t, v, u), of odd sizes.
        bias: (C).
    """
    (b, _, f), (t, *size) = x.shape[:3], weight.shape[2:]
    near = F.pad(x, (0, 0, 0, 0, t // 2, t // 2)).unfold(2, t, 1)  # (b, c, f, h, w, t)
    near = near.movedim((2, 5), (1, 3)).flatten(2, 3).flatten(0, 1)  # (bf, ct, h, w)
    convolved = F.conv2d(near, weight.flatten(1, 2), bias, padding=(size[0] // 2, size[1] // 2))
    return convolved.unflatten(0, (b, f)).transpose(1, 2)


class Convolution(nn.Conv3d):
    """A 3D convolution whose output has the size of its input."""

    def __init__(self, channels: int, out_channels: int, *, size: tuple[int, int, int]) -> None:
        super().__init__(channels, out_channels, size)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias)


class WithinFrames(nn.Module):
    """Adds prompts to pixels (b, f, 3, h, w): the same shape, and the chosen regions, bool (b, f, g, g)."""

    def __init__(self, tower: VisionSizes, regions: int) -> None:
        super().__init__()
        self.grid, self.patch, self.regions = tower.grid, tower.patch_size, min(regions, tower.patches - 1)
        convolution = partial(Convolution, size=(3, 11, 11))
        self.conv = nn.Sequential(
            convolution(3, 9), convolution(9, 9), nn.PReLU(), convolution(9, 9), nn.PReLU(), convolution(9, HIDDEN)
        )
        self.mlp = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.PReLU(), nn.Linear(HIDDEN, 3))
        self.dropout = nn.Dropout(0.5)
        bound = (3 * 5 * 11 * 11) ** -0.5  # PyTorch's, for a convolution
        drawn = torch.rand(1 + 3 * 5 * 11 * 11, generator=torch.Generator().manual_seed(REGION_SEED), device="cpu")
        drawn = (bound * (2 * drawn - 1)).to(self.conv[0].weight.device)
        self.register_buffer("region_bias", drawn[:1], persistent=False)
        self.register_buffer("region_weight", drawn[1:].view(1, 3, *REGION_KERNEL), persistent=False)

    region_bias: Tensor
    region_weight: Tensor

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        prompts = self.dropout(self.conv(pixels.transpose(1, 2)))  # (b, 16, f, h, w)
        prompts = self.dropout(self.dropout(self.mlp(prompts.movedim(1, -1))))
        prompts = PROMPT_SCALE * prompts.movedim(-1, 2)
        regions = self.choose(pixels)
        everywhere = regions.repeat(1, 1, self.patch, self.patch)  # pixel (y, x) belongs to (y mod g, x mod g)
        rest = (0, pixels.shape[-1] - everywhere.shape[-1], 0, pixels.shape[-2] - everywhere.shape[-2])
        return pixels + prompts + prompts * F.pad(everywhere, rest).unsqueeze(2), regions

    @torch.no_grad()
    def choose(self, pixels: Tensor) -> Tensor:
        """Choose the regions of each frame with the largest values."""
        b, f = pixels.shape[:2]
        values = convolve(pixels.transpose(1, 2), self.region_weight, self.region_bias).squeeze(1)
        side = self.grid * self.patch
        cells = values[..., :side, :side].reshape(b, f, self.patch, self.grid, self.patch, self.grid).mean(dim=(2, 4))
        lowest = cells.flatten(2).sort(dim=2, descending=True).values[:, :, self.regions]
        return cells > lowest[..., None, None]


class BetweenFrames(nn.Module):
    """Prompts (b, f, P, d) from the patches (b, f, n, d) of all frames and the regions (b, f, g, g)."""

    def __init__(self, tower: VisionSizes, prompts: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(tower.width, tower.heads, batch_first=True)
        convolution = partial(Convolution, size=(3, 15, 25))
        self.conv = nn.Sequential(convolution(1, 9), nn.PReLU(), convolution(9, 1))
        self.mlp = nn.Sequential(nn.Linear(tower.patches, HIDDEN), nn.PReLU(), nn.Linear(HIDDEN, prompts))
        self.weight = Convolution(1, 1, size=(5, 11, 11))

    def forward(self, patches: Tensor, regions: Tensor) -> Tensor:
        x = patches.flatten(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0].unflatten(1, patches.shape[1:3]).unsqueeze(1)
        weights = self.weight(x).squeeze(1)  # (b, f, n, d)
        weights = (weights + weights * regions.flatten(2).unsqueeze(3)).mean(dim=(2, 3))  # (b, f)
        low, high = weights.amin(dim=1, keepdim=True), weights.amax(dim=1, keepdim=True)
        weights = (weights - low) / (high - low).clamp_min(1e-12)
        prompts = self.mlp(self.conv(x).squeeze(1).transpose(2, 3)).transpose(2, 3)
        return PROMPT_SCALE * (prompts + prompts * weights[..., None, None])


class Adapter(nn.Module):
    """A bottleneck from (..., d) to (..., d)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.activation, self.up = Linear(width, hidden), PReLU(), Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return ADAPTER_SCALE * self.up(self.activation(self.down(x)))


class Adapters(nn.ModuleList):
    """An adapter for each layer of a tower."""

    def __init__(self, tower: TowerSizes, hidden: int) -> None:
        super().__init__(Adapter(tower.width, hidden) for _ in range(tower.layers))

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Adapter]: ...

    def blocks(self, tower: TextTower | VisionTower) -> list[Block]:
        """Return the layers of a tower with their adapters."""
        return [partial(layer, beside_norm=adapter) for layer, adapter in zip(tower.layers, self, strict=True)]
