"""Run functions in separate processes, so that a crash, a hang or a lack of memory ends only one job.

FFmpeg's decoders read untrusted files. Each process is a Python interpreter that imports only what its jobs need, and
receives one job at a time over a socket. Large arrays of a result are passed through shared memory.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, ParamSpec, TypeVar

from vop.errors import VopError

P = ParamSpec("P")
Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_AT_ONCE = 2**30  # bytes
_SHARED_BYTES = 2**16  # smaller arrays are sent over the socket
_STOP_SECONDS = 5.0  # to wait for the end of a job whose result is no longer needed
_PARENT_SECONDS = 1.0  # between checks whether the parent process still runs
_CODE = "import sys; sys.path[:] = {path!r}; from vop.utils.isolation import serve; serve({arguments})"

_ITEM, _RESULT, _ERROR = "item", "result", "error"
_NEXT, _STOP = "next", "stop"


class Crashed(Exception):
    """A process ended during a job.

    Attributes:
        how: the signal or the exit status, such as "SIGSEGV" or "exit status 1".
    """

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Ended(Exception):
    """The processes were closed."""


class TookTooLong(Exception):
    """A job returned no result for too long, so its process was killed."""


class Processes:
    """Processes that run jobs, one for each concurrent job. Thread-safe.

    A process starts when it is needed, and then waits for further jobs. All processes end with `close` or with their
    parent process, even if the parent is killed.

    Args:
        seconds: maximum time without a result of a job. None means unlimited.
        memory_bytes: maximum memory of each process, if the system supports this limit. None means unlimited.
    """

    def __init__(self, *, seconds: float | None = None, memory_bytes: int | None = None) -> None:
        self.seconds, self.memory_bytes = seconds, memory_bytes
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self, count: int, prepare: Callable[[], None]) -> None:
        """Start processes and wait until each has run `prepare`, which imports what jobs need.

        Raises the same errors as `call`.
        """
        with ExitStack() as started:
            processes = [started.enter_context(self._process(fresh=True)) for _ in range(count)]
            for process in processes:
                process.start(prepare, (), {})
            for process in processes:
                process.receive(self.seconds)

    def call(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Call `function(*args, **kwargs)` in one of the processes.

        Raises:
            Crashed: the process ended.
            Ended: the processes are closed.
            TookTooLong: the call took longer than `seconds`.
            Exception: any exception of the function.
        """
        with self._process() as process:
            process.start(function, args, kwargs)
            result: Result = process.receive(self.seconds)[1]
            return result

    def iterate(
        self, function: Callable[P, Generator[Item, None, Result]], *args: P.args, **kwargs: P.kwargs
    ) -> Generator[Item, None, Result]:
        """Yield the items of a generator and return its result. Closing this generator ends the job.

        From the second item on, the process computes the next item while the caller uses the current one.

        Raises the same errors as `call`.
        """
        with self._process() as process:
            process.start(function, args, kwargs)
            process.send(_NEXT)
            kind, item = process.receive(self.seconds)
            if kind == _ITEM:
                yield item
                process.send(_NEXT)
            while kind == _ITEM:
                process.send(_NEXT)
                kind, item = process.receive(self.seconds)
                if kind == _ITEM:
                    yield item
            result: Result = item
            return result

    def close(self) -> None:
        """End all processes and running jobs. Later jobs fail."""
        with self._lock:
            self._closed = True
            busy, idle = self._all - set(self._idle), self._idle
            self._all, self._idle = set(), []
        for process in busy:
            process.kill()  # the thread that waits for its result closes it
        for process in idle:
            process.close()

    @contextmanager
    def _process(self, *, fresh: bool = False) -> Iterator[_Process]:
        process = self._take(fresh=fresh)
        try:
            yield process
        except Crashed:
            if self._closed:
                raise Ended from None
            raise
        finally:
            self._release(process)

    def _take(self, *, fresh: bool) -> _Process:
        with self._lock:
            if self._closed:
                raise Ended
            while self._idle and not fresh:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                self._all.discard(process)
                process.close()
            process = _Process(self.memory_bytes)
            self._all.add(process)
            return process

    def _release(self, process: _Process) -> None:
        process.stop()
        with self._lock:
            if process.is_ready and not self._closed:
                self._idle.append(process)
                return
            self._all.discard(process)
        process.close()


