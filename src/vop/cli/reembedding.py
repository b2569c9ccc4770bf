"""`vop library reembed`: move a library to another model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vop.cli.common import add_embedding_options, print_json, say, use_device_options
from vop.cli.index import (
    add_process_options,
    add_work_options,
    check_process_options,
    part_of,
    print_part,
    work_options,
)
from vop.cli.owner import Add
from vop.errors import UsageError
from vop.utils import progress
from vop.utils.text import count, on_one_line

if TYPE_CHECKING:
    from vop.search.sync.reembedding import ReembedReport


def add_reembed_action(add: Add) -> None:
    """Add the action with a function that adds one to `vop library`."""
    reembed = add(
        "reembed",
        _reembed,
        "Move a library to another model. The old model stays in use until it is finished.",
    )
    reembed.add_argument(
        "--model", metavar="M", required=True, help="New model: a run, a CLIP folder, a hub id, or mini."
    )
    reembed.add_argument("--keep", action="store_true", help="Keep the library's current models too.")
    reembed.add_argument(
        "--num-frames", type=int, help="Number of frames per segment (default: the model's own number)."
    )
    add_embedding_options(reembed)
    reembed.add_argument(
        "--drop-unreadable",
        action="store_true",
        help="Leave out videos that cannot be read, instead of failing.",
    )
    add_work_options(reembed)
    add_process_options(reembed).add_argument(
        "--shard",
        metavar="I/N",
        help="Do only part I of N, counted from 1, for a batch system. Once all parts are done, `vop library publish` "
        "moves the library.",
    )
    reembed.set_defaults(resumes=True)


def _reembed(arguments: argparse.Namespace) -> None:
    check_process_options(arguments)
    use_device_options(arguments)
    if arguments.shard is not None:
        _reembed_part(arguments)
        return
    work = _reembedding(arguments)
    with progress.show() as show:
        report = work(
            arguments.model,
            keep=arguments.keep,
            num_frames=arguments.num_frames,
            drop_unreadable=arguments.drop_unreadable,
            progress=show,
            **work_options(arguments),
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        print_reembedding(report)


def print_reembedding(report: ReembedReport) -> None:
    videos, segments = count("video", report.videos), count("segment", report.segments)
    say(f"{report.library}: {videos}, {segments}, made with {', '.join(report.models)}")
    for failure in report.dropped:
        say(f"  left out: {on_one_line(failure.path)}: {failure.reason}")


def _reembed_part(arguments: argparse.Namespace) -> None:
    """Do the part of `--shard`."""
    from vop.backbones.embedding_config import EmbeddingConfig
    from vop.search.sharding.reembed_parts import reembed_part

    part, parts = part_of(arguments)
    if arguments.drop_unreadable:
        raise UsageError("--drop-unreadable does not go with --shard; give it to `vop library publish`")
    with progress.show() as show:
        report = reembed_part(
            arguments.library,
            arguments.model,
            part=part,
            parts=parts,
            keep=arguments.keep,
            num_frames=arguments.num_frames,
            embedding=EmbeddingConfig.of(merge_tokens=arguments.merge_tokens or 0.0, dimensions=arguments.dimensions),
            progress=show,
            **work_options(arguments),
        )
    print_part(report, arguments)


def _reembedding(arguments: argparse.Namespace) -> Callable[..., ReembedReport]:
    """Return what re-embeds the library with a model."""
    merging, dimensions = arguments.merge_tokens or 0.0, arguments.dimensions
    if arguments.ray is None:
        from vop.search.library import Library
        from vop.search.sharding.commands import default_jobs

        jobs = default_jobs() if arguments.jobs is None else arguments.jobs
        return partial(Library.open(arguments.library).reembed, merge_tokens=merging, dimensions=dimensions, jobs=jobs)
    # Ray starts processes, which is safer before a database is opened.
    from vop.backbones.embedding_config import EmbeddingConfig
    from vop.search.sharding.reembedding import reembed_on_ray

    return partial(
        reembed_on_ray,
        arguments.library,
        embedding=EmbeddingConfig.of(merge_tokens=merging, dimensions=dimensions),
        address=arguments.ray,
        jobs=arguments.jobs,
        gpus_per_worker=arguments.gpus_per_worker,
    )
