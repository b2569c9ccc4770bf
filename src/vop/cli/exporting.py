"""Options of exports, for `vop search --export` and `vop library export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import say, warn, warn_listed
from vop.utils import progress
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.export.moments import ExportReport
    from vop.search.library import Library
    from vop.search.results import Moment


def add_export_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options that `write_export` reads."""
    parser.add_argument(
        "--format",
        metavar="F",
        help="Format of an export: clips, csv, json, edl, fcpxml, otio, srt or vtt (default: that of the suffix, and "
        "clips for a folder).",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="Cut clips exactly, and encode them again at high quality. By default they are copied, and begin at a key "
        "frame, up to some seconds earlier.",
    )
    parser.add_argument("--subtitles", action="store_true", help="Write the subtitles of each clip beside it.")
    parser.add_argument("--overwrite", action="store_true", help="Replace existing files.")


def write_export(
    library: Library, moments: Sequence[Moment], path: Path, arguments: argparse.Namespace, *, name: str | None = None
) -> ExportReport:
    """Writes moments as the options say, and shows the progress of clips."""
    with progress.show() as show:
        return library.export(
            moments,
            path,
            format=arguments.format,
            exact=arguments.exact,
            subtitles=arguments.subtitles,
            overwrite=arguments.overwrite,
            name=name,
            progress=show,
        )


def warn_export(report: ExportReport) -> int:
    """Lists what was skipped and what to know on standard error, and returns the exit status."""
    warn_listed(report.notes)
    if report.skipped:
        warn(f"skipped: {count('moment', len(report.skipped))}")
        warn_listed(f"{failure.path}: {failure.reason}" for failure in report.skipped)
    return 0 if report.files else 1


def print_export(report: ExportReport) -> None:
    """Says what was written."""
    if not report.files:
        say("nothing was written")
        return
    if len(report.files) == 1:
        (file,) = report.files
        say(f"wrote {file.path} ({count('moment', file.moments)})")
    else:
        say(f"wrote {count('file', len(report.files))} to {report.path}")
    leads = [file.lead_seconds for file in report.files if file.lead_seconds >= 0.05]
    if leads:
        begin = "1 clip begins" if len(leads) == 1 else f"{len(leads):,} clips begin"
        say(f"{begin} at a key frame, up to {max(leads):.1f} s before the moment; --exact cuts exactly")
