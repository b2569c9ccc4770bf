"""Many requests, little machinery: limits on how many are inside, and model calls that serve several at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from vop.utils.text import count

BATCH = 64  # texts in one forward pass; on a CPU more are no faster each
REMEMBERED, REMEMBERED_LENGTH = 4096, 1000  # texts, and the characters of the longest: some megabytes
GONE = 499  # nobody reads this answer; nginx has given the number its meaning

T = TypeVar("T")


class TryAgain(Exception):
    """The server cannot answer now, but soon: status 503 with Retry-After."""


class Gate:
    """Lets so many requests in, and turns the others away at once, so that no queue grows without bounds."""

    def __init__(self, limit: int) -> None:
        self.limit, self.inside = limit, 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place inside.

        Raises:
            TryAgain: all are taken.
        """
        if self.inside >= self.limit:
            raise TryAgain(f"the server is busy with {count('request', self.inside)}; try again in a moment")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What some work gives; it is cancelled when the client goes. The request's body has to be read before.

    Raises:
        HTTPException: the client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(GONE, "the client has gone")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Batcher(Generic[T]):
    """Computes something of texts, in one call for all that wait.

    There is no delay: whatever comes while a call runs is in the next one.

    Args:
        compute: gives a result for each of several different texts; runs in `thread`.
        thread: does one thing at a time.
        largest: number of texts in a call.
        remembered: how many results are kept, those asked for last.
    """

    def __init__(
        self,
        compute: Callable[[list[str]], Sequence[T]],
        thread: Executor,
        *,
        largest: int = BATCH,
        remembered: int = REMEMBERED,
    ) -> None:
        self._compute, self._thread, self._largest = compute, thread, largest
        self._remembered = remembered
        self._known: OrderedDict[str, T] = OrderedDict()
        self._waiting: list[tuple[str, asyncio.Future[T]]] = []
        self._working: asyncio.Task | None = None

    async def __call__(self, texts: Sequence[str]) -> list[T]:
        """The results of these texts, in their order. When the caller is cancelled, they leave the queue."""
        return await asyncio.gather(*map(self._ask, texts))

    def _ask(self, text: str) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if text in self._known:
            self._known.move_to_end(text)
            future.set_result(self._known[text])
            return future
        self._waiting.append((text, future))
        if self._working is None or self._working.done():
            self._working = loop.create_task(self._work())
        return future

    async def _work(self) -> None:
        while batch := self._next():
            try:
                loop = asyncio.get_running_loop()
                computed = await loop.run_in_executor(self._thread, self._compute, list(batch))
                results = list(zip(batch.items(), computed, strict=True))
            except Exception as error:
                _settle((future for futures in batch.values() for future in futures), error=error)
                continue
            for (text, futures), result in results:
                self._remember(text, result)
                _settle(futures, result)

    def _next(self) -> dict[str, list[asyncio.Future[T]]]:
        """Up to `largest` different texts and who waits for each; whoever has left is left out."""
        batch: dict[str, list[asyncio.Future[T]]] = {}
        later = []
        for text, future in self._waiting:
            if future.done():
                continue
            if text in batch or len(batch) < self._largest:
                batch.setdefault(text, []).append(future)
            else:
                later.append((text, future))
        self._waiting = later
        return batch

    def _remember(self, text: str, result: T) -> None:
        if len(text) <= REMEMBERED_LENGTH:
            self._known[text] = result
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)


def _settle(futures: Iterator[asyncio.Future] | list, result: object = None, *, error: Exception | None = None) -> None:
    for future in futures:
        if future.done():  # cancelled meanwhile
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
