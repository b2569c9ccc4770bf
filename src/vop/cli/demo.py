"""`vop demo`: renders, tunes, evaluates, indexes and searches in one to three minutes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.cli.common import add_device_options, command_line, print_json, print_table, say, use_device_options
from vop.utils import progress

if TYPE_CHECKING:
    from vop.benchmarks.demo import Answer

_NEXT = """
The run is in {run}, and the picture of the results is {sheet}. Search the indexed videos in a browser, or here:

    {serve}
    {search}

Index your own videos. They need no captions:

    {vop} index my-library FOLDER_OF_VIDEOS --model openai/clip-vit-base-patch32

Tune on your own videos, listed with captions in a CSV file with the columns video,caption:

    {vop} data check videos.csv
    {vop} train --data videos.csv --method vop-f+p --out runs/mine
    {vop} evaluate runs/mine --data test.csv

`vop train` downloads OpenAI's CLIP (openai/clip-vit-base-patch32) from the hub. --backbone mini-2 needs no download.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="Render, tune, evaluate, index and search the built-in benchmark.",
        description="Renders 750 short videos, tunes `mini-2` on 600 of them, ranks the others, and makes a library to "
        "search. This takes one to three minutes, without a download.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="Folder of the videos, run, library and picture (default demo)."
    )
    add_device_options(parser)
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    parser.set_defaults(run=run, uses_database=True)


def run(arguments: argparse.Namespace) -> None:
    use_device_options(arguments)
    from vop.benchmarks.demo import run_demo

    with progress.show() as show:
        result = run_demo(arguments.out, progress=show)
    plain, tuned = result.reports
    if arguments.json:
        answers, untuned = (
            {sentence: [_to_dict(answer) for answer in found] for sentence, found in answers.items()}
            for answers in (result.answers, result.zero_shot_answers)
        )
        reports = {report.method: report.to_dict() for report in result.reports}
        paths = {name: str(getattr(result, name)) for name in ("run", "sheet", "library")}
        print_json({**paths, "reports": reports, "answers": answers, "zero_shot_answers": untuned})
        return
    from vop.evaluation.report import comparison_table

    print_table(comparison_table(result.reports, title="emoji-motion-2, demo size, on mini-2"))
    before, after = plain.metrics.t2v.r1, tuned.metrics.t2v.r1
    say(
        f"{tuned.method} ranks the right video first for {after:.1f} % of the captions, zero-shot for {before:.1f} % "
        f"({after - before:+.1f})\n"
    )
    for sentence, found in result.answers.items():
        say(f"“{sentence}”")
        for place, answer in enumerate(found, start=1):
            mark = "✓" if answer.right else " "
            say(f"  {mark} {place}. {answer.score:.3f}  {answer.path.name}  {answer.caption}")
    sentence = next(iter(result.answers))
    words = {
        "serve": command_line("serve", result.library, "--open"),
        "search": command_line("search", result.library, sentence),
        "vop": command_line(),
    }
    say(_NEXT.format(run=result.run, sheet=result.sheet, **words))


def _to_dict(answer: Answer) -> dict[str, Any]:
    return {"path": str(answer.path), "caption": answer.caption, "score": answer.score, "right": answer.right}
