"""Batches that fit into the device's memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from vop.utils.text import count

log = logging.getLogger(__name__)


class FittingBatches:
    """Computes a function of batches, in smaller batches if the device runs out of memory.

    After such an error the batch is halved until it fits. The size is kept for later batches, and one warning names it.
    A batch of one that does not fit raises the error.

    Args:
        what: what a batch has ("video"), for the warning.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._most: int | None = None
        self._warned = False

    def __call__(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return `function(rows)`, (n, …), on the CPU.

        Args:
            function: maps (n, …) to (n, …), each row independently of the others.
        """
        parts: list[Tensor] = []
        start = 0
        while start < len(rows) or not parts:
            size = min(self._most or len(rows), len(rows) - start)
            part = self._tried(function, rows[start : start + size])
            if part is None:
                self._most = size // 2
                continue
            parts.append(part)
            start += size
        self._warn()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _tried(self, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor | None:
        """Return the function of a batch, or None if it does not fit."""
        try:
            return function(batch).cpu()
        except RuntimeError as error:
            if len(batch) <= 1 or not is_device_out_of_memory(error):
                raise
        # Outside of the handler, because the error's traceback keeps the tensors of the failed batch.
        empty_caches()
        return None

    def _warn(self) -> None:
        if self._most is not None and not self._warned:
            self._warned = True
            fitting = count(self._what, self._most)
            log.warning("the device is out of memory for larger batches: going on with %s at a time", fitting)


def is_device_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of a GPU ran out. MPS has no exception class for it."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory ran out, of a GPU or of the machine, while PyTorch computed."""
    on_cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    return on_cpu or is_device_out_of_memory(error)


def empty_caches() -> None:
    """Give cached blocks back to the device, because they may be too small for the next batch."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
