"""`vop index --watch`: follow the folders of a library and index what changes in them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import say, use_device_options, warn
from vop.cli.index_reports import print_report, remembered, say_waiting, warn_unconfirmed
from vop.errors import UsageError
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.search.sync.report import IndexReport
    from vop.storage.address import Location


def watch(arguments: argparse.Namespace, index_once: Callable[..., IndexReport]) -> int:
    """Index once, then follow the folders until an interruption.

    Args:
        index_once: indexes `arguments.paths`; takes `settled` and `kept` of `vop.search.sync.index`.
    """
    from vop.search.folders import is_available
    from vop.search.models import KeptModels
    from vop.search.sync import index
    from vop.search.sync.scanner import absolute_paths
    from vop.search.watching import Watcher
    from vop.storage.address import absolute

    for option in ("json", "dry_run", "shard"):
        if getattr(arguments, option):
            raise UsageError(f"--watch does not go with --{option.replace('_', '-')}; leave one of them out")
    use_device_options(arguments)
    library, kept, changes = absolute(arguments.library), KeptModels(), _Changes()
    given = sorted(absolute_paths(arguments.paths), key=str) if arguments.paths else None

    def again(places: Sequence[Location], settled: Callable[[Path], bool]) -> None:
        report = index(
            library,
            places,
            metadata=arguments.metadata,
            prune=arguments.prune,
            yes=arguments.yes,
            compile=arguments.compile,
            remember=False,
            settled=settled,
            kept=kept,
            workers=arguments.workers,
            batch_size=arguments.batch_size,
            waiting=partial(say_waiting, library),
            warn=lambda text: warn(f"vop: {text}"),
        )
        changes.show(report, library, places)

    watcher = Watcher(library, again, places=given, say=lambda text: warn(f"{_time_of_day()} {text}"))
    try:
        first = given or [place for place in remembered(library) if is_available(place)]
        if first:
            arguments.paths = first
            report = index_once(settled=watcher.settled, kept=kept)
            print_report(report, library, first)
            warn_unconfirmed(report, library, first)
        say(f"Following {count('folder', len(given or remembered(library)))}; Ctrl-C stops it")
        watcher.run()
    except KeyboardInterrupt:
        say("stopped; finished work is kept")
    return 0


class _Changes:
    """Prints what indexings change, and what has to be done by hand when that changes."""

    def __init__(self) -> None:
        self._standing: dict[tuple[Location, ...], tuple[int, ...]] = {}

    def show(self, report: IndexReport, library: Location, places: Sequence[Location]) -> None:
        done = {
            "added": report.added,
            "changed": report.changed,
            "moved": report.moved,
            "with new metadata": report.described,
            "removed": report.removed,
        }
        standing = {
            "deleted, but still in the library": report.deleted,
            "excluded, but still in the library": report.excluded,
            "unavailable": report.unavailable,
        }
        before = self._standing.get(tuple(places), (0, 0, 0))
        self._standing[tuple(places)] = tuple(standing.values())
        if not any(done.values()) and before == tuple(standing.values()):
            return
        counts = ", ".join(f"{number:,} {what}" for what, number in (done | standing).items() if number)
        say(f"{_time_of_day()} {library}: {counts or 'nothing is deleted or unavailable any more'}")
        warn_unconfirmed(report, library, places)


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")
