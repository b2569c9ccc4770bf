"""`vop index`: index folders of videos into a searchable library."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from vop.cli.common import (
    add_compile_option,
    add_device_options,
    add_embedding_options,
    add_ray_options,
    check_ray_options,
    command_line,
    embedding_of,
    place,
    print_json,
    say,
    use_device_options,
    warn,
)
from vop.cli.index_reports import print_report, remembered, say_waiting, warn_unconfirmed
from vop.errors import UsageError
from vop.utils import progress
from vop.utils.text import count, first_few

if TYPE_CHECKING:
    from vop.search.manifest import SegmentationConfig
    from vop.search.models import KeptModels
    from vop.search.sharding.parts import PartReport
    from vop.search.sync.commands import IndexSettings
    from vop.search.sync.report import IndexPreview, IndexReport

_SHOWN = 10  # paths shown of a long list


class WorkSize(TypedDict):
    """How much is done at once."""

    workers: int | None
    batch_size: int


class WorkOptions(TypedDict):
    """Keyword arguments from the options of `add_work_options`."""

    precision: str
    compile: bool
    workers: int | None
    batch_size: int
    waiting: Callable[[], None]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "index",
        help="Create or update a searchable library of videos.",
        description="Indexes folders of videos into a library that can be searched. Run it again to add new and "
        "changed videos; without PATH, it goes through everything that was indexed before.",
    )
    parser.add_argument(
        "library", metavar="LIBRARY", type=place, help="The library's folder or address. Created if it does not exist."
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        type=place,
        help="Folders of videos, files, addresses such as s3://bucket/holidays, or tables of them (CSV, TSV, JSON, "
        "JSONL, Parquet). Missing ones are skipped. The library remembers them (default: all that it remembers; "
        "`vop library folders` lists them).",
    )
    _add_creation_options(parser)
    _add_choice_options(parser)
    _add_prune_options(parser)
    parser.add_argument(
        "--redo", action="store_true", help="Decode videos again that an earlier version of vop decoded."
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="Then follow the folders and index what changes in them, until Ctrl-C. Deleted videos are only reported, "
        "unless --prune is given. Needs `pip install 'vop[watch]'`.",
    )
    add_work_options(parser)
    ways = add_process_options(parser)
    ways.add_argument(
        "--shard",
        metavar="I/N",
        help="Do only part I of N, counted from 1, for a batch system such as SLURM. `vop library publish` then adds "
        "the finished parts to the library.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    parser.set_defaults(run=run, resumes=True, uses_database=True)


def _add_creation_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="M",
        help="A run, a CLIP folder, a hub id, or mini (default: OpenAI's ViT-B/32). Only when creating a library; an "
        "existing library keeps its model.",
    )
    add_segmentation_options(parser, note=" Only when creating a library.")
    parser.add_argument(
        "--num-frames",
        type=int,
        help="Number of frames per segment (default: the model's own number). Only when creating a library.",
    )
    parser.add_argument(
        "--keep-frames",
        action="store_true",
        help="Keep decoded frames, so that `vop library reembed` does not decode again. Only when creating a library.",
    )
    parser.add_argument(
        "--refine",
        action="store_true",
        help="Keep the embeddings of frames, so that a search tells more exactly where a moment begins and ends. "
        "Only when creating a library.",
    )
    add_embedding_options(parser, note=" Only when creating a library.")


def _add_choice_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metadata", metavar="FILE", type=Path, help="CSV file with columns to filter by.")
    parser.add_argument(
        "--exclude",
        metavar="GLOB",
        action="append",
        default=[],
        help="Skip files and folders with this name (private, IMG_*.MOV) or path (2024/private). May be repeated. "
        "The library keeps the globs; `vop library exclude` lists and removes them.",
    )
    parser.add_argument(
        "--live-photos",
        action=argparse.BooleanOptionalAction,
        help="Index the short movies of Live Photos too. The library keeps the choice.",
    )
    parser.add_argument(
        "--subtitles",
        action=argparse.BooleanOptionalAction,
        help="Index the text of subtitles: tracks of videos, and files beside them (default). The library keeps the "
        "choice.",
    )
    parser.add_argument(
        "--speech",
        metavar="MODEL",
        help="Recognize speech with a Whisper model: the folder or hub id of a model for faster-whisper, or its size, "
        "such as small. The library keeps the choice; `none` ends it.",
    )


def _add_prune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prune",
        action="store_true",
        help="Remove videos below PATH from the library that were deleted or are excluded. `vop library restore` "
        "restores them.",
    )
    parser.add_argument(
        "-y", "--yes", action="store_true", help="Do not ask before --prune removes a large part of the library."
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="List new, deleted and excluded files, and change nothing."
    )


def add_segmentation_options(parser: argparse._ActionsContainer, *, note: str = "") -> None:
    """Add the options that say how videos are divided; `segmentation_of` reads them."""
    parser.add_argument("--segment", metavar="BY", help=f"Divide videos into windows (default) or shots.{note}")
    parser.add_argument("--window", metavar="SECONDS", type=float, help=f"Length of a window (default 10).{note}")
    parser.add_argument(
        "--overlap", metavar="SECONDS", type=float, help=f"Minimum overlap of two windows (default 2).{note}"
    )


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that decode and embed; `work_options` reads them."""
    parser.add_argument(
        "--precision", default="auto", help="Precision of new embeddings: auto (default), bf16 or fp32."
    )
    parser.add_argument("--workers", type=int, help="Number of decoding processes (default: one per free core).")
    parser.add_argument("--batch-size", type=int, default=16, help="Segments per forward pass (default 16).")
    add_device_options(parser)
    add_compile_option(parser)


