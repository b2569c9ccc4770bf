"""`vop index`: folders of videos into a library that can be searched."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import add_threads_option, command_line, print_json, say, warn
from vop.utils import progress
from vop.utils.text import count, on_one_line
from vop.utils.threads import use_threads

if TYPE_CHECKING:
    from vop.search.manifest import SegmentationConfig
    from vop.search.sync.report import IndexReport

_SHOWN = 10  # paths of a long list


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("index", help="make or update a library of videos that can be searched")
    parser.add_argument("library", metavar="LIBRARY", type=Path, help="its folder; made if it is not there")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", type=Path, help="folders of videos, or files; missing ones are skipped"
    )
    parser.add_argument("--model", metavar="M", help="a run, a CLIP folder, a hub id, or mini; of a new library")
    parser.add_argument("--segment", metavar="BY", help="windows (default) or shots; of a new library")
    parser.add_argument("--window", metavar="SECONDS", type=float, help="length of a window (default 10)")
    parser.add_argument("--overlap", metavar="SECONDS", type=float, help="of two windows (default 2)")
    parser.add_argument("--num-frames", type=int, help="frames of a segment, if not the model's own; of a new library")
    parser.add_argument(
        "--keep-frames", action="store_true", help="keep decoded frames: reembed need not decode; of a new library"
    )
    parser.add_argument("--metadata", metavar="FILE", type=Path, help="a CSV file of columns to filter by")
    parser.add_argument(
        "--exclude",
        metavar="GLOB",
        action="append",
        default=[],
        help="skip files and folders with this name (private, IMG_*.MOV) or path (2024/private); repeatable, and kept "
        "in the library: vop library exclude shows and drops what it has",
    )
    parser.add_argument(
        "--live-photos",
        action=argparse.BooleanOptionalAction,
        help="index the short movies of Live Photos too; kept in the library",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="take out videos below PATH that were deleted or are excluded; vop library restore puts them back",
    )
    parser.add_argument(
        "-y", "--yes", action="store_true", help="do not ask before --prune takes out a large part of the library"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what is new, deleted or excluded; change nothing")
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


def run(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        _show_preview(arguments)
        return 0
    use_threads(arguments.threads)
    report = _index(arguments, yes=arguments.yes)
    if report.unconfirmed and _agrees(report):
        pruned = _index(arguments, yes=True)
        report = replace(
            report, unconfirmed=[], removed=pruned.removed, deleted=pruned.deleted, excluded=pruned.excluded
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        print_report(report, arguments.library, arguments.paths)
    if report.unconfirmed:
        again = command_line("index", arguments.library, *arguments.paths, "--prune")
        warn(
            f"vop: nothing was taken out: {count('video', len(report.unconfirmed))} would be a large part of the "
            f"library. Look at them: {again} --dry-run; then take them out: {again} --yes"
        )
    return 2 if report.unconfirmed else 0


def _index(arguments: argparse.Namespace, *, yes: bool) -> IndexReport:
    from vop.search.sync import index

    with progress.show() as show:
        return index(
            arguments.library,
            arguments.paths,
            model=arguments.model,
            segmentation=_segmentation(arguments),
            num_frames=arguments.num_frames,
            keep_frames=arguments.keep_frames,
            exclude=arguments.exclude,
            live_photos=arguments.live_photos,
            metadata=arguments.metadata,
            prune=arguments.prune,
            yes=yes,
            redo=arguments.redo,
            progress=show,
            warn=lambda text: warn(f"vop: {text}"),
            **work_of(arguments),
        )


def _agrees(report: IndexReport) -> bool:
    """Asks on a terminal whether a large part of the library is to be taken out; elsewhere nobody can agree."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    _list(report.unconfirmed, warn)
    warn(f"Take {count('video', len(report.unconfirmed))} out of the library? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _list(paths: Sequence[str], write: Callable[[str], None], *, most: int | None = _SHOWN) -> None:
    for path in paths[:most]:
        write(f"  {on_one_line(path)}")
    if most is not None and len(paths) > most:
        write(f"  and {len(paths) - most:,} more")


def work_of(arguments: argparse.Namespace) -> dict:
    """What `add_work_options` asked for, and what is said where another process is at work."""
    names = ("precision", "workers", "batch_size")
    return {name: getattr(arguments, name) for name in names} | {"waiting": partial(say_waiting, arguments.library)}


def say_waiting(library: Path) -> None:
    warn(f"vop: another process is writing to {library}; waiting for it to finish")


def _segmentation(arguments: argparse.Namespace) -> SegmentationConfig | None:
    """What was asked for; None if nothing was."""
    from vop.search.manifest import SegmentationConfig

    named = {"by": arguments.segment, "window_seconds": arguments.window, "overlap_seconds": arguments.overlap}
    given = {name: value for name, value in named.items() if value is not None}
    return SegmentationConfig(**given) if given else None


def print_report(report: IndexReport, library: Path, paths: Sequence[Path]) -> None:
    counts = {
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "given other metadata": report.described,
        "taken out": report.removed,
        "unchanged": report.unchanged,
    }
    done = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    say(f"{library}: {done or 'nothing to add'}")
    if report.segments:
        speed = report.hours * 3600 / report.seconds
        made = f"{count('segment', report.segments)} of {report.hours:.2f} h of video"
        say(f"{made} in {report.seconds:.0f} s ({speed:.0f} h/h)")
    if report.outdated:
        redo = command_line("index", library, "FOLDER", "--redo")
        say(f"decoded by an earlier version of vop: {count('video', report.outdated)} elsewhere; {redo}")
    _print_leftovers(report, library, paths)
    if report.passed_over:
        kinds = ", ".join(f"{number:,} × {kind}" for kind, number in sorted(report.passed_over.items()))
        say(f"not indexed: {kinds}")
    if report.missing:
        say(f"skipped, because they cannot be indexed: {', '.join(report.missing)}")
    if report.unmatched:
        say(f"of the metadata, {count('row', len(report.unmatched))} matched no video:")
        _list(report.unmatched, say)
    print_failures(report.to_dict(), library)
    say(f"Search it: {command_line('search', library, 'what happens')}")
    say(f"or with pictures: {command_line('serve', library)}")


def _print_leftovers(report: IndexReport, library: Path, paths: Sequence[Path]) -> None:
    """Videos that were taken out or could be, and how."""
    from vop.search.removed import KEPT_DAYS

    prune = command_line("index", library, *paths, "--prune")
    if report.removed:
        restore = command_line("library", "restore", library)
        say(f"For {KEPT_DAYS} days, the videos that were taken out can be put back: {restore}")
    if report.deleted:
        say(f"deleted from the disk, but not from the library: {count('video', report.deleted)}; to do so: {prune}")
    if report.excluded:
        say(f"excluded, but still in the library: {count('video', report.excluded)}; to take out: {prune}")
    if report.unavailable:
        say(
            f"unavailable: {count('video', report.unavailable)}; the folder is missing, empty or on another drive. "
            "If you deleted it, say so:"
        )
        for folder in report.unavailable_folders[:_SHOWN]:
            say(f"  {command_line('library', 'forget', library, folder)}")
        if len(report.unavailable_folders) > _SHOWN:
            say(f"  and {count('folder', len(report.unavailable_folders) - _SHOWN)} more")


def print_failures(counts: Mapping[str, object], library: Path | None) -> None:
    """How many files are not, or only in part, in a library, by kind; if the library is given, also how to see them."""
    kinds = [f"{counts['unreadable']:,} unreadable", f"{counts['partial']:,} in part only"]
    kinds.append(count("duplicate", counts["duplicates"]))
    said = ", ".join(kind for kind in kinds if not kind.startswith("0 "))
    if said:
        see = f": {command_line('library', 'failures', library)}" if library else ""
        say(f"not, or not wholly, in the library: {said}{see}")


def _show_preview(arguments: argparse.Namespace) -> None:
    from vop.search.sync import preview

    found = preview(arguments.library, arguments.paths, exclude=arguments.exclude, live_photos=arguments.live_photos)
    if arguments.json:
        print_json(found.to_dict())
        return
    going = "would be taken out" if arguments.prune else "--prune would take them out"
    groups = {
        "new or unreadable so far, would be read": found.new,
        "changed, would be read again": found.changed,
        "moved": [f"{before} -> {path}" for before, path in found.moved],
        f"deleted, {going}": found.deleted,
        f"not to be indexed any more, {going}": found.excluded,
        "unavailable, would be left alone": found.unavailable,
        "given paths that cannot be indexed": list(found.missing),
    }
    for what, paths in groups.items():
        if paths:
            say(f"{what}: {count('file', len(paths))}")
            _list(paths, say, most=None)
    if found.needs_confirmation:
        say("--prune would ask first, or want --yes: that is a large part of the library")
    if not any(groups.values()):
        say("nothing to do")
