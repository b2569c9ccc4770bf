"""`vop evaluate --moments`: measures how well a search finds moments whose times are known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import print_json, print_table, use_device_options, warn_skipped
from vop.cli.index import add_segmentation_options, segmentation_of
from vop.errors import UsageError
from vop.utils import progress
from vop.utils.text import count

if TYPE_CHECKING:
    from rich.table import Table

    from vop.search.moments import MomentReport

# Options of `vop evaluate` that rank whole videos, and their defaults.
_OF_VIDEOS = {
    **dict.fromkeys(("embeddings", "score", "save_embeddings", "cache", "aspect", "against", "backbone")),
    **dict.fromkeys(("video_column", "caption_column")),
    **{"on_bad_video": "skip", "bank": 512, "format": "table", "write_card": False},
}
_OF_MOMENTS = ("segment", "window", "overlap", "refine", "library", "workers")


def add_moment_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "moments", "Measure whether a search finds the moments of long videos at the right times."
    )
    group.add_argument(
        "--moments",
        action="store_true",
        help="Index the videos of --data, which must have times (activitynet:DIR, charades-sta:DIR, didemo:DIR, "
        "qvhighlights:DIR, emoji-moments, or a table with columns start and end), and search for every sentence.",
    )
    add_segmentation_options(group)
    group.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        help="Keep the embeddings of frames, and refine the ends of the moments by them (default: if --library keeps "
        "them).",
    )
    group.add_argument(
        "--library",
        metavar="LIBRARY",
        type=Path,
        help="Keep the library in this folder, or use the one that an earlier evaluation made.",
    )
    group.add_argument("--workers", type=int, help="Number of decoding processes (default: one per free core).")


def check_unused(arguments: argparse.Namespace) -> None:
    """Raise a UsageError if an option for moments is given without --moments."""
    given = [f"--{name}" for name in _OF_MOMENTS if getattr(arguments, name) is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: only with --moments")


def check_moments(arguments: argparse.Namespace) -> None:
    """Raise a UsageError if the options do not fit --moments."""
    unused = [f"--{name.replace('_', '-')}" for name, usual in _OF_VIDEOS.items() if getattr(arguments, name) != usual]
    if unused:
        raise UsageError(f"--moments ranks segments, not whole videos: leave out {', '.join(unused)}")
    if arguments.model is None or arguments.data is None:
        raise UsageError("--moments needs a model, RUN, and --data SPEC")


def run_moments(arguments: argparse.Namespace) -> None:
    use_device_options(arguments)
    from vop.search.moments import evaluate_moments

    with progress.show() as show:
        report = evaluate_moments(
            arguments.data,
            model=arguments.model,
            split=arguments.split,
            videos=arguments.videos,
            segmentation=segmentation_of(arguments),
            num_frames=arguments.num_frames,
            refine=arguments.refine,
            precision=arguments.precision,
            merge_tokens=arguments.merge_tokens,
            dimensions=arguments.dimensions,
            compile=arguments.compile,
            library=arguments.library,
            workers=arguments.workers,
            batch_size=arguments.batch_size,
            shared=progress.is_launched(),
            progress=show,
        )
    if not progress.is_first_process():
        return
    if arguments.json != "-":
        print_table(moment_table(report))
    if arguments.json:
        print_json(report.to_dict(), file=arguments.json)
    warn_skipped(report.skipped)


def moment_table(report: MomentReport) -> Table:
    """Return a Rich table with a row for each gallery."""
    from rich.table import Table

    from vop.backbones.embedding_config import EmbeddingConfig
    from vop.evaluation.moments import IOUS, RECALLS

    table = Table(title=f"{report.method} on {report.data}, {report.split}", title_justify="left")
    table.add_column("gallery")
    for k in RECALLS:
        for iou in IOUS:
            table.add_column(f"R@{k} IoU {iou}", justify="right")
    table.add_column("mean IoU", justify="right")
    for name, found in (("one video", report.one_video), ("all videos", report.all_videos)):
        cells = [f"{found.recall[k][iou]:.1f}" for k in RECALLS for iou in IOUS]
        table.add_row(name, *cells, f"{found.mean_iou:.1f}")
    reachable = ", ".join(f"{share:.1f} % at IoU {iou}" for iou, share in report.one_video.reachable.items())
    ends = ", ends refined by frames" if report.refined else ""
    used = EmbeddingConfig.of(merge_tokens=report.merge_tokens, dimensions=report.dimensions)
    ends += "".join(f", {words}" for words in used.in_words())
    table.caption = (
        f"{count('query', report.queries)}, {count('video', report.videos)}, {count('segment', report.segments)} of "
        f"{report.seconds:.1f} s on average ({report.segmentation}{ends})\n"
        f"at most reachable with these segments: {reachable}; ties count against the query"
    )
    table.caption_justify = "left"
    return table
