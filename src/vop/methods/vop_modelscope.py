"""The models that the authors of VoP released on ModelScope, exactly as their code computes them.

    vop-modelscope    basic VoP (damo/cv_vit-b32_retrieval_vop)
    clip-modelscope   Bias, Partial and Proj: a CLIP with tuned weights and no prompts

Differences of both from `vop` and from the paper:

- a caption is padded with 0, or truncated, to a fixed length;
- a video's embedding is the mean of its frames' unit embeddings, and is not normalised again.

Differences of `vop-modelscope` alone:

- the fixed length is the number of positions that the prompts leave free (77 - 8 = 69);
- the first text prompts follow [BOS] (prefix), the others precede the last position of the padded sequence (suffix):
  `[BOS, prefix, w_2 .. w_68, suffix, w_69]`;
- the output is read at `argmax(ids)`, the position of [EOS] without prompts, plus the number of *all* prompts, although
  only the prefix precedes [EOS] unless the caption fills every position.

Use these only to load the releases. Train `vop`, `bias`, `partial` or `proj` instead.

Shapes: `b` texts, `n` tokens, `P` prompts, `d` the text tower's width, `e` the joint space.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP, TextTower, pick
from vop.errors import UsageError
from vop.methods.base import Method
from vop.methods.vop import VoP
from vop.utils.checks import check_whole

PAD = 0


class VoPModelScope(VoP):
    """VoP with a prefix and a suffix of text prompts in every layer.

    Settings:
        text_suffix: how many of the text prompts form the suffix, before the sequence's last position.
    """

    pools_itself = True

    def __init__(self, sizes: Sizes, *, text_prompts: int = 8, text_suffix: int = 4, **settings: Any) -> None:
        super().__init__(sizes, text_prompts=text_prompts, **settings)
        check_whole("text_suffix", text_suffix, at_least=0)
        if text_suffix > text_prompts:
            raise UsageError(f"text_suffix is {text_suffix}; it must be at most text_prompts, {text_prompts}")
        if settings.get("text_layers") is not None:
            raise UsageError("text_layers cannot be chosen for vop-modelscope: every layer has text prompts")
        self.prefix, self.suffix = text_prompts - text_suffix, text_suffix

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        text = clip.text
        ids, eos = _pad(text, ids, length=self.max_tokens)
        x = text.embed(ids)
        for number, layer in enumerate(text.layers, start=1):
            tokens = self._insert(x, number)
            tokens = layer(text.add_positions(tokens) if number == 1 else tokens, causal=True)
            middle = tokens[:, 1 + self.prefix : -1 - self.suffix]
            x = torch.cat([tokens[:, :1], middle, tokens[:, -1:]], dim=1)
        return text.head(pick(tokens, eos + self.prefix + self.suffix))

    def pool(self, frames: Tensor) -> Tensor:
        return mean_of_units(frames)

    def _insert(self, x: Tensor, number: int) -> Tensor:
        """Insert the prompts: (b, n, d) to (b, n + P, d)."""
        prompts = self.text_prompts.get(number)
        if prompts is None:
            return x
        prefix, suffix = prompts.to(x.dtype).expand(len(x), -1, -1).split([self.prefix, self.suffix], dim=1)
        return torch.cat([x[:, :1], prefix, x[:, 1:-1], suffix, x[:, -1:]], dim=1)


class CLIPModelScope(Method):
    """A CLIP whose own weights were tuned and are part of the backbone.

    Settings:
        text_length: the number of positions of a caption, including [BOS] and [EOS]; by default all.
    """

    pools_itself = True

    def __init__(self, sizes: Sizes, *, text_length: int | None = None, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        if text_length is not None:
            check_whole("text_length", text_length, at_least=3, at_most=sizes.text.positions)
            self.max_tokens = text_length

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        ids, _ = _pad(clip.text, ids, length=self.max_tokens)
        return clip.embed_tokens(ids)

    def pool(self, frames: Tensor) -> Tensor:
        return mean_of_units(frames)


def mean_of_units(frames: Tensor) -> Tensor:
    """Pool frame embeddings (b, f, e) to video embeddings (b, e), which are shorter than 1."""
    return F.normalize(frames, dim=-1).mean(dim=1)


def _pad(text: TextTower, ids: Tensor, *, length: int) -> tuple[Tensor, Tensor]:
    """Pad or cut ids (b, n) to (b, length), keeping [EOS]. Return them and the positions of [EOS], (b,)."""
    eos = text.eos_index(ids)
    places = torch.arange(ids.shape[1], device=ids.device)
    ids = ids.masked_fill(places > eos[:, None], PAD)
    ids = F.pad(ids[:, :length], (0, max(0, length - ids.shape[1])), value=PAD)
    eos = eos.clamp(max=length - 1)
    return ids.scatter(1, eos[:, None], text.sizes.eos_token_id), eos
