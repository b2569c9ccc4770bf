"""`vop library`: what is in a library, what is not, and moving it to another model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import command_line, print_json, print_table, say, warn
from vop.cli.index import add_work_options, print_failures, say_waiting, work_of
from vop.utils import progress
from vop.utils.text import count, on_one_line
from vop.utils.threads import use_threads

if TYPE_CHECKING:
    from vop.search.integrity import CheckReport


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("library", help="a library's state, its failures, another model for it")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add(actions, "info", _info, "how much is in it, and which models made it")
    _add(actions, "failures", _failures, "files that are not, or not wholly, in it, with reasons")
    forget = _add(actions, "forget", _forget, "take out the videos below these paths; files are left alone")
    forget.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    check = _add(actions, "check", _check, "compare it with its checksums, and say what is damaged")
    check.add_argument("--repair", action="store_true", help="write it anew without what is damaged")
    forget.add_argument("--for-good", action="store_true", help="without keeping them for restore")
    restore = _add(actions, "restore", _restore, "put back videos that --prune or forget took out in the last 30 days")
    restore.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="only those at or below; default: all")
    exclude = _add(actions, "exclude", _exclude, "show or change which files and folders are not indexed")
    exclude.add_argument("--add", metavar="GLOB", action="append", default=[], help="exclude these too; repeatable")
    exclude.add_argument("--drop", metavar="GLOB", action="append", default=[], help="index them again; repeatable")
    reembed = _add(actions, "reembed", _reembed, "move it to another model; the old one serves until that is done")
    reembed.add_argument("--model", metavar="M", required=True, help="a run, a CLIP folder, a hub id, or mini")
    reembed.add_argument("--keep", action="store_true", help="beside the models that it has, not in their place")
    reembed.add_argument("--num-frames", type=int, help="frames of a segment, if not the model's own")
    reembed.add_argument("--drop-unreadable", action="store_true", help="leave out videos that cannot be read any more")
    add_work_options(reembed)
    reembed.set_defaults(goes_on=True)


def _add(actions, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text)
    parser.add_argument("library", metavar="LIBRARY", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, uses_database=True)
    return parser


def _info(arguments: argparse.Namespace) -> None:
    from vop.search.store import Store

    library = Store.open(arguments.library)
    status, about = library.status(), library.manifest
    if arguments.json:
        models = [asdict(model) for model in library.models]
        document = {
            "library": str(library.path),
            **status.to_dict(),
            "cutting": asdict(about.segmentation),
            "exclude": list(about.exclude),
            "live_photos": about.live_photos,
            "removed": len(library.restorable()),
            "models": models,
        }
        print_json(document)
        return
    videos, segments = count("video", status.videos), count("segment", status.segments)
    say(f"{videos}, {status.hours:.2f} h, {segments} ({about.segmentation})")
    for model in library.models:
        frames = f"{count('frame', about.num_frames)} of a segment"
        say(f"model: {model.name} ({model.method}, {frames}, {model.precision})")
    if status.columns:
        say(f"metadata: {', '.join(status.columns)}")
    if status.outdated:
        redo = command_line("index", arguments.library, "FOLDER", "--redo")
        say(f"decoded by an earlier version of vop: {count('video', status.outdated)}; {redo}")
    if about.exclude:
        say(f"excluded: {', '.join(about.exclude)}")
    if removed := library.restorable():
        restore = command_line("library", "restore", arguments.library)
        say(f"taken out: {count('video', len(removed))}; to put back: {restore}")
    print_failures(status.to_dict(), arguments.library)
    if status.index:
        say(f"indexing now: {status.index.done:,} of {count('file', status.index.total)}")


def _failures(arguments: argparse.Namespace) -> None:
    from vop.search.store import Store

    library = Store.open(arguments.library)
    failures = library.failures()
    if arguments.json:
        status = library.status().to_dict()
        counts = {kind: status[kind] for kind in ("unreadable", "partial", "duplicates")}
        print_json({**counts, "failures": [asdict(failure) for failure in failures]})
        return
    from rich.table import Table

    table = Table(box=None)
    for heading in ("file", "", "reason"):
        table.add_column(heading, overflow="fold")
    for failure in failures:
        table.add_row(on_one_line(failure.path), failure.kind, on_one_line(failure.reason))
    print_table(table) if failures else say("every file could be read")
    print_failures(library.status().to_dict(), None)


def _forget(arguments: argparse.Namespace) -> None:
    from vop.search.index import forget
    from vop.search.removed import KEPT_DAYS

    waiting = partial(say_waiting, arguments.library)
    removed = forget(arguments.library, arguments.paths, for_good=arguments.for_good, waiting=waiting)
    if arguments.json:
        print_json({"removed": removed})
        return
    say(f"taken out of {arguments.library}: {count('video', removed)}; no file was touched")
    if not arguments.for_good:
        restore = command_line("library", "restore", arguments.library, *arguments.paths)
        say(f"For {KEPT_DAYS} days, they can be put back: {restore}")


def _restore(arguments: argparse.Namespace) -> None:
    from vop.search.index import restore

    waiting = partial(say_waiting, arguments.library)
    restored = restore(arguments.library, arguments.paths, waiting=waiting)
    if arguments.json:
        print_json({"restored": restored})
        return
    say(f"put back into {arguments.library}: {count('video', len(restored))}")


def _exclude(arguments: argparse.Namespace) -> None:
    from vop.search.index import change_excluded

    waiting = partial(say_waiting, arguments.library)
    globs = change_excluded(arguments.library, add=arguments.add, drop=arguments.drop, waiting=waiting)
    if arguments.json:
        print_json({"exclude": list(globs)})
        return
    say("\n".join(globs) or "nothing is excluded")
    if arguments.add or arguments.drop:
        warn(f"The next indexing goes by it: {command_line('index', arguments.library, 'FOLDER')}")


def _check(arguments: argparse.Namespace) -> int:
    from vop.search.integrity import check

    with progress.show() as show:
        report = check(
            arguments.library,
            repair=arguments.repair,
            progress=show,
            waiting=partial(say_waiting, arguments.library),
        )
    print_json(report.to_dict()) if arguments.json else _print_check(report)
    return 0 if report.sound or report.repaired else 1


def _print_check(report: CheckReport) -> None:
    for damage in (*report.damaged_files, *report.damaged_videos):
        say(f"damaged: {on_one_line(damage.path)}: {damage.reason}")
    if report.damaged_frames:
        frames = f"kept frames of {count('segment', report.damaged_frames)}"
        say(f"damaged: {frames}; they are decoded again when they are needed")
    segments = f"{count('segment', report.segments)} of {count('video', report.videos)}"
    say(f"{report.library}: {count('file', report.files)}, {segments} were checked")
    if report.without_checksum:
        say(f"without checksum, from an earlier version of vop: {count('segment', report.without_checksum)}")
    if report.deleted or report.changed:
        say(f"of their files {len(report.deleted):,} were deleted or moved, {len(report.changed):,} changed: vop index")
    if report.unavailable:
        say(f"unavailable now: the files of {count('video', len(report.unavailable))}")
    if report.sound:
        say("the library is sound")
    elif not report.repaired:
        say(f"next: {command_line('library', 'check', report.library, '--repair')}")
    else:
        say("the library was repaired, without the damaged videos" if report.damaged_videos else "it was repaired")
        for again in report.index_again():
            say(f"next: {again}")


def _reembed(arguments: argparse.Namespace) -> None:
    use_threads(arguments.threads)
    from vop.search.reembed import reembed

    with progress.show() as show:
        report = reembed(
            arguments.library,
            arguments.model,
            keep=arguments.keep,
            num_frames=arguments.num_frames,
            drop_unreadable=arguments.drop_unreadable,
            progress=show,
            **work_of(arguments),
        )
    if arguments.json:
        print_json(report.to_dict())
        return
    videos, segments = count("video", report.videos), count("segment", report.segments)
    say(f"{report.library}: {videos}, {segments}, made with {', '.join(report.models)}")
    for path, reason in report.dropped:
        say(f"  left out: {on_one_line(path)}: {reason}")
