"""`vop index`: folders of videos into a library that can be searched."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop import progress
from vop.cli.common import add_threads_option, command_line, print_json, say, warn
from vop.cli.failures import failures_to_dict, say_failures
from vop.threads import use_threads
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.search.about import Cutting
    from vop.search.index import IndexReport


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("index", help="make or update a library of videos that can be searched")
    parser.add_argument("library", metavar="LIBRARY", type=Path, help="its folder; made if it is not there")
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="folders of videos, or files")
    parser.add_argument("--model", metavar="M", help="a run, a CLIP folder, a hub id, or mini; of a new library")
    parser.add_argument("--segment", metavar="BY", help="windows (default) or shots; of a new library")
    parser.add_argument("--window", metavar="SECONDS", type=float, help="length of a window (default 10)")
    parser.add_argument("--overlap", metavar="SECONDS", type=float, help="of two windows (default 2)")
    parser.add_argument("--num-frames", type=int, help="frames of a segment, if not the model's own; of a new library")
    parser.add_argument(
        "--keep-frames", action="store_true", help="keep decoded frames: reembed need not decode; of a new library"
    )
    parser.add_argument("--metadata", metavar="FILE", type=Path, help="a CSV file of columns to filter by")
    parser.add_argument("--prune", action="store_true", help="take out videos below PATH whose files are gone")
    parser.add_argument(
        "--redo", action="store_true", help="decode videos below PATH again that an earlier version of vop decoded"
    )
    add_work_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, goes_on=True, uses_database=True)


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Options of what decodes and embeds."""
    parser.add_argument("--precision", default="auto", help="auto (default), bf16 or fp32; of new embeddings")
    parser.add_argument("--workers", type=int, help="processes that decode (default: one for each free core)")
    parser.add_argument("--batch-size", type=int, default=16, help="segments per forward pass")
    add_threads_option(parser)


def run(arguments: argparse.Namespace) -> None:
    use_threads(arguments.threads)
    from vop.search.index import index
    from vop.search.library import Library

    with progress.show() as show:
        report = index(
            arguments.library,
            arguments.paths,
            model=arguments.model,
            cutting=_cutting(arguments),
            num_frames=arguments.num_frames,
            keep_frames=arguments.keep_frames,
            metadata=arguments.metadata,
            prune=arguments.prune,
            redo=arguments.redo,
            progress=show,
            **work_of(arguments),
        )
    failures = Library.open(arguments.library).failures()  # of the whole library, as `vop library` counts them
    if arguments.json:
        print_json(report.to_dict() | failures_to_dict(failures))
        return
    _print(report, arguments)
    say_failures(failures, library=arguments.library)
    say(f"Search it: {command_line('search', arguments.library, 'what happens')}")
    say(f"or with pictures: {command_line('serve', arguments.library)}")


def work_of(arguments: argparse.Namespace) -> dict:
    """What `add_work_options` asked for, and what is said where another process is at work."""
    names = ("precision", "workers", "batch_size")
    return {name: getattr(arguments, name) for name in names} | {"waiting": partial(say_waiting, arguments.library)}


def say_waiting(library: Path) -> None:
    warn(f"vop: another process is writing to {library}; waiting for it to finish")


def _cutting(arguments: argparse.Namespace) -> Cutting | None:
    """What was asked for; None if nothing was."""
    from vop.search.about import Cutting

    named = {"by": arguments.segment, "window_seconds": arguments.window, "overlap_seconds": arguments.overlap}
    given = {name: value for name, value in named.items() if value is not None}
    return Cutting(**given) if given else None


def _print(report: IndexReport, arguments: argparse.Namespace) -> None:
    counts = {
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "given other metadata": report.described,
        "taken out": report.removed,
        "unchanged": report.unchanged,
    }
    done = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    say(f"{arguments.library}: {done or 'nothing to add'}")
    if report.segments:
        speed = report.hours * 3600 / report.seconds
        made = f"{count('segment', report.segments)} of {report.hours:.2f} h of video"
        say(f"{made} in {report.seconds:.0f} s ({speed:.0f} h/h)")
    if report.gone:
        prune = command_line("index", arguments.library, *arguments.paths, "--prune")
        say(f"{_videos(report.gone, 'was', 'were')} deleted from the disk, but not from the library; to do so: {prune}")
    if report.outdated:
        redo = command_line("index", arguments.library, "FOLDER", "--redo")
        say(f"{_videos(report.outdated, 'was', 'were')} decoded by an earlier version of vop: {redo}")
    if report.away:
        forget = command_line("library", "forget", arguments.library, "FOLDER")
        out_of_reach = "out of reach, as of a drive that is not mounted"
        say(f"{_videos(report.away, 'is', 'are')} {out_of_reach}; if that is for good: {forget}")
    if report.passed_over:
        kinds = ", ".join(f"{number:,} × {kind}" for kind, number in sorted(report.passed_over.items()))
        say(f"passed over, not being videos: {kinds}")


def _videos(number: int, one: str, several: str) -> str:
    """So many videos of the library, with the verb."""
    return f"{count('video', number)} of the library {one if number == 1 else several}"
