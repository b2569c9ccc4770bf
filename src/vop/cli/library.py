"""`vop library`: show and change a library's content, and move it to another model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import command_line, place, print_json, print_table, say, warn
from vop.cli.exporting import add_export_options, print_export, warn_export, write_export
from vop.cli.index_reports import print_failures, print_report, say_waiting, warn_unconfirmed
from vop.cli.owner import Add, add_browse_actions, add_owner_actions
from vop.cli.reembedding import add_reembed_action, print_reembedding
from vop.errors import UsageError
from vop.storage.address import is_address
from vop.utils import progress
from vop.utils.files import read_file
from vop.utils.text import count, on_one_line

if TYPE_CHECKING:
    from vop.search.duplicates import Duplicates
    from vop.search.library import Library
    from vop.search.sync.integrity import CheckReport

_MOST_BYTES = 64 * 2**20  # of a file of results


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "library",
        help="Show, check and change a library, or move it to another model.",
        description="Shows, checks and changes the content of a library that `vop index` made, or moves it to another "
        "model.",
    )
    add: Add = partial(_add, parser.add_subparsers(metavar="ACTION", required=True))
    _add_reading_actions(add)
    _add_content_actions(add)
    _add_publish_action(add)
    add_reembed_action(add)
    add_owner_actions(add)


def _add_reading_actions(add: Add) -> None:
    add("info", _info, "Show a library's size and models.")
    add_browse_actions(add)
    add("failures", _failures, "List files that could not be indexed completely, with reasons.")
    add(
        "duplicates",
        _duplicates,
        "List videos that are re-encoded, resized or trimmed versions of each other, and exact copies.",
    )

    export = add("export", _export, "Write moments that `vop search --json` found: clips, or a list for editors.")
    export.add_argument(
        "moments", metavar="RESULTS", help="What `vop search --json` has printed, or - to read it from standard input."
    )
    export.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        required=True,
        help="Folder for clips, or file for a list whose suffix names its format (.csv, .json, .edl, .fcpxml, .otio).",
    )
    add_export_options(export)


def _add_content_actions(add: Add) -> None:
    folders = add("folders", _folders, "List the folders that `vop index LIBRARY` goes through.")
    folders.add_argument(
        "--drop",
        metavar="FOLDER",
        action="append",
        type=place,
        default=[],
        help="Forget this folder. Its videos stay in the library. May be repeated.",
    )

    forget = add("forget", _forget, "Remove videos from the library. The files stay on the disk.")
    forget.add_argument("paths", metavar="PATH", nargs="+", type=place, help="Folders, videos or addresses to remove.")
    forget.add_argument(
        "--for-good", action="store_true", help="Remove the videos permanently. They cannot be restored."
    )
    forget.add_argument(
        "--and-tags",
        action="store_true",
        help="With --for-good, delete their tags and favourites, too. Otherwise they wait for the videos to return.",
    )

    restore = add("restore", _restore, "Restore videos that --prune or forget removed in the last 30 days.")
    restore.add_argument(
        "paths", metavar="PATH", nargs="*", type=place, help="Folders, videos or addresses to restore (default: all)."
    )

    exclude = add("exclude", _exclude, "Show or change which files and folders are excluded.")
    exclude.add_argument(
        "--add",
        metavar="GLOB",
        action="append",
        default=[],
        help="Exclude these files and folders too. May be repeated.",
    )
    exclude.add_argument(
        "--drop", metavar="GLOB", action="append", default=[], help="Remove this glob from the list. May be repeated."
    )

    check = add("check", _check, "Compare a library with its checksums, and list damaged parts.")
    check.add_argument("--repair", action="store_true", help="Write the library again without the damaged parts.")


def _add_publish_action(add: Add) -> None:
    publish = add(
        "publish",
        _publish,
        "Add what `vop index --shard` has finished to the library, in one step, or complete `vop library reembed "
        "--shard`.",
    )
    publish.add_argument(
        "--discard", action="store_true", help="Delete unfinished work instead. Published videos stay."
    )
    publish.add_argument(
        "--index-parts",
        metavar="N",
        type=int,
        help="Let N machines build the vector index of a large library: run `vop index --shard` again for each part, "
        "then publish. By default this command builds it.",
    )
    publish.add_argument(
        "--drop-unreadable",
        action="store_true",
        help="Complete a re-embedding without the videos that could not be read, instead of failing.",
    )


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument(
        "library",
        metavar="LIBRARY",
        type=place,
        help="The library's folder, or its address such as s3://bucket/library.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    parser.set_defaults(run=run, uses_database=True)
    return parser


def _open(arguments: argparse.Namespace) -> Library:
    from vop.search.library import Library

    return Library.open(arguments.library)


def _info(arguments: argparse.Namespace) -> None:
    from vop.search.sharding.plan import Plan

    library = _open(arguments)
    status, manifest, restorable = library.status(), library.manifest, library.restorable()
    if arguments.json:
        document = {
            "library": str(library.path),
            **status.to_dict(),
            "cutting": asdict(manifest.segmentation),
            "exclude": list(manifest.exclude),
            "live_photos": manifest.live_photos,
            "removed": len(restorable),
            "models": [model.to_dict() for model in manifest.models],
        }
        print_json(document)
        return
    videos, segments = count("video", status.videos), count("segment", status.segments)
    say(f"{videos}, {status.hours:.2f} h, {segments} ({manifest.segmentation})")
    for model in manifest.models:
        frames = f"{count('frame', manifest.num_frames)} per segment"
        refined = ["refined ends"] if model.frame_column else []
        how = ", ".join([model.method, frames, model.precision, *model.embedding.in_words(), *refined])
        say(f"model: {model.name} ({how})")
    if status.columns:
        say(f"metadata: {', '.join(status.columns)}")
    if status.outdated:
        redo = command_line("index", arguments.library, "FOLDER", "--redo")
        say(f"decoded by an earlier version of vop: {count('video', status.outdated)}; {redo}")
    if manifest.exclude:
        say(f"excluded: {', '.join(manifest.exclude)}")
    if restorable:
        restore = command_line("library", "restore", arguments.library)
        say(f"removed: {count('video', len(restorable))}; to restore: {restore}")
    print_failures(status, arguments.library)
    if Plan.all_of(library.path):
        publish = command_line("library", "publish", arguments.library)
        say(f"indexing in shards is not finished; to add what is: {publish}")
    if status.index:
        say(f"indexing now: {status.index.done:,} of {count('file', status.index.total)}")


def _failures(arguments: argparse.Namespace) -> None:
    library = _open(arguments)
    failures, status = library.failures(), library.status()
    if arguments.json:
        counts = {"unreadable": status.unreadable, "partial": status.partial, "duplicates": status.duplicates}
        print_json({**counts, "failures": [failure.to_dict() for failure in failures]})
        return
    if not failures:
        say("every file could be read")
        return
    from rich.table import Table

    table = Table(box=None)
    for heading in ("file", "", "reason"):
        table.add_column(heading, overflow="fold")
    for failure in failures:
        table.add_row(on_one_line(failure.path), failure.kind, on_one_line(failure.reason))
    print_table(table)
    print_failures(status, None)


def _duplicates(arguments: argparse.Namespace) -> None:
    found = _open(arguments).duplicates()
    if arguments.json:
        print_json(found.to_dict())
        return
    if found.groups:
        _print_groups(found)
        numbers = ("near-duplicate", found.near_duplicates), ("cut", found.parts), ("exact copy", found.exact_copies)
        say(", ".join(count(noun, number) for noun, number in numbers))
    elif found.were_compared:
        say("there are no near-duplicates and no exact copies")
    if not found.were_compared:
        index = command_line("index", arguments.library, "FOLDER")
        say(f"near-duplicates were not looked for yet; the next indexing does: {index}")


def _print_groups(found: Duplicates) -> None:
    from rich.table import Table

    table = Table(box=None)
    table.add_column("file", overflow="fold")
    for heading in ("MB", "pixels", "seconds", "date", ""):
        table.add_column(heading, justify="right" if heading in ("MB", "pixels", "seconds") else "left")
    for number, group in enumerate(found.groups):
        if number:
            table.add_row()
        for video in (*group.videos, *group.parts):
            pixels = f"{video.width} x {video.height}" if video.width else "?"
            note = "" if video.part_of is None else f"cut, from {video.start_seconds or 0:.1f} s"
            table.add_row(
                on_one_line(video.path),
                f"{video.size / 1e6:.1f}",
                pixels,
                f"{video.duration_seconds:.1f}",
                video.date[:10],
                note,
            )
            for path in video.exact_copies:
                table.add_row(on_one_line(path), "", "", "", "", "exact copy")
    print_table(table)


def _export(arguments: argparse.Namespace) -> int:
    from vop.search.exporting import moments_from_json

    source = arguments.moments
    text = sys.stdin.read() if source == "-" else read_file(source, at_most=_MOST_BYTES).decode("utf-8", "replace")
    moments = moments_from_json(text)
    report = write_export(_open(arguments), moments, arguments.out, arguments)
    status = warn_export(report)
    print_json(report.to_dict()) if arguments.json else print_export(report)
    return status


def _folders(arguments: argparse.Namespace) -> None:
    library = _open(arguments)
    listed = library.folders(drop=arguments.drop, waiting=partial(say_waiting, arguments.library))
    if arguments.json:
        print_json({"library": str(library.path), "folders": [folder.to_dict() for folder in listed]})
        return
    for folder in listed:
        state = "" if folder.is_available else ", unavailable now"
        say(f"{on_one_line(folder.path)}: {count('video', folder.videos)}{state}")
    if arguments.drop:
        forget = command_line("library", "forget", arguments.library, *arguments.drop)
        warn(f"The videos of dropped folders stay in the library; to remove them: {forget}")
    if not listed:
        index = command_line("index", arguments.library, "FOLDER")
        say(f"no folder is remembered; give them once, and later runs go through them: {index}")


def _forget(arguments: argparse.Namespace) -> None:
    from vop.search.removed import KEPT_DAYS

    waiting = partial(say_waiting, arguments.library)
    if arguments.and_tags and not arguments.for_good:
        raise UsageError("--and-tags: only with --for-good; a video that can be restored keeps its tags")
    removed = _open(arguments).forget(
        arguments.paths, for_good=arguments.for_good, tags=arguments.and_tags, waiting=waiting
    )
    if arguments.json:
        print_json({"removed": removed})
        return
    say(f"removed from {arguments.library}: {count('video', removed)}; no file was deleted")
    if not arguments.for_good:
        restore = command_line("library", "restore", arguments.library, *arguments.paths)
        say(f"For {KEPT_DAYS} days, they can be restored: {restore}")


def _restore(arguments: argparse.Namespace) -> None:
    restored = _open(arguments).restore(arguments.paths, waiting=partial(say_waiting, arguments.library))
    if arguments.json:
        print_json({"restored": restored})
        return
    say(f"restored in {arguments.library}: {count('video', len(restored))}")


def _exclude(arguments: argparse.Namespace) -> None:
    waiting = partial(say_waiting, arguments.library)
    globs = _open(arguments).exclude(add=arguments.add, drop=arguments.drop, waiting=waiting)
    if arguments.json:
        print_json({"exclude": list(globs)})
        return
    say("\n".join(globs) or "nothing is excluded")
    if arguments.add or arguments.drop:
        warn(f"To apply the change, index again: {command_line('index', arguments.library)}")


def _check(arguments: argparse.Namespace) -> int:
    from vop.search.sync.integrity import check  # a damaged library may not open as a `Library`

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
    files = "" if is_address(report.library) else f"{count('file', report.files)}, "
    say(f"{report.library}: {files}{segments} were checked")
    if report.without_checksum:
        say(f"without checksum, from an earlier version of vop: {count('segment', report.without_checksum)}")
    if report.deleted or report.changed:
        say(f"files deleted or moved: {len(report.deleted):,}, changed: {len(report.changed):,}; run vop index")
    if report.unavailable:
        say(f"unavailable: the files of {count('video', len(report.unavailable))}")
    if report.sound:
        say("the library is sound")
    elif not report.repaired:
        say(f"next: {command_line('library', 'check', report.library, '--repair')}")
    else:
        say(
            "the library was repaired, without the damaged videos"
            if report.damaged_videos
            else "the library was repaired"
        )
        for again in report.index_again():
            say(f"next: {again}")


def _publish(arguments: argparse.Namespace) -> int:
    with progress.show() as show:
        report = _open(arguments).publish(
            discard=arguments.discard,
            index_parts=arguments.index_parts,
            drop_unreadable=arguments.drop_unreadable,
            progress=show,
            waiting=partial(say_waiting, arguments.library),
        )
    if arguments.json:
        print_json(report.to_dict())
    elif arguments.discard:
        say(f"{report.library}: unfinished work was deleted: {count('plan', report.discarded)}")
    else:
        say(f"{report.library}: {count('shard', report.published)} published")
        if report.shards:
            say(f"not finished: {report.shards - report.committed:,} of {count('shard', report.shards)}")
        if report.index_left:
            say(f"vector index: run `vop index --shard` again for {count('part', report.index_left)}, then publish")
        for moved in report.reembedded:
            print_reembedding(moved)
    status = 0
    for one in report.completed:
        if not arguments.json:
            print_report(one.report, arguments.library, one.roots)
        status = warn_unconfirmed(one.report, arguments.library, one.roots) or status
    return status
