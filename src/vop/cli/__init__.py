"""The `vop` command: parses, calls, prints. Exit status: 0 done, 1 the work failed, 2 the call was wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import vop
from vop.errors import UsageError, VopError
from vop.threads import sleep_while_waiting

# One file per group of commands; each has `add_parser(subparsers)`. None of them imports PyTorch before it must.
GROUPS = ["demo", "params", "data", "train", "evaluate", "compare", "index", "search", "library", "serve", "importing"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vop", description="Text-video retrieval by prompt tuning of a frozen CLIP.")
    parser.add_argument("--version", action="version", version=f"vop {vop.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        import_module(f"vop.cli.{group}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    # the libraries' own bars and advice would stand between ours
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("LANCEDB_LOG", "error")
    sleep_while_waiting()
    try:
        return arguments.run(arguments) or 0
    except UsageError as error:
        return _fail(error, 2)
    except VopError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory: use a smaller --batch-size", 1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # of PyTorch, which is not imported here
            raise
        return _fail(f"the device is out of memory: use a smaller --batch-size ({error})", 1)
    except OSError as error:  # of a file that the user named; its message names it too
        return _fail(error, 1)


def _fail(message: object, status: int) -> int:
    print(f"vop: {message}", file=sys.stderr)
    return status
