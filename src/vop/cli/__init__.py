"""The `vop` command: parses arguments, calls the API and prints results.

Exit status: 0 for success, 1 if the work failed, 2 if the arguments were wrong, 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from vop.cli.common import warn
from vop.cli.memory import check_limit, explain, is_out_of_memory
from vop.cli.parser import Parser
from vop.cli.stopping import Terminated, how_to_resume, sigterm_stops
from vop.errors import UsageError, VopError
from vop.utils.text import visible
from vop.utils.threads import sleep_while_waiting
from vop.version import VERSION

log = logging.getLogger(__name__)
_HANDLER = "vop command line"  # name of our log handler; a program that calls `main` may have others

# One file per group of commands; each has `add_parser(subparsers)`. They import PyTorch only when they run.
GROUPS = [
    "demo",
    "params",
    "backbones",
    "data",
    "train",
    "evaluate",
    "compare",
    "index",
    "search",
    "library",
    "serve",
    "mcp",
    "importing",
]


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="vop", description="Text-video retrieval by prompt tuning of a frozen CLIP.")
    parser.add_argument("--version", action="version", version=f"vop {VERSION}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        import_module(f"vop.cli.{group}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = argparse.Namespace()
    # Other libraries must not mix their progress bars and advice with ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("LANCEDB_LOG", "error")
    sleep_while_waiting()
    try:
        arguments = build_parser().parse_args(words)
        configure_logging(debug=hasattr(arguments, "debug"))
        check_limit(arguments)
        with sigterm_stops(arguments):
            return arguments.run(arguments) or 0
    except VopError as error:
        log.debug("the command failed", exc_info=True)
        return _fail(error, 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt as stop:
        return _fail(how_to_resume(arguments, words), 143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:  # the program that reads our output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if is_out_of_memory(error):
            log.debug("the command failed", exc_info=True)
            return _fail(explain(error, arguments), 1)
        if isinstance(error, OSError):  # its message names the file
            log.debug("the command failed", exc_info=True)
            return _fail(error, 1)
        raise  # a programming error keeps its traceback


class _VisibleFormatter(logging.Formatter):
    """Escapes control characters, because log lines contain names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def configure_logging(*, debug: bool) -> None:
    """Logs to standard error: warnings and errors, or everything for debug.

    Replaces only its own earlier handler, so that a program that calls `main` keeps its handlers.
    """
    root = logging.getLogger("vop")
    for handler in [handler for handler in root.handlers if handler.get_name() == _HANDLER]:
        root.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.set_name(_HANDLER)
    layout = "%(asctime)s %(levelname)s %(name)s: %(message)s" if debug else "vop: %(message)s"
    handler.setFormatter(_VisibleFormatter(layout))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.WARNING)


def _fail(message: object, status: int) -> int:
    warn(f"vop: {message}")
    return status
