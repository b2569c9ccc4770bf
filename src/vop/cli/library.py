"""`vop library`: what is in a library, what is not, and moving it to another model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path

from vop import progress
from vop.cli.common import command_line, print_json, say
from vop.cli.failures import failures_to_dict, print_failures, say_failures
from vop.cli.index import add_work_options, say_waiting, work_of
from vop.threads import use_threads
from vop.utils.text import count, on_one_line


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("library", help="a library's state, its failures, another model for it")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add(actions, "info", _info, "how much is in it, and which models made it")
    _add(actions, "failures", _failures, "files that are not, or not wholly, in it, with reasons")
    forget = _add(actions, "forget", _forget, "take out the videos below these paths; files are left alone")
    forget.add_argument("paths", metavar="PATH", nargs="+", type=Path)
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
    from vop.search.library import Library

    library = Library.open(arguments.library)
    status, about, failures = library.status(), library.about, library.failures()
    if arguments.json:
        models = [asdict(model) for model in library.models]
        facts = {"library": str(library.path), **status, "counts": failures_to_dict(failures)["counts"]}
        print_json({**facts, "cutting": asdict(about.cutting), "models": models})
        return
    videos, segments = count("video", status["videos"]), count("segment", status["segments"])
    say(f"{videos}, {status['hours']:.2f} h, {segments} ({about.cutting})")
    for model in library.models:
        frames = f"{count('frame', about.num_frames)} of a segment"
        say(f"model: {model.name} ({model.method}, {frames}, {model.precision})")
    if status["columns"]:
        say(f"metadata: {', '.join(status['columns'])}")
    if status["outdated"]:
        redo = command_line("index", arguments.library, "FOLDER", "--redo")
        were = "was" if status["outdated"] == 1 else "were"
        say(f"{count('video', status['outdated'])} {were} decoded by an earlier version of vop: {redo}")
    say_failures(failures, library=arguments.library)
    if status["index"]:
        say(f"indexing now: {status['index']['done']:,} of {count('file', status['index']['total'])}")


def _failures(arguments: argparse.Namespace) -> None:
    from vop.search.library import Library

    failures = Library.open(arguments.library).failures()
    if arguments.json:
        print_json(failures_to_dict(failures))
    elif failures:
        print_failures(failures)
        say()
        say_failures(failures)
    else:
        say("every file could be read")


def _forget(arguments: argparse.Namespace) -> None:
    from vop.search.index import forget

    removed = forget(arguments.library, arguments.paths, waiting=partial(say_waiting, arguments.library))
    if arguments.json:
        print_json({"removed": removed})
        return
    were, their = ("was", "its file is where it was") if removed == 1 else ("were", "their files are where they were")
    say(f"{count('video', removed)} {were} taken out of {arguments.library}; {their}")


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
    made = f"{count('video', report.videos)}, {count('segment', report.segments)}"
    say(f"{report.library}: {made}, made with {', '.join(report.models)}")
    for path, reason in report.dropped:
        say(f"  left out: {on_one_line(path)}: {reason}")
