"""DGL: dynamic global-local prompt tuning (Yang et al., AAAI 2024, arXiv 2401.10588; released code: knightyxp/DGL).

Global prompts G represent the video. They pass through all layers of the vision tower as tokens. In every layer, each
frame j gets its own prompts L_i^j, whose outputs are discarded. The attention is global and local: G attends to all
tokens of all frames, and the tokens of a frame attend to G and to their own frame:

    [G_i, (c_i^j, _, E_i^j)_j] = V_i([G_{i-1}, (c_{i-1}^j, L_i^j, E_{i-1}^j)_j])        v = normalise(head(G_K))

All prompts of a video are inserted after `ln_pre`. In the text tower, words have prompts before and after them. They
are inserted after the positions are added, so that they take none:

    [BOS, _, W_i, _] = T_i([BOS, A_i, W_{i-1}, B_i])

The prompts of both towers come from one latent space (`i` is the number of the layer in either tower):

    dgl-linear         A_i = L_i W_a + b_a,    B_i = L_i W_b + b_b    L_i is trained and is the same for all frames
    dgl-transformer    [T_i, (L_i^j)_j] = block(U_i),    [A_i, B_i] = MLP(T_i)    U_i is trained

`block` is one pre-norm transformer layer as wide as the vision tower, `MLP` has one hidden layer of twice that width;
all layers share them.

Two consequences of the released code, which we reproduce:
- B_i stands behind [EOS] and its padding. A causal text tower reads [EOS], which attends to nothing behind it: there
  the prompts B_i have no effect, and W_b and b_b get no gradient. In other text towers they count.
- The video's embedding is the output of the first global prompt only. The others matter through attention.

The released code defines both for CLIP. A tower without [CLS] reads the video from the global prompts as it reads an
image from its tokens: it pools them. If the towers have different numbers of layers, layer i of one still shares a
latent space with layer i of the other.

Shapes: `b` videos or texts, `f` frames, `g` global prompts, `P` prompts, `k` [CLS] tokens of a frame (1 or none), `n`
patches, `d` a tower's width, `K` the layers of the deeper tower, `e` the joint space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.layers import Linear, make_layers, quick_gelu
from vop.backbones.sizes import Sizes, TowerSizes
from vop.backbones.towers import CLIP, Block, TextTower, VisionTower, pick
from vop.errors import UsageError
from vop.methods.base import Method
from vop.utils.checks import check_frames, check_whole


class DGL(Method):
    """The part that both variants share: where prompts go, and how tokens attend to them.

    Settings:
        global_prompts: prompts that represent the video (paper: 4).
        frame_prompts: prompts of every frame, in every layer (paper: 4).
    """

    needs_layers = True

    def __init__(self, sizes: Sizes, *, global_prompts: int = 4, frame_prompts: int = 4, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        vision = sizes.vision
        check_whole("global_prompts", global_prompts, at_least=1)
        check_whole("frame_prompts", frame_prompts, at_least=1)
        if vision.readout == "mean" and global_prompts <= vision.summaries:
            raise UsageError(
                f"global_prompts is {global_prompts}; this backbone averages the tokens behind the first: use 2 or more"
            )
        self.depth = max(vision.layers, sizes.text.layers)
        self.global_prompts = uniform_parameter(sizes, global_prompts)

    def text_prompts(self) -> tuple[Tensor, Tensor]:
        """Return the prompts before and after the words, each (K, P, d)."""
        raise NotImplementedError

    def frame_prompts(self, frames: int) -> Tensor:
        """Return the frames' prompts, broadcastable to (K, f, P, d)."""
        raise NotImplementedError

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        text = clip.text
        x, marks = text.add_positions(text.embed(ids)), text.sizes.marks
        first, words = x[:, :marks], x[:, marks:]
        before, after = (prompts.to(x.dtype) for prompts in self.text_prompts())
        attention = text.attention(ids, prompts=before.shape[1], suffix=after.shape[1])
        parts = [marks, before.shape[1], words.shape[1], after.shape[1]]
        for layer, prefix, suffix in zip(self.text_blocks(text), before, after, strict=False):
            inserted = [first, prefix.expand(len(x), -1, -1), words, suffix.expand(len(x), -1, -1)]
            first, _, words, _ = layer(torch.cat(inserted, dim=1), **attention).split(parts, dim=1)
        return text.head(pick(torch.cat([first, words], dim=1), text.output_index(ids)))

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        """Embed normalised pixels (b, f, 3, h, w): the videos' embeddings (b, 1, e)."""
        x = clip.vision.pre_norm(clip.vision.embed(pixels.flatten(0, 1))).unflatten(0, pixels.shape[:2])
        return self.embed_patches(clip.vision, x, self.frame_prompts(pixels.shape[1]))

    def embed_patches(self, vision: VisionTower, x: Tensor, prompts: Tensor) -> Tensor:
        """Embed the tokens (b, f, k + n, d) that enter the first layer, with prompts for each layer: (b, 1, e)."""
        (b, f), k, n = x.shape[:2], vision.sizes.summaries, vision.sizes.patches
        cls, patches = x.split([k, n], dim=2)
        tokens = self.global_prompts.to(x.dtype).expand(b, -1, -1)
        blocks = enumerate(self.vision_blocks(vision), start=1)
        for (number, layer), own in zip(blocks, prompts.to(x.dtype), strict=False):
            frames = torch.cat([cls, own.expand(b, f, -1, -1), patches], dim=2)
            tokens, frames = vision.run_layer_by_frame(number, tokens, frames, layer=layer)
            cls, patches = frames[:, :, :k], frames[:, :, -n:]
        return vision.output(tokens).unsqueeze(1)

    def text_blocks(self, text: TextTower) -> Sequence[Block]:
        """Return the layers of the text tower, as the method changes them."""
        return list(text.layers)

    def vision_blocks(self, vision: VisionTower) -> Sequence[Block]:
        """Return the layers of the vision tower, as the method changes them."""
        return list(vision.layers)

    def pool(self, frames: Tensor) -> Tensor:
        """Normalise the videos' embeddings (b, 1, e): (b, e). There are none of single frames."""
        return F.normalize(frames[:, 0], dim=-1)


