"""Decode in separate processes. A file that crashes or hangs the decoder counts as unreadable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from vop.errors import VideoError
from vop.utils.isolation import Crashed, Ended, Processes, TookTooLong

log = logging.getLogger(__name__)

P = ParamSpec("P")
AnyPath = TypeVar("AnyPath", bound=str | Path)
Item = TypeVar("Item")
Result = TypeVar("Result")

_MEMORY_BYTES = 4 * 2**30  # enough for the 16 frames of the largest size that H.264 may refer to
SILENT_SECONDS = 3600.0  # reading a recording of a whole day over a network can take this long


class DecodingProcesses:
    """Processes that decode video files. Takes the arguments of `vop.utils.isolation.Processes`."""

    def __init__(self, *, seconds: float = SILENT_SECONDS, memory_bytes: int | None = _MEMORY_BYTES) -> None:
        self._processes = Processes(seconds=seconds, memory_bytes=memory_bytes)

    def __enter__(self) -> DecodingProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self, count: int, prepare: Callable[[], None]) -> None:
        """Start processes and wait until each has run `prepare`."""
        try:
            self._processes.warm(count, prepare)
        except (Ended, Crashed, TookTooLong):  # the first job will fail with the reason
            log.debug("decoding processes could not be prepared", exc_info=True)

    def close(self) -> None:
        """End all processes. Running and later jobs fail."""
        self._processes.close()

    def call(
        self,
        function: Callable[Concatenate[AnyPath, P], Result],
        path: AnyPath,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Result:
        """Call `function(path, …)` in one of the processes.

        Raises:
            VideoError: the call took too long or too much memory, or its process crashed.
            Exception: any other exception of the function.
        """
        with self._explained(path):
            return self._processes.call(function, path, *args, **kwargs)

    def iterate(
        self,
        function: Callable[Concatenate[AnyPath, P], Generator[Item, None, Result]],
        path: AnyPath,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Generator[Item, None, Result]:
        """Yield the items of the generator `function(path, …)` and return its result; see `Processes.iterate`.

        Raises the same errors as `call`.
        """
        with self._explained(path):
            return (yield from self._processes.iterate(function, path, *args, **kwargs))

    @contextmanager
    def _explained(self, path: str | Path) -> Iterator[None]:
        try:
            yield
        except TookTooLong:
            raise VideoError(path, f"decoding took longer than {self._processes.seconds:g} s and was stopped") from None
        except Ended:
            raise VideoError(path, "decoding was cut short") from None
        except Crashed as error:
            log.debug("the process that decoded %s ended: %s", path, error.how)
            raise VideoError(path, f"decoding crashed ({error.how})") from None
        except MemoryError:
            raise VideoError(path, "decoding took more memory than is allowed") from None
