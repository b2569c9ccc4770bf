"""The `vop` command: parses, calls, prints. Exit status: 0 done, 1 the work failed, 2 the call was wrong.

A command that was stopped ends with 130 (Ctrl-C) or 143 (SIGTERM).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from vop.cli.common import warn
from vop.cli.memory import check_limit, explain, is_out_of_memory
from vop.cli.parser import Parser
from vop.cli.stopping import Terminated, how_to_go_on, sigterm_stops
from vop.errors import UsageError, VopError
from vop.utils.threads import sleep_while_waiting
from vop.version import VERSION

# One file per group of commands; each has `add_parser(subparsers)`. None of them imports PyTorch before it must.
GROUPS = ["demo", "params", "data", "train", "evaluate", "compare", "index", "search", "library", "serve", "importing"]


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
    # the libraries' own bars and advice would stand between ours
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("LANCEDB_LOG", "error")
    sleep_while_waiting()
    try:
        arguments = build_parser().parse_args(words)
        check_limit(arguments)
        with sigterm_stops(arguments):
            return arguments.run(arguments) or 0
    except UsageError as error:
        return _fail(error, 2)
    except VopError as error:
        return _fail(error, 1)
    except KeyboardInterrupt as stop:
        return _fail(how_to_go_on(arguments, words), 143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(explain(error, arguments), 1)
        if isinstance(error, OSError):  # of a file that the user named; its message names it too
            return _fail(error, 1)
        raise  # an error of the program keeps its traceback


def _fail(message: object, status: int) -> int:
    warn(f"vop: {message}")
    return status
