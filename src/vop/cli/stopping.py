"""Ctrl-C and SIGTERM: a command ends in order, and says how the work goes on."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vop.cli.common import command_line
from vop.utils.progress import is_first_process, is_launched


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what a system sends before it shuts down, and a cluster when a job's time is up."""


@contextmanager
def sigterm_stops(arguments: argparse.Namespace) -> Iterator[None]:
    """Inside, SIGTERM ends the work as Ctrl-C does; a command with `own_signals` sees to them itself."""
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


def how_to_go_on(arguments: argparse.Namespace, words: Sequence[str]) -> str:
    """What is said to who stopped a command.

    Args:
        arguments: with `goes_on` where the same command goes on with what is done; with an option `--resume` where it
            needs that.
        words: the command's.
    """
    if not is_first_process():
        return "stopped"
    needs_option = getattr(arguments, "resume", None) is False
    if not (needs_option or getattr(arguments, "goes_on", False) or getattr(arguments, "resume", None)):
        return "stopped"
    if is_launched():  # by a command that this process does not know
        return "stopped; what is done is kept. Go on with the same command" + " and --resume" * needs_option
    command = command_line(*words, *["--resume"] * needs_option)
    return f"stopped; what is done is kept. Go on with:\n  {command}"
