"""One batch over several processes, with the gradient that one process would have."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def gather_rows(rows: Tensor) -> Tensor:
    """Every process's rows (n, ...), n its own, in the order of ranks; gradients flow to this process's own.

    Each process computes the whole batch's loss, of which its own rows receive their part of the gradient;
    `DistributedDataParallel` averages over the processes, so that the loss is to be multiplied by their number.
    """
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    most = max(map(int, counts))
    padded = F.pad(rows.detach(), (0, 0) * (rows.ndim - 1) + (0, most - len(rows))).contiguous()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    parts = [part[: int(count)] for part, count in zip(parts, counts, strict=True)]
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def share_gradient(parameter: nn.Parameter) -> None:
    """For what is used after `gather_rows`: each process has its whole gradient, and takes only its share of it."""
    processes = dist.get_world_size()
    parameter.register_hook(lambda gradient: gradient / processes)
