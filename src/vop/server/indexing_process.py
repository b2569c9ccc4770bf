"""The process in which a server indexes what a library remembers: `python -m vop.server.indexing_process LIBRARY`.

It prints one JSON object on each line: `{"state": "waiting"}` and `{"state": "running"}`, `{"warning": TEXT}`, and at
the end `{"report": …}` or `{"error": TEXT}`. SIGUSR1 makes it stop after the files that are being read, SIGTERM at
once. Finished files are kept in both cases.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from vop.errors import VopError
from vop.search.folders import remembered
from vop.search.store import Store
from vop.utils.threads import sleep_while_waiting

_NICENESS = 10  # searches of the server come first


def main(library: str) -> int:
    sleep_while_waiting()
    with suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    stopping = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGUSR1, lambda number, frame: stopping.set())
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    try:
        _index(library, stopping)
    except KeyboardInterrupt:
        return 0
    except (VopError, OSError) as error:
        _print(error=str(error))
        return 1
    return 0


def _index(library: str, stopping: threading.Event) -> None:
    from vop.search.sync import index

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        _print(state="running")

    path = Store.open(library).path
    report = index(
        path,
        remembered(path),
        stopped=stopping.is_set,
        progress=_once(progress),
        waiting=lambda: _print(state="waiting"),
        warn=lambda text: _print(warning=text),
    )
    _print(report=report.to_dict())


def _once(progress: Any) -> Any:
    """Return a progress that passes only its first call."""
    called = threading.Event()

    def first(*args: Any, **kwargs: Any) -> None:
        if not called.is_set():
            called.set()
            progress(*args, **kwargs)

    return first


def _print(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
