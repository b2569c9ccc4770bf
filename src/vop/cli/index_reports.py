"""What `vop index` prints, also for the other commands that index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vop.cli.common import command_line, say, warn
from vop.utils.text import count, first_few

if TYPE_CHECKING:
    from vop.search.results import LibraryStatus
    from vop.search.sync.report import IndexReport
    from vop.storage.address import Location

_SHOWN = 10  # paths shown of a long list


def say_waiting(library: Location | str) -> None:
    warn(f"vop: another process is writing to {library}; waiting for it to finish")


def remembered(library: Location | str) -> list[Location]:
    """Return what the library remembers."""
    from vop.search import folders
    from vop.search.store import Store

    return folders.remembered(Store.open(library).path)


def warn_unconfirmed(report: IndexReport, library: Location | str, paths: Sequence[Location | str]) -> int:
    """Print how to remove the videos that --prune did not remove. Return the exit status."""
    if not report.unconfirmed:
        return 0
    again = command_line("index", library, *paths, "--prune")
    warn(
        f"vop: nothing was removed, because {count('video', len(report.unconfirmed))} would be a large part of the "
        f"library. To list them: {again} --dry-run; to remove them: {again} --yes"
    )
    return 2


def print_report(report: IndexReport, library: Location | str, paths: Sequence[Location | str]) -> None:
    counts = {
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "with new metadata": report.described,
        "removed": report.removed,
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
    _print_missing(report, library, paths)
    if report.passed_over:
        kinds = ", ".join(f"{number:,} × {kind}" for kind, number in sorted(report.passed_over.items()))
        say(f"not indexed: {kinds}")
    if report.missing:
        missing = ", ".join(first_few(report.missing, most=_SHOWN, indent=""))
        say(f"skipped, because they cannot be indexed: {missing}")
    if report.unmatched:
        say(f"metadata without a video: {count('row', len(report.unmatched))}:")
        say("\n".join(first_few(report.unmatched, most=_SHOWN)))
    _print_words(report)
    print_failures(report, library)
    say(f"Search it: {command_line('search', library, 'what happens')}")
    say(f"Search it in a browser: {command_line('serve', library)}")


def _print_words(report: IndexReport) -> None:
    """Print what was read of subtitles and speech, and what could not be read."""
    words = report.words
    if words.lines:
        say(f"words: {count('line', words.lines)} of subtitles and speech in {count('video', words.videos)}")
    if words.problems:
        reasons = [f"{number:,} × {reason}" for reason, number in sorted(words.by_reason().items())]
        say("words that were not read:")
        say("\n".join(first_few(reasons, most=_SHOWN)))


def _print_missing(report: IndexReport, library: Location | str, paths: Sequence[Location | str]) -> None:
    """Print which videos were removed or can be removed, with the commands for it."""
    from vop.search.removed import KEPT_DAYS

    prune = command_line("index", library, *paths, "--prune")
    if report.removed:
        restore = command_line("library", "restore", library)
        say(f"For {KEPT_DAYS} days, the removed videos can be restored: {restore}")
    if report.deleted:
        say(f"deleted from the disk, but still in the library: {count('video', report.deleted)}; to remove: {prune}")
    if report.excluded:
        say(f"excluded, but still in the library: {count('video', report.excluded)}; to remove: {prune}")
    if report.unavailable:
        say(
            f"unavailable: {count('video', report.unavailable)}; the folder is missing, empty or on another drive. "
            "If you deleted it, run:"
        )
        commands = [command_line("library", "forget", library, folder) for folder in report.unavailable_folders]
        say("\n".join(first_few(commands, most=_SHOWN)))


def print_failures(counts: IndexReport | LibraryStatus, library: Location | str | None) -> None:
    """Print the number of files that could not be indexed completely and, given the library, how to list them."""
    kinds = []
    if counts.unreadable:
        kinds.append(f"{counts.unreadable:,} unreadable")
    if counts.partial:
        kinds.append(f"{counts.partial:,} partly readable")
    if counts.duplicates:
        kinds.append(count("duplicate", counts.duplicates))
    if kinds:
        see = f": {command_line('library', 'failures', library)}" if library else ""
        say(f"not indexed completely: {', '.join(kinds)}{see}")
