"""Recognises out-of-memory errors of all libraries, and explains each in one line with advice."""

from __future__ import annotations

import argparse
import errno

from vop.errors import VopError
from vop.utils.threads import usable_cores

# Bytes of address space that PyTorch and LanceDB reserve without using them; LanceDB's threads need more for each core.
# With less, the libraries crash while they load, or wait forever for threads that could not start.
_FOR_PYTORCH = 5 * 2**28
_FOR_DATABASE, _FOR_DATABASE_PER_CORE = 2**31, 2**28
# Messages of libraries that have no exception type for this error.
_MESSAGES = (
    "can't allocate memory",
    "Cannot allocate memory",
    "std::bad_alloc",
    "bad allocation",
    "failed to map segment from shared object",
    "can't start new thread",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "not enough memory",
)


def check_limit(arguments: argparse.Namespace) -> None:
    """Checks that the address space limit lets a command load its libraries.

    Args:
        arguments: `uses_database` is set for commands that open a library of videos.

    Raises:
        VopError: the limit is too low.
    """
    limit, needed = _address_limit(), _FOR_PYTORCH
    if getattr(arguments, "uses_database", False):
        needed = _FOR_DATABASE + _FOR_DATABASE_PER_CORE * usable_cores()
    if limit is not None and limit < needed:
        raise VopError(
            f"out of memory: the limit is {_size(limit)} of address space (ulimit -v), but this command's libraries "
            f"reserve {_size(needed)}; raise it (ulimit -v {needed // 2**10}) or remove it (ulimit -v unlimited)"
        )


def _address_limit() -> int | None:
    """Returns the limit of `ulimit -v` in bytes; None if it is unlimited or unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that memory ran out, also for a new thread or process.

    Checks messages as well as types, because every other RuntimeError is a programming error.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's, not imported here
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and any(
        message in str(error) for message in _MESSAGES
    )


def explain(error: BaseException, arguments: argparse.Namespace) -> str:
    """Returns an error message. It advises to change those options that the command has."""
    on_device = type(error).__name__ == "OutOfMemoryError" or "CUDA" in str(error)
    advice = [f"a smaller --{name}" for name in ("batch-size",) if hasattr(arguments, name.replace("-", "_"))]
    if not on_device:
        advice += [f"fewer --{name}" for name in ("workers", "jobs", "threads") if hasattr(arguments, name)]
    limit = _address_limit()
    more = "" if on_device or limit is None else f"; the limit is {_size(limit)} of address space (ulimit -v)"
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    what = "the device is out of memory" if on_device else "out of memory"
    return f"{what}: use {' or '.join(advice) or 'a machine with more memory'}{more} ({first_line[:200]})"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
