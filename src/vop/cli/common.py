"""What several commands share: options, tables, JSON."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import UsageError
from vop.training.recipe import ENOUGH_STEPS, FIELDS, PAPER_EPOCHS, Recipe, fields_of, kind_of

if TYPE_CHECKING:
    from vop.data.types import Dataset


def add_data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--data",
        metavar="SPEC",
        required=required,
        help="a benchmark with its folder (msrvtt-9k:data/msrvtt), a CSV, JSONL or Parquet file, or emoji-motion",
    )
    add_table_options(parser)


def add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", metavar="DIR", type=Path, help="the folder of the videos, if it is another one")
    parser.add_argument("--video-column", metavar="NAME", help="of a table, if it has no usual name")
    parser.add_argument("--caption-column", metavar="NAME", help="of a table, if it has no usual name")


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """`vop.threads.use_threads` takes its value."""
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        help="threads that PyTorch computes with on the CPU (default: OMP_NUM_THREADS, or one for each core)",
    )


def load_data(spec: str, arguments: argparse.Namespace) -> Dataset:
    from vop.data.readers import load

    return load(
        spec,
        videos=arguments.videos,
        video_column=arguments.video_column,
        caption_column=arguments.caption_column,
    )


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="a setting of the method: --set split_layer=8 --set visual_layers=[1,2,3]",
    )


_RECIPE_HELP = {
    "epochs": "passes over the training pairs",
    "batch_size": "videos per step, over all processes",
    "captions_per_video": "a video is encoded once for so many of its captions",
    "learning_rate": "of AdamW",
    "weight_decay": "of AdamW",
    "warmup": "fraction of the steps in which the learning rate rises",
    "max_grad_norm": "gradients are clipped to this norm",
    "seed": "of the prompts' initial values and of the order of the pairs",
    "precision": "auto, bf16 or fp32",
    "validation": "fraction of the training videos that selects the epoch, if the data has no validation split; "
    "at least 100 videos or a third of them",
    "if_worse": "untuned: keep the untuned model if no epoch is better on validation videos; tuned: keep the best "
    "epoch all the same",
    "aspect": "display: frames in the shape that players show; stored: pixels as squares, as published pipelines do",
    "on_bad_video": "skip: leave unreadable videos out and list them; fail: stop",
    "workers": "processes that decode",
    "checkpoint_seconds": "time between checkpoints within an epoch",
}
_NO_DEFAULT = {
    "epochs": f"{PAPER_EPOCHS}, or as many as {ENOUGH_STEPS} steps take",
    "learning_rate": "the method's own",
}


def add_recipe_options(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    """An option for each field of a recipe."""
    for name, field in FIELDS.items():
        if name not in without:
            default = _NO_DEFAULT.get(name, field.default)
            text = f"{_RECIPE_HELP[name]} (default {default})"
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind_of(field), help=text)


def recipe_of(config: dict, arguments: argparse.Namespace, **fixed) -> Recipe:
    """The recipe of a configuration, with the options that were given, and `fixed` values, in front of it."""
    given = {name: value for name, value in vars(arguments).items() if name in FIELDS and value is not None}
    return Recipe(**fields_of(config) | given | fixed)


def parse_settings(pairs: Sequence[str]) -> dict:
    """NAME=VALUE pairs, the values as YAML."""
    import yaml

    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--set {pair!r}: write NAME=VALUE")
        try:
            settings[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {pair!r}: the value {value!r} is not readable as YAML") from None
    return settings


def print_json(document: dict, *, file: str | None = None) -> None:
    """One JSON document, on standard output or into a file."""
    text = _on_few_lines(json.dumps(document, indent=2, ensure_ascii=False))
    if file in (None, "-"):
        print(text)
        return
    from vop.files import atomic_write

    with atomic_write(file) as path:
        path.write_text(text + "\n", encoding="utf-8")


def _on_few_lines(text: str) -> str:
    """Indented JSON with every list of numbers on one line: of ranks there are tens of thousands."""
    number = r"-?[\d.e+-]+"
    lists = rf"\[\n\s*({number}(?:,\n\s*{number})*)\n\s*\]"  # no string of JSON holds the end of a line
    return re.sub(lists, lambda found: f"[{' '.join(found[1].split())}]", text)


def print_table(table: object) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 140  # no terminal, no width to keep to
    Console(width=width).print(table)


def warn_skipped(skipped: Sequence) -> None:
    """Lists videos that were left out, on standard error."""
    if skipped:
        print(f"{len(skipped)} videos were skipped:", file=sys.stderr)
    for video in skipped[:20]:
        print(f"  {video.path}: {video.reason}", file=sys.stderr)
    if len(skipped) > 20:
        print(f"  and {len(skipped) - 20} more", file=sys.stderr)
