"""Services that the routes share: libraries, threads, limits and decoding processes. Independent of HTTP."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from vop.search.store import Store
from vop.server.clip_cache import ClipCache
from vop.server.indexing import Indexing
from vop.server.kept_examples import KeptExamples
from vop.server.libraries import Libraries
from vop.server.media_worker import MediaWorker
from vop.server.metrics import Metrics
from vop.server.rate_limiter import ConcurrencyLimiter, UploadLimiter
from vop.server.saved_clips import SavedClips
from vop.server.signed_links import SignedLinks
from vop.storage.scratch import Scratch
from vop.utils.memory import usable_memory
from vop.utils.threads import usable_cores

MAX_REQUESTS = 256  # at once
MAX_UPLOADS = 32  # at once
MAX_UPLOAD_BYTES = 512 * 2**20
LARGE_UPLOADS = 8  # files of the maximum size that uploads may take on the disk, all together
MEDIA_WORKERS = 2
SEARCH_THREADS = 8  # most of them wait for the index, so that queries that arrive together share a search of it
MEMORY_SHARE = 0.25  # of the machine's, for large libraries
MAX_CLIPS_BYTES = 2 * 2**30  # and no more than a quarter of the free space

P = ParamSpec("P")
T = TypeVar("T")


class Services:
    """The server's parts.

    Args:
        libraries: open libraries; their models are opened here.
        precision: precision of the models: auto, bf16 or fp32.
        max_requests: maximum number of requests in progress; further ones get 503. Uploads do not count.
        max_uploads: maximum number of uploads at the same time.
        memory_bytes: memory for large libraries, all together; None for a quarter of the machine's.
        may_index: whether clients may start and stop indexings.

    Attributes:
        indexing: the indexings that this server starts, by the names of the libraries.
        folder: folder of temporary files, removed when the server stops.
        read_only: whether clients cannot change tags and favourites.
        examples: example sentences that were found, by view.
        links: signs links to videos; None if clients need no token.

    Raises:
        UsageError: a model does not exist.
        VopError: a model has changed since its library was made.
    """

    def __init__(
        self,
        libraries: list[Store],
        *,
        precision: str = "auto",
        max_requests: int = MAX_REQUESTS,
        max_uploads: int = MAX_UPLOADS,
        max_upload_bytes: int = MAX_UPLOAD_BYTES,
        memory_bytes: int | None = None,
        may_index: bool = False,
    ) -> None:
        self.max_upload_bytes, self.may_index, self.read_only = max_upload_bytes, may_index, False
        self.links: SignedLinks | None = None
        self.examples: dict[str, KeptExamples] = {}
        self.metrics = Metrics()
        self.libraries = Libraries(libraries, precision=precision, on_encoded=self.metrics.encoded)
        self.indexing = {name: Indexing(served.library.path) for name, served in self.libraries.by_name.items()}
        self.requests = ConcurrencyLimiter(max_requests)
        self.uploads = UploadLimiter(max_uploads, max_total_bytes=LARGE_UPLOADS * max_upload_bytes)
        self.worker = MediaWorker(max_workers=MEDIA_WORKERS)
        self._search_threads = ThreadPoolExecutor(max(SEARCH_THREADS, usable_cores()), thread_name_prefix="search")
        self._media_threads = ThreadPoolExecutor(1 + MEDIA_WORKERS, thread_name_prefix="media")  # they only wait
        self._is_worker_warm = False
        self._temporary = tempfile.TemporaryDirectory(prefix="vop-serve-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        max_bytes = min(MAX_CLIPS_BYTES, shutil.disk_usage(self.folder).free // 4)
        self.scratch = Scratch(self.folder)
        self.clips = ClipCache(self.folder / "moments", max_bytes=max_bytes, write=self.worker.export_clip)
        self.saved_clips = SavedClips(self.clips, self.worker.save_clip)
        self.metrics.watch(self.libraries, self.requests, self.uploads, self.clips)
        if memory_bytes is None:
            memory_bytes = int(MEMORY_SHARE * usable_memory())
        for library in libraries:
            library.keep_in_memory(memory_bytes // max(1, len(self.libraries.views)))

    async def in_search_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that reads a library."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._search_threads, call)

    async def in_media_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that waits for decoding, in one of a few threads."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._media_threads, call)

    def warm_worker(self) -> None:
        """Start the decoding processes early, because starting takes seconds."""
        if not self._is_worker_warm:
            self._is_worker_warm = True
            self._media_threads.submit(self.worker.warm)

    def close(self) -> None:
        """Cancel waiting calls, end indexings, and remove all temporary files. Running calls end by themselves."""
        for pool in (self._search_threads, self._media_threads):
            pool.shutdown(wait=False, cancel_futures=True)
        for indexing in self.indexing.values():
            indexing.close()
        self.libraries.close()
        self.worker.close()
        self.scratch.close()
        self._temporary.cleanup()
