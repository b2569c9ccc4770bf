"""`vop params`: counts every method's trainable parameters."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vop.cli.common import add_settings_option, parse_settings, print_json, print_table, warn
from vop.errors import unknown_name

if TYPE_CHECKING:
    from rich.table import Table

    from vop.models.params import ParameterCount


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "params",
        help="Count every method's trainable parameters.",
        description="Counts the trainable parameters of every method, both as the paper counts them and in full. "
        "The backbones that `vop backbones` lists need no weights and no network for this.",
    )
    parser.add_argument(
        "--backbone",
        default="ViT-B/32",
        help="Backbone: ViT-B/32 (default), ViT-B/16, ViT-L/14, mini, a folder or a hub id.",
    )
    parser.add_argument(
        "--method", action="append", help="Count only this method: a name, or package.module:Class. May be repeated."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    add_settings_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from vop import methods
    from vop.backbones import find_sizes
    from vop.models.params import count_parameters, to_json

    settings = parse_settings(arguments.settings)
    listed = arguments.method or [*methods.available(), *_importable()]
    known = dict.fromkeys(name for method in listed for name in methods.settings_of(method))
    for name in settings:
        if name not in known:
            raise unknown_name("setting", name, known)
    counts = count_parameters(find_sizes(arguments.backbone), only=listed, **settings)
    for name in () if arguments.method else methods.METHODS.keys() - set(listed):
        warn(f"{name} was skipped: it needs {methods.LIBRARIES[name]} (pip install 'vop[{name}]')")
    if arguments.json:
        print_json({"backbone": arguments.backbone, **to_json(counts)})
    else:
        print_table(_table(counts, arguments.backbone))


def _importable() -> list[str]:
    """Returns the methods that installed packages add. Skips those that cannot be imported, with a warning."""
    from vop import methods

    found = []
    for name in methods.added():
        try:
            methods.find(name)
        except Exception as error:  # another package may raise anything
            warn(f"{name} was skipped: {type(error).__name__}: {error} (vop params --method {name} shows more)")
        else:
            found.append(name)
    return found


def _table(counts: dict[str, ParameterCount], backbone: str) -> Table:
    from rich.table import Table

    table = Table(title=f"Trainable parameters on {backbone}")
    table.add_column("method")
    for heading in ("paper's count", "% of paper's total", "true count", "% of true total"):
        table.add_column(heading, justify="right")
    for name, count in counts.items():
        table.add_row(
            name,
            f"{count.paper_count:,}",
            f"{count.paper_percent:.3f}",
            f"{count.true_count:,}",
            f"{count.true_percent:.3f}",
        )
    return table
