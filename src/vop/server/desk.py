"""Where requests come in: who does their work, and how many are let in at once."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from vop.server.batching import Gate, unless_gone
from vop.server.media import MomentCache
from vop.server.uploads import Uploads
from vop.server.views import Views
from vop.server.worker import MediaWorker
from vop.utils.threads import usable_cores

QUEUE = 256  # requests at once
UPLOADS = 32  # at once
LARGE_UPLOADS = 8  # as large as they may be, that the disk has to have room for
MEDIA_WORKERS = 2
MOMENTS_BYTES = 2 * 2**30  # at most, and no more than a quarter of what is free

T = TypeVar("T")


class Desk:
    """What the handlers of the API share.

    Args:
        queue: how many requests may be in work or wait; above it the answer is 503. A file on its way does not count.
        uploads: how many files may be on their way.

    Attributes:
        folder: for files that are needed for a while; gone with the server.
    """

    def __init__(self, views: Views, *, queue: int = QUEUE, uploads: int = UPLOADS, max_upload_bytes: int) -> None:
        self.views, self.max_upload_bytes = views, max_upload_bytes
        self.requests = Gate(queue)
        self.uploads = Uploads(uploads, most_bytes=LARGE_UPLOADS * max_upload_bytes)
        self._searchers = ThreadPoolExecutor(max(2, usable_cores()), thread_name_prefix="search")
        self._makers = ThreadPoolExecutor(1 + MEDIA_WORKERS, thread_name_prefix="media")  # they wait for the worker
        self._expecting = False
        self.worker = MediaWorker(max_workers=MEDIA_WORKERS)
        self._temporary = tempfile.TemporaryDirectory(prefix="vop-serve-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        most = min(MOMENTS_BYTES, shutil.disk_usage(self.folder).free // 4)
        self.moments = MomentCache(self.folder / "moments", max_bytes=most, write=self.worker.moment)

    async def admit(self, request: Request, work: Callable[[], Awaitable[T]]) -> T:
        """Has a request's work done if there is room, and as long as its client is there.

        Raises:
            TryAgain: there is no room.
            HTTPException: the client has gone.
        """
        with self.requests.place():
            return await unless_gone(request, work())

    async def look_up(self, call: Callable[..., T], *args, **kwargs) -> T:
        """Calls something that reads a library, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._searchers, partial(call, *args, **kwargs))

    async def make(self, call: Callable[..., T], *args, **kwargs) -> T:
        """Calls something that waits for decoding, in a thread of the few there are for that."""
        return await asyncio.get_running_loop().run_in_executor(self._makers, partial(call, *args, **kwargs))

    def expect_media(self) -> None:
        """Says that something will have to be decoded soon: the worker's processes take seconds to start."""
        if not self._expecting:
            self._expecting = True
            self._makers.submit(self.worker.warm)

    def close(self) -> None:
        """Ends the work at once and removes all files; a call that a thread is in is left to end by itself."""
        for pool in (self._searchers, self._makers):
            pool.shutdown(wait=False, cancel_futures=True)
        self.views.close()
        self.worker.close()
        self._temporary.cleanup()


def _of(request: Request) -> Desk:
    return request.app.state.desk


TheDesk = Annotated[Desk, Depends(_of)]
