"""`vop backbones`: lists families and well-known checkpoints, describes single backbones, or measures them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vop.cli.common import add_device_options, print_json, print_table, use_device_options, warn
from vop.errors import UsageError
from vop.utils.text import count

if TYPE_CHECKING:
    from rich.table import Table

    from vop.backbones.speed import Speed

UNKNOWN = "–"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "backbones",
        help="List, describe or measure backbones.",
        description="Lists the families of backbones and well-known checkpoints, or describes the given backbones: "
        "tokens, positions, read-out, preprocessing and loss. With --measure, measures how fast they embed videos and "
        "texts on this machine, with random weights, so that nothing is downloaded for a well-known checkpoint.",
    )
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="Backbone to describe or measure: ViT-B/32, mini, a folder or a hub id. Hub ids that are not listed are "
        "downloaded.",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="Measure the speed of the named backbones on this machine, or of all well-known ones, the smallest first. "
        "The options below apply to it.",
    )
    parser.add_argument(
        "--num-frames", type=int, help="Number of frames per video (default: 12, or a video encoder's own number)."
    )
    parser.add_argument("--precision", default="auto", help="Precision: auto (default), bf16 or fp32.")
    add_device_options(parser)
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.measure:
        _measure(arguments)
        return
    if arguments.num_frames is not None:
        raise UsageError(f"--num-frames is {arguments.num_frames} without --measure; add --measure")
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


def _measure(arguments: argparse.Namespace) -> None:
    use_device_options(arguments)
    import torch

    from vop.backbones.speed import measure_backbones
    from vop.utils.device import PRECISIONS, default_device, machine_name, resolve_precision
    from vop.utils.progress import show

    device = default_device()
    dtype = resolve_precision(arguments.precision, device)
    precision = next(name for name, one in PRECISIONS.items() if one == dtype)
    with show() as progress:
        speeds = measure_backbones(
            arguments.names, device=device, dtype=dtype, num_frames=arguments.num_frames, progress=progress
        )
    threads = torch.get_num_threads()
    if arguments.json:
        facts = {"machine": machine_name(), "device": str(device), "precision": precision, "threads": threads}
        print_json(facts | {"weights": "random", "backbones": [vars(speed) for speed in speeds]})
        return
    print_table(_speed_table(speeds, title=f"{machine_name()}: {precision} with {count('thread', threads)}"))


def _speed_table(speeds: list[Speed], *, title: str) -> Table:
    from rich.table import Table

    table = Table(title=title, caption="Random weights; towers only, without decoding and tokenization.")
    table.add_column("name", overflow="fold")
    for heading in ("frames", "videos/s", "texts/s", "ms per query"):
        table.add_column(heading, justify="right")
    problems = any(speed.problem for speed in speeds)
    if problems:
        table.add_column("reason", overflow="fold")
    for speed in speeds:
        figures = [speed.videos_per_second, speed.texts_per_second, speed.query_milliseconds]
        shown = [UNKNOWN if figure is None else f"{figure:,.{_decimals(figure)}f}" for figure in figures]
        table.add_row(speed.name, _shown(speed.num_frames), *shown, *([speed.problem or ""] if problems else []))
    return table


def _decimals(figure: float) -> int:
    """Returns the number of decimals that shows about three digits."""
    return 0 if figure >= 100 else 1 if figure >= 10 else 2


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
