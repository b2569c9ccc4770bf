"""`vop library list`, `tree`, `tag`, `favourite` and `tags`: what a library has, and what its owner says of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.cli.common import place, print_json, print_table, say, seconds, warn, warn_listed
from vop.cli.search import add_filters, clock, filters_of
from vop.errors import UsageError
from vop.search.filters import DATE_ORDERS
from vop.utils.text import count, on_one_line

if TYPE_CHECKING:
    from vop.search.browsing import Folder
    from vop.search.library import Library

Run = Callable[[argparse.Namespace], int | None]
Add = Callable[[str, Run, str], argparse.ArgumentParser]


def add_browse_actions(add: Add) -> None:
    listed = add("list", _list, "List the videos by the date of their recording.")
    listed.add_argument("--order", choices=DATE_ORDERS, default="newest", help="Which first (default newest).")
    listed.add_argument("-k", type=int, default=20, help="Number of videos (default 20).")
    listed.add_argument("--skip", metavar="N", type=int, default=0, help="Leave out the first N videos.")
    add_filters(listed)
    add("tree", _tree, "Show the folders with videos as a tree, with the number of videos below each.")


def add_owner_actions(add: Add) -> None:
    tag = add("tag", _tag, "Add tags to videos or to a moment, or remove them. The files are not changed.")
    _add_target(tag)
    for option, text in (("--add", "Add this tag."), ("--remove", "Remove this tag.")):
        tag.add_argument(option, metavar="TAG", action="append", default=[], help=f"{text} May be repeated.")
    favourite = add("favourite", _favourite, "Make videos or a moment favourites.")
    _add_target(favourite)
    favourite.add_argument("--remove", action="store_true", help="They are not favourites any more.")
    tags = add("tags", _tags, "List all tags; export or import the tags and favourites.")
    tags.add_argument("--export", metavar="FILE", type=Path, help="Write tags and favourites to this CSV file.")
    tags.add_argument(
        "--import",
        metavar="FILE",
        type=Path,
        dest="source",
        help="Add the tags and favourites of a CSV file, or of the output of --json.",
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", type=place, help="Videos or folders of the library.")
    parser.add_argument("--start", metavar="TIME", type=seconds, help="Start of a moment in the video.")
    parser.add_argument("--end", metavar="TIME", type=seconds, help="End of a moment in the video.")


def _open(arguments: argparse.Namespace) -> Library:
    from vop.search.library import Library

    return Library.open(arguments.library)


def _list(arguments: argparse.Namespace) -> None:
    from rich.table import Table

    if arguments.k < 1 or arguments.skip < 0:
        raise UsageError(f"-k {arguments.k} --skip {arguments.skip}: -k must be 1 or more, --skip 0 or more")
    library = _open(arguments)
    found = library.browse(order=arguments.order, k=arguments.k, skip=arguments.skip, **filters_of(arguments))
    if arguments.json:
        print_json(found.to_dict())
        return
    table = Table("date", "length", box=None)
    for heading in ("", "video", "tags"):
        table.add_column(heading, overflow="fold")
    for video in found.videos:
        star = "★" if video.is_favourite else ""
        tags = on_one_line(", ".join(video.tags))
        table.add_row(video.date[:16].replace("T", " "), clock(video.duration_seconds), star, video.path, tags)
    if found.videos:
        print_table(table)
    say(f"{len(found.videos):,} of {count('video', found.total)}")


def _tree(arguments: argparse.Namespace) -> None:
    library = _open(arguments)
    roots = library.browse_folders()
    if arguments.json:
        print_json({"folders": [_branch(library, root) for root in roots]})
        return
    for root in roots:
        _say_branch(library, root, on_one_line(root.path), 0)
    if not roots:
        say("the library has no videos")


def _branch(library: Library, folder: Folder) -> dict[str, Any]:
    inner = library.browse_folders(folder.path) if folder.has_folders else []
    return {**folder.to_dict(), "folders": [_branch(library, one) for one in inner]}


def _say_branch(library: Library, folder: Folder, name: str, depth: int) -> None:
    say(f"{'  ' * depth}{name} ({folder.total:,})")
    for inner in library.browse_folders(folder.path) if folder.has_folders else []:
        _say_branch(library, inner, on_one_line(inner.name), depth + 1)


def _tag(arguments: argparse.Namespace) -> None:
    if not (arguments.add or arguments.remove):
        raise UsageError("give --add TAG or --remove TAG; vop library tags lists the tags")
    _change(arguments, add=arguments.add, remove=arguments.remove)


def _favourite(arguments: argparse.Namespace) -> None:
    _change(arguments, is_favourite=not arguments.remove)


def _change(arguments: argparse.Namespace, **change: Any) -> None:
    changed = _open(arguments).mark(arguments.paths, start_seconds=arguments.start, end_seconds=arguments.end, **change)
    if arguments.json:
        print_json({"changed": changed})
    else:
        noun = "video" if arguments.start is None and arguments.end is None else "moment"
        say(f"changed: {count(noun, changed)}; no file was changed")


def _tags(arguments: argparse.Namespace) -> None:
    from vop.search.owner_files import csv_of

    library = _open(arguments)
    if arguments.source:
        report = library.import_marks(arguments.source)
        if not arguments.json:
            say(f"imported: {count('tagged or favourite item', report.imported)}")
        if report.waiting:
            warn(f"not in the library: {report.waiting:,} of them; they apply once their videos are indexed")
        if report.unknown:
            warn(f"without an id, and not in the library: {count('path', len(report.unknown))}")
            warn_listed(on_one_line(path) for path in report.unknown)
    marks = library.marks()
    favourites = sum(mark.is_favourite for mark in marks)
    if arguments.export:
        _write(arguments.export, csv_of(marks))
    if arguments.json:
        print_json({"tags": library.tags(), "favourites": favourites, "marks": [mark.to_dict() for mark in marks]})
        return
    if arguments.export:
        say(f"written to {arguments.export}: {count('line', len(marks))}")
        return
    for tag, number in library.tags().items():
        say(f"{number:6,}  {on_one_line(tag)}")
    say(f"{favourites:6,}  {'favourite' if favourites == 1 else 'favourites'}")


def _write(file: Path, text: str) -> None:
    from vop.utils.files import atomic_write

    try:
        with atomic_write(file) as path:
            path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"--export {file}: cannot be written ({error.strerror})") from None
