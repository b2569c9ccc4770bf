"""`vop evaluate`: ranks a split in both directions, and reports metrics with and without rescoring."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.cli.common import (
    add_compile_option,
    add_data_options,
    add_device_options,
    add_embedding_options,
    embedding_of,
    load_data,
    print_json,
    print_table,
    say,
    use_device_options,
    warn_skipped,
)
from vop.cli.moments import add_moment_options, check_moments, check_unused, run_moments
from vop.cli.parser import ReplacedBy
from vop.errors import UsageError, unknown_name
from vop.utils import progress
from vop.utils.progress import is_launched

if TYPE_CHECKING:
    from vop.datasets.types import Dataset
    from vop.evaluation.confidence import QueryRanks
    from vop.evaluation.report import EvaluationReport
    from vop.models.model import TextVideoModel

    Ranks = Callable[[], QueryRanks]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="Rank a split in both directions.",
        description="Ranks the videos of a split for each caption (t2v) and the captions for each video (v2t), and "
        "reports recall and ranks with confidence intervals. With --moments, searches long videos for moments.",
    )
    parser.add_argument(
        "model",
        metavar="RUN",
        action=ReplacedBy,
        option="--embeddings",
        help="Model to evaluate: a run, a CLIP folder, a hub id, or mini. Required without --embeddings.",
    )
    add_data_options(parser, required=False)
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        type=Path,
        help="Rank the embeddings in this .npz, .safetensors, .parquet or .pkl file, instead of a model on a data set.",
    )
    parser.add_argument(
        "--score",
        help="Only with --embeddings: cosine normalises every vector, dot takes them as they are (default: as the file "
        "says, or cosine).",
    )
    parser.add_argument(
        "--save-embeddings",
        metavar="FILE",
        type=Path,
        help="Save the embeddings to a .npz, .safetensors or .parquet file for --embeddings.",
    )
    parser.add_argument("--split", help="Split to rank: test (default, if the data has one), val or train.")
    parser.add_argument("--backbone", help="New location of the run's backbone, if it has moved.")
    parser.add_argument(
        "--num-frames", type=int, help="Number of frames per video (default: as in the run's training)."
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="Frame cache (see `vop data cache`). Missing videos are decoded and added to it.",
    )
    parser.add_argument(
        "--aspect",
        help="Shape of frames: display or stored, see `vop train` (default: as in the run's training).",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="Videos per forward pass (default: 32).")
    parser.add_argument("--precision", default="auto", help="Precision: auto (default), bf16 or fp32.")
    add_embedding_options(parser, note=" The model of --against embeds as usual.")
    parser.add_argument(
        "--on-bad-video", default="skip", help="What to do about unreadable videos: skip (default) or fail."
    )
    parser.add_argument(
        "--bank",
        type=int,
        default=512,
        help="Number of training videos whose captions form QB-Norm's bank (default: 512). 0 turns QB-Norm off.",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="Compare with another model on the same data, or with a file that --json wrote. Prints differences with "
        "intervals and p values. With --embeddings: another file of embeddings, or a file that --json wrote.",
    )
    parser.add_argument(
        "--format",
        default="table",
        help="How to print the metrics: table (default), markdown, latex or csv.",
    )
    parser.add_argument(
        "--write-card", action="store_true", help="Write the results into the run's model card (README.md)."
    )
    add_moment_options(parser)
    add_device_options(parser)
    add_compile_option(parser)
    parser.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="Print one JSON document, or write it into FILE."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from vop.datasets.types import SPLIT_NAMES

    if arguments.split not in (None, *SPLIT_NAMES):
        raise unknown_name("split", arguments.split, SPLIT_NAMES)
    if arguments.json and Path(arguments.json).is_dir():
        raise UsageError(f"--json {arguments.json} is a folder; give a file, or nothing for standard output")
    from vop.utils.ranks import joined

    if arguments.moments:
        check_moments(arguments)
        with joined():
            run_moments(arguments)
        return
    check_unused(arguments)
    from vop.evaluation.report import TEXT_FORMATS

    if arguments.format not in (formats := ("table", *TEXT_FORMATS)):
        raise unknown_name("format", arguments.format, formats)
    with joined():
        report, other = _embedded(arguments) if arguments.embeddings is not None else _evaluated(arguments)
        if progress.is_first_process():
            _print(report, other, arguments)
        elif other:
            other()  # its part of the other model's work


def _evaluated(arguments: argparse.Namespace) -> tuple[EvaluationReport, Ranks | None]:
    """Evaluates a model on a data set."""
    given = {"RUN": arguments.model, "--data": arguments.data}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)} (or --embeddings FILE)")
    if arguments.score is not None:
        raise UsageError("--score is only for --embeddings: a model defines its own scores")
    use_device_options(arguments)
    from vop.evaluation.embeddings_file import check_embeddings_path
    from vop.evaluation.job import default_split, open_model

    if arguments.save_embeddings is not None:
        check_embeddings_path(arguments.save_embeddings)
    dataset = load_data(arguments.data, arguments)
    split = arguments.split or default_split(dataset)
    dataset.split(split)  # fails early, before the model is loaded
    load_model = partial(
        open_model,
        backbone=arguments.backbone,
        num_frames=arguments.num_frames,
        precision=arguments.precision,
        compile=arguments.compile,
    )
    rank = partial(_rank, dataset=dataset, split=split, arguments=arguments)
    other = _other(arguments.against, load_model, rank) if arguments.against is not None else None
    report = rank(
        load_model(arguments.model, embedding=embedding_of(arguments)),
        bank_videos=arguments.bank,
        write_card=arguments.model if arguments.write_card else None,
        save_embeddings=arguments.save_embeddings,
    )
    return report, other


# Options that concern a model or its data, and their defaults.
_OF_MODELS = {
    **dict.fromkeys(("data", "videos", "video_column", "caption_column", "split", "backbone", "num_frames", "cache")),
    **{
        "aspect": None,
        "save_embeddings": None,
        "batch_size": 32,
        "precision": "auto",
        "merge_tokens": None,
        "dimensions": None,
        "compile": False,
        "on_bad_video": "skip",
    },
    **{"bank": 512, "write_card": False},
}


def _embedded(arguments: argparse.Namespace) -> tuple[EvaluationReport, Ranks | None]:
    """Evaluates a file of embeddings."""
    unused = ["RUN"] if arguments.model is not None else []
    unused += [f"--{name.replace('_', '-')}" for name, usual in _OF_MODELS.items() if getattr(arguments, name) != usual]
    if unused:
        raise UsageError(
            f"--embeddings {arguments.embeddings} replaces a model and its data: leave out {', '.join(unused)}"
        )
    use_device_options(arguments)
    from vop.evaluation.confidence import read_ranks
    from vop.evaluation.embeddings_file import is_embeddings_file
    from vop.evaluation.job import evaluate_embeddings

    other = None
    if arguments.against is not None:
        against = arguments.against
        ranks = evaluate_embeddings(against).ranks if is_embeddings_file(against) else read_ranks(against)
        other = lambda: ranks  # noqa: E731
    return evaluate_embeddings(arguments.embeddings, score=arguments.score), other


def _print(report: EvaluationReport, other: Ranks | None, arguments: argparse.Namespace) -> None:
    from vop.evaluation.report import table, text_table

    if arguments.json != "-" and arguments.format == "table":
        print_table(table(report))
    elif arguments.json != "-":
        say(text_table(report, arguments.format))
    document = report.to_dict()
    try:
        if other:
            document["against"] = _compare(report, other(), arguments)
    finally:  # print the evaluation even if the two models cannot be compared
        if arguments.json:
            print_json(document, file=arguments.json)
    warn_skipped(report.skipped)


def _rank(
    model: TextVideoModel,
    *,
    dataset: Dataset,
    split: str,
    arguments: argparse.Namespace,
    bank_videos: int,
    write_card: str | None = None,
    save_embeddings: Path | None = None,
) -> EvaluationReport:
    from vop.evaluation.job import evaluate

    with progress.show() as show:
        return evaluate(
            model,
            dataset,
            split=split,
            cache=arguments.cache,
            aspect=arguments.aspect,
            batch_size=arguments.batch_size,
            on_bad_video=arguments.on_bad_video,
            bank_videos=bank_videos,
            write_card=write_card,
            save_embeddings=save_embeddings,
            shared=is_launched(),
            progress=show,
        )


def _other(name: str, load_model: Callable[[str], TextVideoModel], rank: Callable[..., EvaluationReport]) -> Ranks:
    """Opens the model or file of `--against`, to fail early. Returns a function that returns its ranks."""
    from vop.evaluation.confidence import read_ranks

    path = Path(name)
    if path.is_file() or (path.suffix == ".json" and not path.is_dir()):
        ranks = read_ranks(path)
        return lambda: ranks
    model = load_model(name)
    return lambda: rank(model, bank_videos=0).ranks


def _compare(report: EvaluationReport, other: QueryRanks, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prints the paired test below the table, and returns it for the JSON document."""
    from vop.evaluation.confidence import paired_test
    from vop.evaluation.report import paired_table

    test = paired_test(report.ranks, other)
    if arguments.json != "-":
        title = (
            f"{report.method} ({arguments.model or arguments.embeddings}) against {other.name} ({arguments.against})"
        )
        say()
        print_table(paired_table(test, title=title))
    return {"source": arguments.against, **test.to_dict()}
