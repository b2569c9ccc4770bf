"""End a process of `multiprocessing` together with its parent. Imports little, so that any process starts fast."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process when its parent ends, even if the parent is killed.

    Pass it as the initializer of a process. A process that is left over would wait forever, or work on beside the
    command that resumes the work.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait_and_end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_end, name="end with parent", daemon=True).start()
