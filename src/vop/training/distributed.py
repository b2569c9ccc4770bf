"""Split a batch over several processes; its gradient is the same as in a single process."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows (n, ...) of all processes in rank order; `n` may differ. Gradients flow to the local rows only.

    Each process computes the loss of the whole batch, and its local rows receive their part of the gradient.
    `DistributedDataParallel` averages over the processes, so the caller multiplies the loss by their number.
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
    """Divide a parameter's gradient by the number of processes.

    For parameters used after `gather_rows`, where each process computes the whole gradient.
    """
    processes = dist.get_world_size()
    parameter.register_hook(lambda gradient: gradient / processes)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in each of them."""
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
