"""`vop mcp`: lets assistants search libraries by the Model Context Protocol."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from vop.cli.common import add_device_options, place, use_device_options
from vop.errors import UsageError
from vop.utils.files import expand


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "mcp",
        help="Let an assistant search libraries (Model Context Protocol).",
        description="Serves libraries to an assistant by the Model Context Protocol, on standard input and output: the "
        "assistant starts this command. It can search, describe libraries and look at moments, and change nothing; "
        "`pip install 'vop[mcp]'` installs what it needs.",
    )
    parser.add_argument("libraries", metavar="LIBRARY", nargs="+", type=place, help="Libraries that `vop index` made.")
    parser.add_argument(
        "--allow-export",
        metavar="DIR",
        type=Path,
        help="Let the assistant write clips into this folder (default: it writes nothing).",
    )
    parser.add_argument("--precision", default="auto", help="Precision of the models: auto (default), bf16 or fp32.")
    add_device_options(parser)
    parser.set_defaults(run=run, uses_database=True)


def run(arguments: argparse.Namespace) -> int:
    from vop.mcp_server.server import create_server
    from vop.search.library import Library

    export_to = None if arguments.allow_export is None else _folder(arguments.allow_export)
    use_device_options(arguments)
    libraries = [Library.open(folder, precision=arguments.precision) for folder in arguments.libraries]
    create_server(libraries, export_to=export_to).run()
    return 0


def _folder(path: Path) -> Path:
    """Return a folder in which files can be written; it is made if it does not exist.

    Raises:
        UsageError: that is not possible.
    """
    folder = expand(path).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--allow-export {path}: not a folder ({error.strerror}); name one for clips") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--allow-export {path}: it cannot be written to; name another folder")
    return folder
