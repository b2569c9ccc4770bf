"""One batch over several processes, with the gradient that one process would have."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Every process's rows (n, ...) in the order of ranks: (world * n, ...); gradients flow to this process's own.

    Each process computes the whole batch's loss, of which its own rows receive their part of the gradient;
    `DistributedDataParallel` averages over the processes, so that the loss is to be multiplied by their number.
    """
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[dist.get_rank()] = rows
    return torch.cat(parts)
