"""Too little memory: said in one line, with what to do, whichever library noticed it."""

from __future__ import annotations

import argparse
import errno

from vop.errors import VopError
from vop.utils.threads import usable_cores

# Of address space, which PyTorch reserves without using it, and LanceDB again, for the threads of every core. With
# less, they end the process in the middle of their own start, or wait for threads that never came.
_FOR_PYTORCH = 5 * 2**28
_FOR_DATABASE, _FOR_DATABASE_OF_A_CORE = 2**31, 2**28
# How libraries say it where they have no error of their own for it.
_SAID = (
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
    """Refuses to start with less memory than the libraries of a command need to be loaded.

    Args:
        arguments: with `uses_database` where the command opens a library of videos.

    Raises:
        VopError: the limit, and what is needed.
    """
    limit, needed = _address_limit(), _FOR_PYTORCH
    if getattr(arguments, "uses_database", False):
        needed = _FOR_DATABASE + _FOR_DATABASE_OF_A_CORE * usable_cores()
    if limit is not None and limit < needed:
        raise VopError(
            f"out of memory: the limit is {_size(limit)} of address space (ulimit -v), of which this command's "
            f"libraries reserve {_size(needed)}; allow that (ulimit -v {needed // 2**10}) or more (ulimit -v unlimited)"
        )


def _address_limit() -> int | None:
    """What `ulimit -v` says, in bytes; None for no limit, and where there is no such thing."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, or what threads and processes need of it, could not be had.

    Only errors by which libraries report it, and only by their own words: another RuntimeError is an error of the
    program, whatever it is about.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's, not imported here
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and any(said in str(error) for said in _SAID)


def explain(error: BaseException, arguments: argparse.Namespace) -> str:
    """What the user can do about it, with the options that the command has."""
    on_device = type(error).__name__ == "OutOfMemoryError" or "CUDA" in str(error)
    ways = [f"a smaller --{name}" for name in ("batch-size",) if hasattr(arguments, name.replace("-", "_"))]
    ways += [f"fewer --{name}" for name in ("workers", "jobs", "threads") if hasattr(arguments, name) and not on_device]
    limit = _address_limit()
    more = "" if on_device or limit is None else f"; the limit is {_size(limit)} of address space (ulimit -v)"
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    what = "the device is out of memory" if on_device else "out of memory"
    return f"{what}: use {' or '.join(ways) or 'a machine with more'}{more} ({first_line[:200]})"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
