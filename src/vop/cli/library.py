"""`vop library`: what is in a library, what is not, and moving it to another model."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop import progress
from vop.cli.common import print_json, print_table
from vop.cli.index import add_work_options, say_waiting, work_of
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
        print_json({"library": str(library.path), **status, "cutting": asdict(about.cutting), "models": models})
        return
    print(f"{status['videos']} videos, {status['hours']:.2f} h, {status['segments']} segments ({about.cutting})")
    for model in library.models:
        print(f"model: {model.name} ({model.method}, {about.num_frames} frames of a segment, {model.precision})")
    if status["columns"]:
        print(f"metadata: {', '.join(status['columns'])}")
    if status["outdated"]:
        redo = f"vop index {arguments.library} FOLDER --redo"
        print(f"{status['outdated']} videos were decoded by an earlier version of vop: {redo}")
    if status["failures"]:
        print(f"{status['failures']} files are not, or not wholly, in it: vop library failures {arguments.library}")
    if status["index"]:
        print(f"indexing now: {status['index']['done']} of {status['index']['total']} files")


def _failures(arguments: argparse.Namespace) -> None:
    from vop.search.library import Library

    failures = Library.open(arguments.library).failures()
    if arguments.json:
        print_json({"failures": [asdict(failure) for failure in failures]})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "", "reason", box=None)
    for failure in failures:
        path = failure.path if failure.path.isprintable() else repr(failure.path)
        table.add_row(escape(path), failure.kind, escape(failure.reason))
    print_table(table) if failures else print("every file could be read")


def _forget(arguments: argparse.Namespace) -> None:
    from vop.search.index import forget

    removed = forget(arguments.library, arguments.paths, waiting=partial(say_waiting, arguments.library))
    if arguments.json:
        print_json({"removed": removed})
        return
    print(f"{removed} videos were taken out of {arguments.library}; their files are where they were")


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
        print(f"next: vop library check {shlex.quote(report.library)} --repair")
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
