"""`vop backbones`: lists families and well-known checkpoints, or describes single backbones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vop.cli.common import print_json, print_table, warn

if TYPE_CHECKING:
    from rich.table import Table

UNKNOWN = "–"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "backbones",
        help="List or describe backbones.",
        description="Lists the families of backbones and well-known checkpoints, without weights and network. With "
        "names, describes these backbones: tokens, positions, read-out, preprocessing and loss.",
    )
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="Backbone to describe: ViT-B/32, mini, a folder or a hub id. Hub ids that are not listed are downloaded.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from vop.backbones.describe import describe_backbone, known_backbones

    if arguments.names:
        described = [describe_backbone(name) for name in arguments.names]
        if arguments.json:
            print_json({"backbones": described})
        else:
            for one in described:
                print_table(_description(one))
        return
    families, backbones = _families(), known_backbones()
    if arguments.json:
        print_json({"families": families, "backbones": backbones})
    else:
        print_table(_family_table(families))
        print_table(_known_table(backbones))


def _families() -> list[dict[str, Any]]:
    """Returns the families. Skips those of packages that cannot be imported, with a warning."""
    from vop.backbones.describe import describe_family
    from vop.backbones.source import FAMILIES

    found = []
    for name in FAMILIES.names():
        try:
            found.append(describe_family(name))
        except Exception as error:  # another package may raise anything
            if name in FAMILIES.built_in:
                raise
            warn(f"{name} was skipped: {type(error).__name__}: {error}")
    return found


def _family_table(families: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("family", "model_type", "methods", title="Families")
    for family in families:
        table.add_row(family["title"], family["name"], family["methods"])
    return table


def _known_table(backbones: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="Well-known checkpoints")
    table.add_column("name", overflow="fold")
    for heading in ("methods", "dimension", "pixels", "M params", "languages", "license"):
        table.add_column(heading, justify="right" if heading in ("dimension", "pixels", "M params") else "left")
    for one in backbones:
        shown = [one["methods"], one["embed_dim"], one["image_size"], one["millions"], one["languages"], one["license"]]
        short = f" ({one['short_name']})" if one["short_name"] else ""
        table.add_row(f"{one['name']}{short}", *map(_shown, shown))
    return table


def _description(described: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(show_header=False)
    for heading, value in _flat(described):
        table.add_row(heading, value)
    return table


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the headings and texts of nested values. The heading of the protocol itself is left out."""
    for name, value in values.items():
        heading = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(value, "" if name == "protocol" else f"{heading}: ")
        else:
            yield heading, _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return UNKNOWN if value is None else str(value)