class DGLLinear(DGL):
    """DGL with text prompts that are linear maps of the frames' prompts. All frames share theirs."""

    learning_rate = 5e-3  # the released scripts: 5e-3 for VATEX, 1e-2 for LSMDC

    def __init__(self, sizes: Sizes, *, frame_prompts: int = 4, **settings: Any) -> None:
        super().__init__(sizes, frame_prompts=frame_prompts, **settings)
        self.local_prompts = uniform_parameter(sizes, self.depth, frame_prompts)
        self.before, self.after = (Linear(sizes.vision.width, sizes.text.width) for _ in range(2))

    def text_prompts(self) -> tuple[Tensor, Tensor]:
        return self.before(self.local_prompts), self.after(self.local_prompts)

    def frame_prompts(self, frames: int) -> Tensor:
        return self.local_prompts[:, None]


class DGLTransformer(DGL):
    """DGL with prompts of texts and frames from one transformer block. A frame's prompts depend on its position.

    Settings:
        text_prompts: prompts of a text in every layer, half of them before the words (paper: 8).
    """

    learning_rate = 2e-3  # the released script for MSR-VTT

    def __init__(self, sizes: Sizes, *, text_prompts: int = 8, frame_prompts: int = 4, **settings: Any) -> None:
        super().__init__(sizes, frame_prompts=frame_prompts, **settings)
        check_whole("text_prompts", text_prompts, at_least=2)
        if text_prompts % 2:
            raise UsageError(f"text_prompts is {text_prompts}; it must be even: half of them precede the words")
        width = sizes.vision.width
        self.text_tokens = nn.Parameter(torch.empty(self.depth, text_prompts, width))
        self.frame_tokens = nn.Parameter(torch.empty(self.depth, self.num_frames, frame_prompts, width))
        shape = TowerSizes(width=width, layers=1, heads=sizes.vision.heads, mlp_width=4 * width)
        [self.block] = make_layers(shape)
        self.hidden, self.to_text = Linear(width, 2 * width), Linear(2 * width, sizes.text.width)
        if self.text_tokens.is_meta:
            return
        nn.init.normal_(self.text_tokens)
        nn.init.normal_(self.frame_tokens)
        nn.init.xavier_uniform_(self.block.attention.in_proj.weight)  # as `nn.MultiheadAttention`
        nn.init.zeros_(self.block.attention.in_proj.bias)
        nn.init.zeros_(self.block.attention.out_proj.bias)

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        return [*super().frame_tables(), (self.frame_tokens, 1)]

    def text_prompts(self) -> tuple[Tensor, Tensor]:
        tokens = self.block(self._tokens(), read=self.text_tokens.shape[1])
        before, after = self.to_text(quick_gelu(self.hidden(tokens))).chunk(2, dim=1)
        return before, after

    def frame_prompts(self, frames: int) -> Tensor:
        check_frames(frames, self.num_frames)
        tokens = self.block(self._tokens())[:, self.text_tokens.shape[1] :]
        return tokens.unflatten(1, self.frame_tokens.shape[1:3])

    def _tokens(self) -> Tensor:
        """Return the tokens of every layer, those of texts first: (K, P + f P, d)."""
        return torch.cat([self.text_tokens, self.frame_tokens.flatten(1, 2)], dim=1)


def uniform_parameter(sizes: Sizes, *shape: int) -> nn.Parameter:
    """Return prompts (*shape, d), initialised like a linear map of patches to tokens, as in the released code."""
    width = sizes.vision.width
    bound = math.sqrt(6 / (3 * sizes.vision.patch_size**2 + width))
    parameter = nn.Parameter(torch.empty(*shape, width))
    if not parameter.is_meta:
        nn.init.uniform_(parameter, -bound, bound)
    return parameter
