"""Indexings that the API starts and stops: one process for each library."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from vop.storage.address import Location
from vop.utils.device import default_device

IDLE, WAITING, RUNNING, STOPPING = "idle", "waiting", "running", "stopping"
DONE, STOPPED, FAILED = "done", "stopped", "failed"
State = Literal["idle", "waiting", "running", "stopping", "done", "stopped", "failed"]
_CLOSING_SECONDS = 10.0  # for the process to write what is finished

log = logging.getLogger("vop.server")


@dataclass(frozen=True, kw_only=True)
class IndexingJob:
    """The last indexing of a library that this server has started.

    Attributes:
        state: "idle" before the first one; "waiting" while another process writes to the library; "stopping" until
            the current files are finished; "stopped" if it was stopped before the end.
        message: why it failed, or the last warning.
        report: `IndexReport.to_dict` of one that has ended.
        started_at, ended_at: ISO 8601.
    """

    state: State = "idle"
    message: str | None = None
    report: dict[str, Any] = field(default_factory=dict)
    started_at: str | None = None
    ended_at: str | None = None

    @property
    def is_active(self) -> bool:
        return self.state in (WAITING, RUNNING, STOPPING)


class Indexing:
    """Indexes what a library remembers, in another process, at most once at a time.

    Args:
        library: its folder or address.
    """

    def __init__(self, library: Location) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._job = IndexingJob()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def job(self) -> IndexingJob:
        with self._lock:
            return self._job

    def start(self) -> IndexingJob:
        """Start an indexing, unless one runs already."""
        with self._lock:
            if not self._job.is_active:
                self._job = IndexingJob(state="running", started_at=_now())
                self._process = self._started()
                self._reader = threading.Thread(target=self._follow, args=[self._process], daemon=True)
                self._reader.start()
                log.info("indexing %s in process %d", self._library, self._process.pid)
            return self._job

    def stop(self) -> IndexingJob:
        """Stop after the files that are being read; at the second call, at once. Finished files are kept."""
        with self._lock:
            if self._job.is_active and self._process is not None:
                is_second = self._job.state == STOPPING
                self._process.send_signal(signal.SIGTERM if is_second else signal.SIGUSR1)
                self._job = replace(self._job, state="stopping")
            return self._job

    def close(self) -> None:
        """End the process at once. Finished files are kept."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    def _started(self) -> subprocess.Popen[str]:
        sources = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [sources, os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-m", "vop.server.indexing_process", str(self._library)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": paths, "VOP_DEVICE": str(default_device())},
            start_new_session=True,  # Ctrl-C ends the server, which then ends this process
        )

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Take over what the process reports, until it ends."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with suppress(ValueError):
                    self._take(json.loads(line))
        status = process.wait()
        with self._lock:
            job = replace(self._job, ended_at=_now())
            if job.state == STOPPING:
                job = replace(job, state="stopped")
            elif job.report:
                job = replace(job, state="done")
            else:
                message = job.message or f"the process of the indexing ended with status {status}; see the server's log"
                job = replace(job, state="failed", message=message)
                log.error("indexing %s failed: %s", self._library, message)
            self._job = job

    def _take(self, values: dict[str, Any]) -> None:
        with self._lock:
            if "state" in values and self._job.state != STOPPING:
                self._job = replace(self._job, state=values["state"])
            if "warning" in values:
                log.warning("indexing %s: %s", self._library, values["warning"])
            message = values.get("error") or values.get("warning") or self._job.message
            self._job = replace(self._job, message=message, report=values.get("report", self._job.report))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
