"""Watch over the processes of a job: when one of them fails or dies, the others end within seconds and say why.

Without this, they would wait for it in their next exchange until that times out. Every rank counts up a number in the
job's store, about once a second, and watches the number of the next rank. A rank that fails writes the cause into the
store, where the others find it. If a number stands still, the rank that watches it writes the cause.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from vop.errors import VopError

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
SILENT_SECONDS = 30.0  # a long call into a library can hold up the counting for a few seconds
START_SECONDS = 600.0  # for the next rank to import its libraries
SIGNAL_SECONDS = 5.0  # in which a user's signal reaches all ranks
END_SECONDS = 5.0  # for a rank to end by itself when another one has failed
_DONE = 2**40  # is added to the number of a rank at its end

# Messages of PyTorch and its libraries when the other side of a connection has ended.
_LOST = (
    *("Connection closed", "Connection reset", "Broken pipe", "Timed out"),  # gloo
    *("remote process exited", "communicator was aborted", "collective operation timeout"),  # NCCL
)

_current: Watch | None = None
_count = 0


@contextmanager
def watched(*, when: bool = True) -> Iterator[None]:
    """Watch over the processes of the job in this block, which every rank enters. Nothing happens without a launcher.

    Args:
        when: False for no watch.

    Raises:
        VopError: another rank has failed; the message names it and the cause.
    """
    global _current, _count
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if not when or _current is not None or size == 1 or "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        yield
        return
    _count += 1
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    watch = _current = Watch(int(os.environ["RANK"]), size, prefix=f"vop/{attempt}/{_count}")
    watch.start()
    try:
        yield
    except BaseException as error:
        watch.explain(error)
        raise
    finally:
        _current = None
        watch.stop()


class Watch:
    """The watch of one rank. See the module."""

    def __init__(self, rank: int, size: int, *, prefix: str) -> None:
        self.rank, self.size, self.prefix = rank, size, prefix
        self.failure: str | None = None  # of another rank
        self._store: Any = None
        self._connected, self._stopped = threading.Event(), threading.Event()
        self._is_ending = False  # by an exception
        self._in_main = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the watch. The other ranks no longer expect this one to count."""
        self._stopped.set()
        self._thread.join(timeout=2 * BEAT_SECONDS)
        if self._store is not None:
            with suppress(RuntimeError):  # the store has ended
                self._store.add(self._key(self.rank), _DONE)

    def explain(self, error: BaseException) -> None:
        """Raise the failure of another rank if it is the reason for `error`; otherwise tell the others of `error`."""
        self._is_ending = True
        if self.failure is None and _is_lost_connection(error):
            self._find_lost(error)
        if self.failure is not None:
            raise VopError(self.failure) from None
        is_stop = isinstance(error, KeyboardInterrupt | SystemExit)
        cause = "it was stopped" if is_stop else str(error) if isinstance(error, VopError) else _first_line(error)
        self._connected.wait(END_SECONDS)  # an error at the start may be faster
        self._tell(self.rank, cause, stopped=is_stop, pid=os.getpid())

    def _find_lost(self, error: BaseException) -> None:
        """Find the rank to which a connection was lost, for at most a few seconds."""
        with suppress(RuntimeError):
            before = self._numbers()
            for _ in range(4):
                time.sleep(BEAT_SECONDS)
                if self.failure is not None:
                    return
            ended = [rank for rank, number in enumerate(self._numbers()) if 0 < number == before[rank] < _DONE]
            if ended and self.rank not in ended:
                self._tell(ended[0], "it ended without a message, as if it was killed")
                self.failure = self._read()
        self.failure = self.failure or f"the connection to another process of the job was lost: {_first_line(error)}"

    def _numbers(self) -> list[int]:
        return [] if self._store is None else [int(self._store.add(self._key(rank), 0)) for rank in range(self.size)]

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # the store is gone, and with it the job
            log.debug("the watch ended", exc_info=True)
            if not self._stopped.is_set():
                self._end(f"the process that coordinates the job is unavailable: {_first_line(error)}")

    def _watch(self) -> None:
        neighbour = (self.rank + 1) % self.size
        number, still = 0, 0  # of the neighbour, and for how many beats. A suspended machine has none
        store = self._store = self._connect()
        self._connected.set()
        while not self._stopped.wait(BEAT_SECONDS):
            store.add(self._key(self.rank), 1)
            found = self._read()
            if found is not None:
                self._end(found)
                return
            now = int(store.add(self._key(neighbour), 0))
            number, still = now, still + 1 if now == number and now < _DONE else 0
            if still * BEAT_SECONDS >= (SILENT_SECONDS if number else START_SECONDS):
                has = "has not responded" if number else "has not started"
                self._tell(neighbour, f"it {has} for {still * BEAT_SECONDS:.0f} s")

    def _end(self, failure: str) -> None:
        """End this process because of a failure of another one: by an exception if possible, otherwise at once."""
        self.failure = failure
        if self._in_main and not self._is_ending and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            _thread.interrupt_main()
        if not self._stopped.wait(END_SECONDS):  # it waits inside of a library
            print(f"vop: {failure}", file=sys.stderr, flush=True)
            os._exit(1)

    def _tell(self, rank: int, cause: str, *, stopped: bool = False, pid: int | None = None) -> None:
        """Write the failure of a rank into the store, unless there is one."""
        host = socket.gethostname() if rank == self.rank else None
        record = {"rank": rank, "host": host, "pid": pid, "cause": cause, "stopped": stopped}
        if self._store is not None:
            with suppress(RuntimeError):  # the store has ended
                self._store.compare_set(f"{self.prefix}/failure", "", json.dumps(record))

    def _read(self) -> str | None:
        """Return the failure in the store in words, unless it is this rank's own."""
        store, key = self._store, f"{self.prefix}/failure"
        if store is None or not store.check([key]):
            return None
        record = json.loads(store.get(key))
        if record["rank"] == self.rank or (record["stopped"] and self._stopped.wait(SIGNAL_SECONDS)):
            return None  # a user's signal has ended this rank, too
        where = f" (process {record['pid']} on {record['host']})" if record["host"] else ""
        return f"rank {record['rank']} of {self.size}{where} failed: {record['cause']}"

    def _connect(self) -> Any:
        """Return a connection to the job's store, apart from that of the process group, which may be waiting."""
        import torch.distributed as dist

        return dist.TCPStore(  # type: ignore[attr-defined]  # PyTorch does not say that it exports it
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=START_SECONDS),
        )

    def _key(self, rank: int) -> str:
        return f"{self.prefix}/{rank}"


def _is_lost_connection(error: BaseException) -> bool:
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _LOST)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
