"""The gradient cache: the gradient of a contrastive loss for a batch whose activations do not fit into memory.

The loss needs the embeddings of the whole batch, but each embedding needs only its own activations. So with theta the
parameters of the towers and e_i the embeddings of chunk i:

    1.  e_i = embed(chunk_i; theta)                       for each chunk, without the graph
    2.  L(e_1, e_2, ..),  g_i = dL / de_i                 for the whole batch; its graph begins at the embeddings
    3.  dL / dtheta = sum_i g_i (de_i / dtheta)           for each chunk, with the graph, one after the other

A chunk is embedded twice with the same random numbers, so that dropout leaves out the same elements. Parameters that
only the loss uses, such as the logit scale, get their gradient in step 2.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (RepL4NLP 2021, arXiv
2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")


def cached_gradient(
    chunks: Sequence[Chunk],
    embed: Callable[[Chunk], tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    seeds: Sequence[int],
) -> float:
    """Add the gradient of a batch's loss to the parameters, and return the loss.

    Args:
        chunks: the parts of the batch.
        embed: embeds the texts (t, ...) and the videos (v, ...) of a chunk.
        loss: of all texts and all videos, in the order of the chunks.
        seeds: a seed of the random numbers for each chunk, and one for the loss.
    """
    parts = []
    with torch.no_grad():
        for chunk, seed in zip(chunks, seeds, strict=False):
            torch.manual_seed(seed)
            parts.append(embed(chunk))
    texts, videos = (torch.cat(tensors).requires_grad_() for tensors in zip(*parts, strict=True))
    torch.manual_seed(seeds[-1])
    value = loss(texts, videos)
    value.backward()
    of_texts, of_videos = (
        _gradient(whole).split([len(tensor) for tensor in tensors])
        for whole, tensors in zip((texts, videos), zip(*parts, strict=True), strict=True)
    )
    for chunk, seed, text_gradients, video_gradients in zip(chunks, seeds[:-1], of_texts, of_videos, strict=True):
        torch.manual_seed(seed)
        pairs = zip(embed(chunk), (text_gradients, video_gradients), strict=True)
        trained = [(tensor, gradient) for tensor, gradient in pairs if tensor.requires_grad]  # a tower may be frozen
        if trained:
            torch.autograd.backward([tensor for tensor, _ in trained], [gradient for _, gradient in trained])
    return value.item()


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