class _Process:
    """The parent's end of one process.

    Attributes:
        is_ready: whether the process waits for a job.
    """

    def __init__(self, memory_bytes: int | None) -> None:
        ours, theirs = socket.socketpair()
        code = _CODE.format(path=sys.path, arguments=f"{theirs.fileno()}, {memory_bytes}, {os.getpid()}")
        with theirs:
            # In a separate process group, so that Ctrl-C does not reach it.
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._connection = Connection(ours.detach())
        self.is_ready = True

    def start(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.is_ready = False
        self.send((function, args, kwargs))

    def send(self, message: Any) -> None:
        with suppress(OSError):  # the process has ended; the next `receive` reports it
            self._connection.send(message)

    def receive(self, seconds: float | None) -> tuple[str, Any]:
        try:
            if not self._connection.poll(seconds):
                self.kill()
                raise TookTooLong(f"{seconds:g} s")
            kind, value = _receive(self._connection)
        except (OSError, EOFError):
            self.kill()
            raise Crashed(_how(self._process.returncode)) from None
        self.is_ready = kind != _ITEM
        if kind == _ERROR:
            raise value
        return kind, value

    def stop(self) -> None:
        """End a job whose result is no longer needed."""
        if self.is_ready:
            return
        self.send(_STOP)
        with suppress(Exception):
            while not self.is_ready and self.is_alive:
                self.receive(_STOP_SECONDS)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.is_ready = False
        self.kill()
        self._connection.close()


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


# -- messages, in both directions


def _send(connection: Connection, message: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    if sum(sizes) < _SHARED_BYTES:
        connection.send((pickle.dumps(message, protocol=5), None))
        return
    connection.send((data, sizes))
    with _shared_file() as file:
        for view in views:
            _write(file, view)
        file.seek(0)
        send_handle(connection, file.fileno(), None)


def _receive(connection: Connection) -> Any:
    data, sizes = connection.recv()
    if sizes is None:
        return pickle.loads(data)
    memory = bytearray(sum(sizes))
    with open(recv_handle(connection), "rb", buffering=0) as file:
        _read(file, memoryview(memory))
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    views = [memoryview(memory)[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return pickle.loads(data, buffers=views)


def _shared_file() -> FileIO:
    """Open an unnamed file, in memory if the system supports it."""
    if hasattr(os, "memfd_create"):
        return FileIO(os.memfd_create("vop"), "w+")
    with tempfile.NamedTemporaryFile() as named:
        return FileIO(os.dup(named.fileno()), "w+")


# A single call to write or read transfers at most 2 GiB.


def _write(file: FileIO, view: memoryview) -> None:
    while view:
        view = view[file.write(view[:_MOST_AT_ONCE]) :]


def _read(file: FileIO, view: memoryview) -> None:
    while view:
        size = file.readinto(view[:_MOST_AT_ONCE])
        if not size:
            raise EOFError
        view = view[size:]


# -- in the child processes


def serve(descriptor: int, memory_bytes: int | None, parent: int) -> None:
    """Run jobs until the parent process ends."""
    connection = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ends FFmpeg's loops, too; Python's handler would wait for them
    threading.Thread(target=_end_with_parent, args=(descriptor, parent), daemon=True).start()
    _limit_resources(memory_bytes)
    while True:
        message = _next_message(connection)
        if message not in (_STOP, _NEXT):  # these belong to a job that has already ended
            _reply(connection, *_work(connection, *message))


def _work(
    connection: Connection, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[str, Any]:
    """Run a job and return its result or error."""
    try:
        result = function(*args, **kwargs)
        return _RESULT, _send_items(connection, result) if isinstance(result, Generator) else result
    except VopError as error:
        return _ERROR, error
    except BaseException as error:
        error.add_note(f"in a child process:\n{traceback.format_exc()}")
        return _ERROR, error


def _send_items(connection: Connection, items: Generator[Any, None, Any]) -> Any:
    """Send an item for every request, and return the generator's result."""
    try:
        while _next_message(connection) == _NEXT:
            item = next(items)
            try:
                _send(connection, (_ITEM, item))
            except OSError:
                os._exit(1)
            except Exception as error:
                raise RuntimeError(f"{type(item).__name__} cannot be sent ({error})") from error
    except StopIteration as end:
        return end.value
    finally:
        items.close()
    return None


def _next_message(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):  # the parent process has ended
        os._exit(1)


def _reply(connection: Connection, kind: str, value: Any) -> None:
    try:
        _send(connection, (kind, value))
    except OSError:
        os._exit(1)
    except Exception as error:  # the value cannot be pickled
        _send(connection, (_ERROR, RuntimeError(f"{type(value).__name__} cannot be sent ({error}): {value}")))


def _end_with_parent(descriptor: int, parent: int) -> None:
    """End this process, even during a job, when its parent has ended."""
    wait = _wait_for_close(descriptor)
    while os.getppid() == parent and not wait(_PARENT_SECONDS):
        pass
    os._exit(1)


def _wait_for_close(descriptor: int) -> Callable[[float], object]:
    """Return a function that waits some seconds, or until the parent closes the socket, if the system reports that.

    The function returns a true value if the socket was closed.
    """
    import select

    if not hasattr(select, "poll"):
        return time.sleep
    poll = select.poll()
    poll.register(descriptor, 0)  # reports only that the socket was closed
    return lambda seconds: poll.poll(1000 * seconds)


def _limit_resources(memory_bytes: int | None) -> None:
    """Set the limits that the system supports: on core dumps and on memory."""
    try:
        import resource
    except ImportError:
        return
    for name, amount in (("RLIMIT_CORE", 0), ("RLIMIT_DATA", memory_bytes)):
        kind = getattr(resource, name, None)
        if kind is None or amount is None:
            continue
        with suppress(OSError, ValueError):
            _, hard = resource.getrlimit(kind)
            most = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
            resource.setrlimit(kind, (most, most))
