"""`vop evaluate`: both directions, every metric, rescoring beside it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import (
    add_data_options,
    add_threads_option,
    load_data,
    print_json,
    print_table,
    say,
    warn_skipped,
)
from vop.errors import UsageError, unknown_name
from vop.utils import progress
from vop.utils.threads import use_threads

if TYPE_CHECKING:
    from vop.datasets.types import Dataset
    from vop.evaluation.confidence import QueryRanks
    from vop.evaluation.report import EvaluationReport
    from vop.models.model import TextVideoModel


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("evaluate", help="rank a split in both directions")
    parser.add_argument("model", metavar="RUN", help="a run, a CLIP folder, a hub id, or mini")
    add_data_options(parser)
    parser.add_argument("--split", help="test (default where there is one), val or train")
    parser.add_argument("--backbone", help="where the run's backbone is now, if it has moved")
    parser.add_argument("--num-frames", type=int, help="frames of a video, if not the run's own")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="decoded frames (vop data cache), read and completed")
    parser.add_argument("--aspect", help="display or stored pixels, if not as in the run's training (see vop train)")
    parser.add_argument("--batch-size", type=int, default=32, help="videos per forward pass")
    parser.add_argument("--precision", default="auto", help="auto (default), bf16 or fp32")
    parser.add_argument("--on-bad-video", default="skip", help="skip (default) or fail")
    parser.add_argument(
        "--bank", type=int, default=512, help="training videos whose captions are QB-Norm's bank; 0 for none"
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="compare with another model on the same data, or with a file that --json wrote: difference, interval, p",
    )
    add_threads_option(parser)
    parser.add_argument("--json", metavar="FILE", nargs="?", const="-", help="JSON on standard output, or into a file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from vop.datasets.types import SPLIT_NAMES

    if arguments.split not in (None, *SPLIT_NAMES):
        raise unknown_name("split", arguments.split, SPLIT_NAMES)
    if arguments.json and Path(arguments.json).is_dir():
        raise UsageError(f"--json {arguments.json} is a folder; give a file, or nothing for standard output")
    use_threads(arguments.threads)
    from vop.evaluation.report import table
    from vop.models.pretrained import load
    from vop.utils.device import default_device, resolve_precision

    dataset = load_data(arguments.data, arguments)
    split = arguments.split or (next(iter(dataset.splits)) if len(dataset.splits) == 1 else "test")
    dataset.split(split)  # before seconds are spent on the model
    dtype = resolve_precision(arguments.precision, default_device())
    open_model = partial(load, backbone=arguments.backbone, num_frames=arguments.num_frames, dtype=dtype)
    rank = partial(_rank, dataset=dataset, split=split, arguments=arguments)
    other = _other(arguments.against, open_model, rank) if arguments.against is not None else None
    report = rank(open_model(arguments.model), bank_videos=arguments.bank)
    if arguments.json != "-":
        print_table(table(report))
    document = report.to_dict()
    try:
        if other:
            document["against"] = _compare(report, other(), arguments)
    finally:  # where the two cannot be compared, the evaluation itself is still worth having
        if arguments.json:
            print_json(document, file=arguments.json)
    warn_skipped(report.skipped)


def _rank(
    model: TextVideoModel, *, dataset: Dataset, split: str, arguments: argparse.Namespace, bank_videos: int
) -> EvaluationReport:
    from vop.evaluation.job import evaluate_model

    with progress.show() as show:
        return evaluate_model(
            model,
            dataset,
            split=split,
            cache=arguments.cache,
            aspect=arguments.aspect,
            batch_size=arguments.batch_size,
            on_bad_video=arguments.on_bad_video,
            bank_videos=bank_videos,
            progress=show,
        )


def _other(
    name: str, open_model: Callable[[str], TextVideoModel], rank: Callable[..., EvaluationReport]
) -> Callable[[], QueryRanks]:
    """Gives the ranks of `--against` when it is called. What cannot be opened is refused at once, not after hours."""
    from vop.evaluation.confidence import read_ranks

    path = Path(name)
    if path.is_file() or (path.suffix == ".json" and not path.is_dir()):
        ranks = read_ranks(path)
        return lambda: ranks
    model = open_model(name)
    return lambda: rank(model, bank_videos=0).ranks


def _compare(report: EvaluationReport, other: QueryRanks, arguments: argparse.Namespace) -> dict:
    """Prints the paired test beneath the table, and gives it for the document."""
    from vop.evaluation.confidence import paired_test
    from vop.evaluation.report import paired_table

    test = paired_test(report.ranks, other)
    if arguments.json != "-":
        title = f"{report.method} ({arguments.model}) against {other.name} ({arguments.against})"
        say()
        print_table(paired_table(test, title=title))
    return {"source": arguments.against, **test.to_dict()}
