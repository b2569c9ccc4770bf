"""What `vop index` and `vop library` say of the files that a library lacks: the same numbers in the same words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import command_line, print_table, say
from vop.utils.text import count, on_one_line

if TYPE_CHECKING:
    from vop.search.failures import Failure


def failures_to_dict(listed: Sequence[Failure]) -> dict:
    """For JSON: a copy of a file that the library has is no failure."""
    from vop.search.failures import DUPLICATE, KINDS

    kinds = Counter(one.kind for one in listed)
    return {
        "failures": [asdict(one) for one in listed if one.kind != DUPLICATE],
        "duplicates": [asdict(one) for one in listed if one.kind == DUPLICATE],
        "counts": {kind: kinds[kind] for kind in KINDS},
    }


def say_failures(listed: Sequence[Failure], *, library: Path | None = None) -> None:
    """How many files a library lacks, if any, by kind; with `library`, the command that lists them, too."""
    from vop.search.failures import DUPLICATE, PARTIAL, UNREADABLE

    kinds = Counter(one.kind for one in listed)
    failed = kinds[UNREADABLE] + kinds[PARTIAL]
    if failed:
        split = ", ".join(f"{kinds[kind]:,} {kind}" for kind in (UNREADABLE, PARTIAL) if kinds[kind])
        are = "is" if failed == 1 else "are"
        say(f"{count('file', failed)} {are} not, or not wholly, in the library: {split}")
    if kinds[DUPLICATE]:
        are = "is a copy" if kinds[DUPLICATE] == 1 else "are copies"
        say(f"{count(DUPLICATE, kinds[DUPLICATE])} {are} of files that are in it")
    if listed and library:
        say(f"List them: {command_line('library', 'failures', library)}")


def print_failures(listed: Sequence[Failure]) -> None:
    """Each with its kind and reason."""
    from rich.table import Table

    table = Table(box=None)
    for heading in ("file", "", "reason"):
        table.add_column(heading, overflow="fold")
    for failure in listed:
        table.add_row(on_one_line(failure.path), failure.kind, on_one_line(failure.reason))
    print_table(table)
