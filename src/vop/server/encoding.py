"""Encode queries. Sentences of requests that arrive together share one forward pass."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

import numpy as np
import torch

from vop.models.model import TextVideoModel
from vop.search import queries
from vop.search.queries import Sentence, Vector

BATCH_SIZE = 64  # texts in one forward pass; larger batches are no faster per text on a CPU
CACHE_SIZE, CACHED_CHARACTERS = 4096, 1000  # texts, and their maximum length: a few megabytes in all

T = TypeVar("T")
Encoded = tuple[Vector, list[str]]  # a query as a unit vector (e,), and notes for the user
OnEncoded = Callable[[str, int, float], None]  # ("text" or "frames", their number, seconds)


class Batcher(Generic[T]):
    """Computes a result for each text, with one call for all waiting texts.

    It adds no delay: texts that arrive during a call are in the next one.

    Args:
        compute: returns a result for each of a list of different texts; runs in `thread`.
        thread: an executor with one thread.
        batch_size: maximum number of texts in a call.
        cache_size: maximum number of cached results. The least recently used are removed.
    """

    def __init__(
        self,
        compute: Callable[[list[str]], Sequence[T]],
        thread: Executor,
        *,
        batch_size: int = BATCH_SIZE,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._compute, self._thread, self._batch_size = compute, thread, batch_size
        self._cache_size = cache_size
        self._cache: OrderedDict[str, T] = OrderedDict()
        self._waiting: list[tuple[str, asyncio.Future[T]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, texts: Sequence[str]) -> list[T]:
        """Return the results of these texts in order. If the caller is cancelled, its texts leave the queue."""
        return await asyncio.gather(*map(self._result_of, texts))

    def _result_of(self, text: str) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if text in self._cache:
            self._cache.move_to_end(text)
            future.set_result(self._cache[text])
            return future
        self._waiting.append((text, future))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return future

    async def _work(self) -> None:
        while batch := self._next_batch():
            try:
                loop = asyncio.get_running_loop()
                computed = await loop.run_in_executor(self._thread, self._compute, list(batch))
                results = list(zip(batch.items(), computed, strict=True))
            except Exception as error:
                for future in _open(future for futures in batch.values() for future in futures):
                    future.set_exception(error)
                continue
            for (text, futures), result in results:
                self._keep(text, result)
                for future in _open(futures):
                    future.set_result(result)

    def _next_batch(self) -> dict[str, list[asyncio.Future[T]]]:
        """Take up to `batch_size` different texts, each with its waiting callers. Drop cancelled callers."""
        batch: dict[str, list[asyncio.Future[T]]] = {}
        later = []
        for text, future in self._waiting:
            if future.done():
                continue
            if text in batch or len(batch) < self._batch_size:
                batch.setdefault(text, []).append(future)
            else:
                later.append((text, future))
        self._waiting = later
        return batch

    def _keep(self, text: str, result: T) -> None:
        if len(text) <= CACHED_CHARACTERS:
            self._cache[text] = result
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


def _open(futures: Iterable[asyncio.Future[T]]) -> Iterable[asyncio.Future[T]]:
    """Return the futures that were not cancelled."""
    return (future for future in futures if not future.done())


class Encoder:
    """Encodes queries with a model. Models that share a backbone also share its thread.

    Args:
        on_encoded: called after each forward pass.
    """

    def __init__(self, model: TextVideoModel, thread: Executor, *, on_encoded: OnEncoded) -> None:
        self.model, self._thread, self._on_encoded = model, thread, on_encoded
        self._texts: Batcher[Encoded] = Batcher(self._encode_texts, thread)

    async def sentences(self, sentences: Sequence[Sentence]) -> Encoded:
        """Encode weighted sentences as one query.

        Raises:
            UsageError: the sentences are empty, or cancel each other out.
        """
        queries.check(sentences)
        encoded = await self._texts([sentence.text for sentence in sentences])
        vector = queries.combine(np.stack([one for one, _ in encoded]), sentences)
        return vector, list(dict.fromkeys(note for _, notes in encoded for note in notes))

    async def frames(self, frames: torch.Tensor) -> Vector:
        """Encode frames of a video or picture, uint8 (num_frames, 3, size, size), as a query."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._encode_frames, frames)

    def _encode_texts(self, texts: list[str]) -> list[Encoded]:
        began = time.perf_counter()
        vectors = self.model.encode_text(texts).numpy()
        self._on_encoded("text", len(texts), time.perf_counter() - began)
        notes = [queries.notes_on(self.model, [Sentence(text)]) for text in texts]
        return list(zip(vectors, notes, strict=True))

    def _encode_frames(self, frames: torch.Tensor) -> Vector:
        began = time.perf_counter()
        vector = queries.embed_frames(self.model, frames)
        self._on_encoded("frames", 1, time.perf_counter() - began)
        return vector
