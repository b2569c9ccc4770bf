"""`vop params`: every method's trainable parameters."""

from __future__ import annotations

import argparse

from vop.cli.common import add_settings_option, parse_settings, print_json, print_table, warn
from vop.errors import unknown_name


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "params",
        help="count every method's trainable parameters, as the paper does and as they are",
        description="Counts every method's trainable parameters; needs no weights and no network for OpenAI's sizes.",
    )
    parser.add_argument("--backbone", default="ViT-B/32", help="ViT-B/32, ViT-B/16, ViT-L/14, mini, a folder, a hub id")
    parser.add_argument("--method", action="append", help="only this one; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_settings_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from vop.backbones import find_sizes
    from vop.methods import LIBRARIES, METHODS, available, settings_of
    from vop.models.params import count_parameters, to_json

    settings = parse_settings(arguments.settings)
    known = dict.fromkeys(name for method in arguments.method or METHODS for name in settings_of(method))
    for name in settings:
        if name not in known:
            raise unknown_name("setting", name, known)
    listed = arguments.method or available()
    counts = count_parameters(find_sizes(arguments.backbone), only=listed, **settings)
    for name in () if arguments.method else METHODS.keys() - set(listed):
        warn(f"{name} is left out: it needs {LIBRARIES[name]} (pip install 'vop[{name}]')")
    if arguments.json:
        print_json({"backbone": arguments.backbone, **to_json(counts)})
    else:
        print_table(_table(counts, arguments.backbone))


def _table(counts: dict, backbone: str):
    from rich.table import Table

    table = Table(title=f"Trainable parameters on {backbone}")
    table.add_column("method")
    for head in ("paper's count", "% of paper's whole", "true count", "% of true whole"):
        table.add_column(head, justify="right")
    for name, count in counts.items():
        table.add_row(
            name,
            f"{count.paper_count:,}",
            f"{count.paper_percent:.3f}",
            f"{count.true_count:,}",
            f"{count.true_percent:.3f}",
        )
    return table
