"""Ctrl-C and SIGTERM: a command stops cleanly and prints how to resume."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vop.cli.common import command_line
from vop.utils.progress import is_first_process, is_launched


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a system sends before it shuts down, and a cluster when a job's time is up."""


@contextmanager
def sigterm_stops(arguments: argparse.Namespace) -> Iterator[None]:
    """Handles SIGTERM like Ctrl-C, except for a command with `own_signals`, which handles signals itself."""
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    is_main = threading.current_thread() is threading.main_thread()
    if getattr(arguments, "own_signals", False) or not is_main or not is_default:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def how_to_resume(arguments: argparse.Namespace, words: Sequence[str]) -> str:
    """Returns the message for a user who has stopped a command.

    Args:
        arguments: `resumes` is set if the same command resumes the work; `resume` exists if the command must have the
            option `--resume` to do so.
        words: the command line.
    """
    if not is_first_process():
        return "stopped"
    needs_option = getattr(arguments, "resume", None) is False
    if not (needs_option or getattr(arguments, "resumes", False) or getattr(arguments, "resume", None)):
        return "stopped"
    if is_launched():  # this process does not know the launcher's command
        return "stopped; finished work is kept. Resume with the same command" + " and --resume" * needs_option
    command = command_line(*words, *["--resume"] * needs_option)
    return f"stopped; finished work is kept. Resume with:\n  {command}"
