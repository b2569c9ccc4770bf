"""`vop library`: what is in a library, what is not, and moving it to another model."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop import progress
from vop.cli.common import print_json, print_table
from vop.cli.index import add_work_options, command, print_failures, say_waiting, work_of
from vop.threads import use_threads

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


def _add(actions, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text)
    parser.add_argument("library", metavar="LIBRARY", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def _info(arguments: argparse.Namespace) -> None:
    from vop.search.library import Library

    library = Library.open(arguments.library)
    status, about = library.status(), library.about
    if arguments.json:
        models = [asdict(model) for model in library.models]
        kept = {
            "exclude": list(about.exclude),
            "live_photos": about.live_photos,
            "removed": len(library.removed.videos()),
        }
        print_json({"library": str(library.path), **status, "cutting": asdict(about.cutting), **kept, "models": models})
        return
    print(f"{status['videos']} videos, {status['hours']:.2f} h, {status['segments']} segments ({about.cutting})")
    for model in library.models:
        print(f"model: {model.name} ({model.method}, {about.num_frames} frames of a segment, {model.precision})")
    if status["columns"]:
        print(f"metadata: {', '.join(status['columns'])}")
    if status["outdated"]:
        redo = f"{command('index', arguments.library)} FOLDER --redo"
        print(f"{status['outdated']} videos were decoded by an earlier version of vop: {redo}")
    if about.exclude:
        print(f"excluded: {', '.join(about.exclude)}")
    if removed := library.removed.videos():
        print(
            f"{len(removed)} videos were taken out: {command('library', 'restore', arguments.library)} puts them back"
        )
    print_failures(status, arguments.library)
    if status["index"]:
        print(f"indexing now: {status['index']['done']} of {status['index']['total']} files")


def _failures(arguments: argparse.Namespace) -> None:
    from vop.search.library import Library

    library = Library.open(arguments.library)
    failures = library.failures()
    if arguments.json:
        status = library.status()
        counts = {kind: status[kind] for kind in ("unreadable", "partial", "duplicates")}
        print_json({**counts, "failures": [asdict(failure) for failure in failures]})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "", "reason", box=None)
    for failure in failures:
        path = failure.path if failure.path.isprintable() else repr(failure.path)
        table.add_row(escape(path), failure.kind, escape(failure.reason))
    print_table(table) if failures else print("every file could be read")
    print_failures(library.status(), None)


def _forget(arguments: argparse.Namespace) -> None:
    from vop.search.index import forget
    from vop.search.removed import KEPT_DAYS

    waiting = partial(say_waiting, arguments.library)
    removed = forget(arguments.library, arguments.paths, for_good=arguments.for_good, waiting=waiting)
    if arguments.json:
        print_json({"removed": removed})
        return
    print(f"{removed} videos were taken out of {arguments.library}; their files are where they were")
    if not arguments.for_good:
        restore = command("library", "restore", arguments.library, *arguments.paths)
        print(f"For {KEPT_DAYS} days, they can be put back: {restore}")


def _restore(arguments: argparse.Namespace) -> None:
    from vop.search.index import restore

    waiting = partial(say_waiting, arguments.library)
    restored = restore(arguments.library, arguments.paths, waiting=waiting)
    if arguments.json:
        print_json({"restored": restored})
        return
    print(f"{len(restored)} videos were put back into {arguments.library}")


def _exclude(arguments: argparse.Namespace) -> None:
    from vop.search.index import change_excluded

    waiting = partial(say_waiting, arguments.library)
    globs = change_excluded(arguments.library, add=arguments.add, drop=arguments.drop, waiting=waiting)
    if arguments.json:
        print_json({"exclude": list(globs)})
        return
    print("\n".join(globs) or "nothing is excluded")
    if arguments.add or arguments.drop:
        print(f"The next {command('index', arguments.library)} FOLDER goes by it", file=sys.stderr)


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
        print(f"damaged: {damage.path}: {damage.reason}")
    if report.damaged_frames:
        print(f"damaged: kept frames of {report.damaged_frames} segments; they are decoded again when they are needed")
    print(f"{report.library}: {report.files} files, {report.segments} segments of {report.videos} videos were checked")
    if report.without_checksum:
        print(f"{report.without_checksum} segments have no checksum: an earlier version of vop wrote them")
    if report.deleted or report.changed:
        print(
            f"{len(report.deleted)} videos were deleted or moved, {len(report.changed)} have changed since: vop index"
        )
    if report.sound:
        print("the library is sound")
    elif not report.repaired:
        print(f"next: {command('library', 'check', report.library, '--repair')}")
    else:
        print("the library was repaired, without the damaged videos" if report.damaged_videos else "it was repaired")
        for again in report.index_again():
            print(f"next: {again}")


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
    print(f"{report.library}: {report.videos} videos, {report.segments} segments, made with {', '.join(report.models)}")
    for path, reason in report.dropped:
        print(f"  left out: {path}: {reason}")