def add_process_options(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add the options that say which processes work; return the group of --ray, which excludes others."""
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        help="Number of processes that decode and embed, each with a model of its own (default: one per GPU, or one).",
    )
    ways = parser.add_mutually_exclusive_group()
    add_ray_options(parser, to=ways)
    return ways


def check_process_options(arguments: argparse.Namespace) -> None:
    """Raise a UsageError if the options of `add_process_options` or `--shard` have wrong values."""
    check_ray_options(arguments)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"--jobs is {arguments.jobs}; give 1 or more")
    if arguments.shard is not None:
        part_of(arguments)


def work_options(arguments: argparse.Namespace) -> WorkOptions:
    return {
        "precision": arguments.precision,
        "compile": arguments.compile,
        "workers": arguments.workers,
        "batch_size": arguments.batch_size,
        "waiting": partial(say_waiting, arguments.library),
    }


def run(arguments: argparse.Namespace) -> int:
    check_process_options(arguments)
    if arguments.watch:
        from vop.cli.watching import watch

        return watch(arguments, partial(index_once, arguments, yes=arguments.yes))
    arguments.paths = arguments.paths or remembered(arguments.library)
    if arguments.dry_run:
        _preview(arguments)
        return 0
    use_device_options(arguments)
    if arguments.shard is not None:
        return _index_part(arguments)
    report = index_once(arguments, yes=arguments.yes)
    if report.unconfirmed and _confirm(report.unconfirmed):
        pruned = index_once(arguments, yes=True)
        report = replace(
            report, unconfirmed=[], removed=pruned.removed, deleted=pruned.deleted, excluded=pruned.excluded
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        print_report(report, arguments.library, arguments.paths)
    return warn_unconfirmed(report, arguments.library, arguments.paths)


def index_once(
    arguments: argparse.Namespace,
    *,
    yes: bool,
    settled: Callable[[Path], bool] | None = None,
    kept: KeptModels | None = None,
) -> IndexReport:
    from vop.search.sharding.commands import default_jobs, index_in_processes, index_on_ray
    from vop.search.sync import index

    jobs = default_jobs() if arguments.jobs is None else arguments.jobs
    with progress.show() as show:
        given = _settings(arguments, show)
        given |= {"settled": settled, "kept": kept}
        size: WorkSize = {"workers": arguments.workers, "batch_size": arguments.batch_size}
        if arguments.ray is not None:
            return index_on_ray(
                arguments.library,
                arguments.paths,
                address=arguments.ray,
                jobs=arguments.jobs,
                gpus_per_worker=arguments.gpus_per_worker,
                prune=arguments.prune,
                yes=yes,
                **size,
                **given,
            )
        if jobs == 1:
            return index(arguments.library, arguments.paths, prune=arguments.prune, yes=yes, **size, **given)
        return index_in_processes(
            arguments.library, arguments.paths, jobs=jobs, prune=arguments.prune, yes=yes, **size, **given
        )


def _index_part(arguments: argparse.Namespace) -> int:
    """Do the part of `--shard`."""
    from vop.search.sharding.commands import index_part

    part, parts = part_of(arguments)
    with progress.show() as show:
        report = index_part(
            arguments.library,
            arguments.paths,
            part=part,
            parts=parts,
            prune=arguments.prune,
            yes=arguments.yes,
            workers=arguments.workers,
            batch_size=arguments.batch_size,
            **_settings(arguments, show),
        )
    print_part(report, arguments)
    return 0


def part_of(arguments: argparse.Namespace) -> tuple[int, int]:
    """Return which part `--shard` names, and how many there are."""
    if arguments.jobs is not None:
        raise UsageError(f"--jobs is {arguments.jobs} with --shard, which is one process; start more parts instead")
    part, slash, parts = arguments.shard.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise UsageError(f"--shard is {arguments.shard!r}; give I/N with I from 1 to N, such as 1/4")
    return int(part), int(parts)


def print_part(report: PartReport, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(report.to_dict())
        return
    say(
        f"{report.library}: part {report.part} of {report.parts}: {count('shard', report.written)} written; "
        f"{report.finished:,} of {count('shard', report.shards)} are finished"
    )
    if report.index_built:
        say(f"vector index: {count('part', report.index_built)} built")
    say(f"Add them to the library: {command_line('library', 'publish', arguments.library)}")


def _settings(arguments: argparse.Namespace, show: progress.Progress) -> IndexSettings:
    return {
        "model": arguments.model,
        "segmentation": segmentation_of(arguments),
        "num_frames": arguments.num_frames,
        "keep_frames": arguments.keep_frames,
        "refine": arguments.refine,
        "embedding": embedding_of(arguments),
        "exclude": arguments.exclude,
        "live_photos": arguments.live_photos,
        "metadata": arguments.metadata,
        "redo": arguments.redo,
        "precision": arguments.precision,
        "compile": arguments.compile,
        "subtitles": arguments.subtitles,
        "speech": arguments.speech,
        "progress": show,
        "waiting": partial(say_waiting, arguments.library),
        "warn": lambda text: warn(f"vop: {text}"),
    }


def segmentation_of(arguments: argparse.Namespace) -> SegmentationConfig | None:
    """Return the segmentation that the options give, or None."""
    from vop.search.manifest import SegmentationConfig

    options = {"by": arguments.segment, "window_seconds": arguments.window, "overlap_seconds": arguments.overlap}
    given = {name: value for name, value in options.items() if value is not None}
    usual = SegmentationConfig.overlap_seconds
    if arguments.overlap is None and 0 < given.get("window_seconds", math.inf) <= usual:
        raise UsageError(
            f"--window {arguments.window:g} is not longer than the default overlap of {usual:g} s: add --overlap, "
            f"0 or more and less than {arguments.window:g}"
        )
    return SegmentationConfig(**given) if given else None


def _confirm(paths: Sequence[str]) -> bool:
    """Ask the user whether to remove videos. Return False if there is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    warn("\n".join(first_few(paths, most=_SHOWN)))
    warn(f"Remove {count('video', len(paths))} from the library? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _preview(arguments: argparse.Namespace) -> None:
    from vop.search.sync import preview

    found = preview(arguments.library, arguments.paths, exclude=arguments.exclude, live_photos=arguments.live_photos)
    if arguments.json:
        print_json(found.to_dict())
    else:
        _print_preview(found, prune=arguments.prune)


def _print_preview(found: IndexPreview, *, prune: bool) -> None:
    pruned = "would be removed" if prune else "--prune would remove them"
    groups = {
        "new or unreadable before, would be read": found.new,
        "changed, would be read again": found.changed,
        "moved": [f"{before} -> {path}" for before, path in found.moved],
        f"deleted, {pruned}": found.deleted,
        f"excluded, {pruned}": found.excluded,
        "unavailable, would stay in the library": found.unavailable,
        "given paths that cannot be indexed": list(found.missing),
    }
    for title, paths in groups.items():
        if paths:
            say(f"{title}: {count('file', len(paths))}")
            say("\n".join(first_few(paths, most=len(paths))))
    if found.needs_confirmation:
        say("--prune would ask first, or need --yes, because this is a large part of the library")
    if not any(groups.values()):
        say("nothing to do")
