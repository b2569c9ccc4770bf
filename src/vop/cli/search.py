"""`vop search`: find moments by sentences, a video or a picture."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.cli.common import (
    add_device_options,
    command_line,
    place,
    print_json,
    print_table,
    say,
    seconds,
    use_device_options,
    warn,
)
from vop.cli.exporting import add_export_options, print_export, warn_export, write_export
from vop.cli.players import open_moment
from vop.cli.strips import strip_printer
from vop.errors import UsageError
from vop.search.filters import FILTERS, ORDERS, Filters
from vop.utils.text import count, on_one_line

if TYPE_CHECKING:
    from vop.search.library import Library
    from vop.search.queries import Caption, Example, Sentence
    from vop.search.results import Moment
    from vop.search.words.searching import WordsMode


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "search",
        help="Find moments in a library by sentences, a video or a picture.",
        description="Finds the moments of a library that are most similar to one or more sentences, a video or a "
        "picture, or to both, and prints the best moment of each video, or several (--per-video).",
    )
    parser.add_argument(
        "library",
        metavar="LIBRARY",
        type=place,
        help="The library's folder, or its address such as s3://bucket/library, which is read through a cache on the "
        "disk (VOP_CACHE names its folder, VOP_CACHE_SIZE its size; default 2GB, 0 for none).",
    )
    parser.add_argument(
        "words",
        metavar="SENTENCE",
        nargs="*",
        help="Sentence that describes the moment. Several sentences are combined.",
    )
    _add_query(parser.add_argument_group("query"))
    _add_results(parser.add_argument_group("results"))
    add_filters(parser)
    _add_exporting(parser.add_argument_group("exporting"))
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="M", help="New location of the library's model, if it has moved.")
    group.add_argument(
        "--use", metavar="N", type=int, default=1, help="Number of the library's model to search with (default 1)."
    )
    group.add_argument("--precision", default="auto", help="Precision of the model: auto (default), bf16 or fp32.")
    add_device_options(group)
    parser.set_defaults(run=run, uses_database=True)


def _add_query(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-w",
        "--weighted",
        metavar=("WEIGHT", "SENTENCE"),
        nargs=2,
        action="append",
        default=[],
        help='A sentence with a weight. A negative weight finds less of it: -w -0.5 "a park".',
    )
    group.add_argument("--video", metavar="FILE", type=Path, help="Find moments like this video.")
    group.add_argument(
        "--start",
        metavar="TIME",
        type=seconds,
        help="Start of the clip of --video, such as 92.5 or 1:32.5 (default: its beginning).",
    )
    group.add_argument("--end", metavar="TIME", type=seconds, help="End of the clip of --video (default: its end).")
    group.add_argument("--picture", metavar="FILE", type=Path, help="Find moments that look like this picture.")
    group.add_argument(
        "--captions", metavar="FILE", type=Path, help="Rank the lines of this text file for --video or --picture."
    )
    group.add_argument(
        "--words",
        dest="words_mode",
        choices=("both", "only", "none"),
        default="both",
        help="Search what is seen and what is spoken or written (default), words only, or no words. "
        "In a sentence, quoted words must be spoken or written: 'a man says \"good morning\"'.",
    )
    group.add_argument(
        "--example-weight",
        metavar="WEIGHT",
        type=float,
        help="Weight of --video or --picture beside sentences, which count 1 each (default 0.5).",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-k", type=int, default=10, help="Number of results (default 10).")
    group.add_argument(
        "--order",
        choices=ORDERS,
        default="match",
        help="match: best first (default). newest, oldest: sort the -k best matches by the date of their recording.",
    )
    group.add_argument(
        "--per-video",
        metavar="N",
        type=int,
        default=1,
        help="Number of moments that one video may have among the results (default 1).",
    )
    group.add_argument(
        "--copies",
        action="store_true",
        help="Show near-duplicates of a video, too. By default, only the best one is shown.",
    )
    group.add_argument(
        "--min-confidence",
        metavar="X",
        type=float,
        help="Only results of at least this confidence, from 0 to 1 (for sentences).",
    )
    group.add_argument(
        "--strips", action="store_true", help="Show the thumbnails of each moment, if the output is a terminal."
    )
    group.add_argument("--open", action="store_true", help="Open the best moment in mpv, VLC or the default player.")
    group.add_argument(
        "--open-number", metavar="N", type=int, help="Open this moment of the list instead, counted from 1."
    )
    group.add_argument("--json", action="store_true", help="Print one JSON document.")


def add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    for option in FILTERS:
        if option.type is bool:
            group.add_argument(option.option, action="store_true", help=option.help)
            continue
        several: dict[str, Any] = {"action": "append", "default": []} if option.repeatable else {}
        group.add_argument(option.option, metavar=option.metavar, type=option.type, help=option.help, **several)


def filters_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the filters for `Library.search` and `Library.browse`."""
    filters = {option.name: getattr(arguments, option.name) for option in FILTERS}
    filters["folder"] = _folder(arguments.folder)
    return filters


def _add_exporting(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--export",
        metavar="PATH",
        type=Path,
        help="Also write the moments: clips to a folder, or a list to a file whose suffix names its format (.csv, "
        ".json, .edl, .fcpxml, .otio).",
    )
    add_export_options(group)


def run(arguments: argparse.Namespace) -> int:
    # Imported modules are never garbage; scanning them would take a sixth of the time to the first result.
    gc.disable()
    try:
        return _search(arguments)
    finally:
        gc.enable()


def _search(arguments: argparse.Namespace) -> int:
    from vop.export.formats import format_of
    from vop.search.library import Library
    from vop.search.queries import Example

    query, number = _query(arguments), arguments.use - 1
    library = Library.open(
        arguments.library,
        model={number: arguments.model} if arguments.model else None,
        precision=arguments.precision,
    )
    filters = filters_of(arguments)
    if not 0 <= number < len(library.models):
        raise UsageError(
            f"--use {arguments.use}: the library has {count('model', len(library.models))}, numbered from 1"
        )
    Filters(**{**filters, "folder": arguments.folder}).check(library.columns)  # fails early, before PyTorch is imported
    if arguments.export:
        format_of(arguments.export, arguments.format)
    use_device_options(arguments)
    if arguments.captions and isinstance(query, Example):
        found = library.captions(query, arguments.captions, k=arguments.k, model=number)
        _print_captions(found, as_json=arguments.json)
        return 0
    moments = library.search(
        query,
        k=arguments.k,
        per_video=arguments.per_video,
        copies=arguments.copies,
        model=number,
        words=_words(arguments),
        **filters,
        order=arguments.order,
        min_confidence=arguments.min_confidence,
        warn=lambda text: warn(f"vop: {text}"),
    )
    report, status = None, 0
    if arguments.export and moments:
        gc.enable()  # clips may take long
        report = write_export(library, moments, arguments.export, arguments, name=" + ".join(arguments.words) or None)
        status = warn_export(report)
    if arguments.json:
        exported = {"export": report.to_dict()} if report else {}
        print_json({"results": [moment.to_dict() for moment in moments], **exported})
    else:
        _print(moments, lambda: _why_nothing(library, arguments, filters), library, strips=arguments.strips)
        if report:
            print_export(report)
    if moments and (arguments.open or arguments.open_number):
        _open(moments, arguments.open_number or 1)
    return status


def _open(moments: Sequence[Moment], number: int) -> None:
    if number > len(moments):
        raise UsageError(f"--open-number {number}: the search found {count('moment', len(moments))}")
    moment = moments[number - 1]
    opened = open_moment(moment.path, moment.start_seconds)
    time = clock(moment.start_seconds)
    where = f" at {time}" if opened.at_time else f", which begins at the start: go to {time}"
    warn(f"opened moment {number} in {opened.name}{where}")


def _words(arguments: argparse.Namespace) -> WordsMode:
    from vop.search.words.searching import MODES

    return MODES[arguments.words_mode]


def _query(arguments: argparse.Namespace) -> Example | list[Sentence] | list[Sentence | tuple[Example, float]]:
    """Build the query from the options.

    Raises:
        UsageError: the options contradict each other, or a value is not allowed.
    """
    from vop.search.queries import EXAMPLE_WEIGHT, Example, check, check_parts
    from vop.video.clip import Clip

    if arguments.k < 1:
        raise UsageError(f"-k {arguments.k}: ask for 1 result or more")
    if arguments.per_video < 1:
        raise UsageError(f"--per-video {arguments.per_video}: ask for 1 moment of each video or more")
    examples = [name for name in ("video", "picture") if getattr(arguments, name)]
    if len(examples) > 1:
        raise UsageError("search by --video or --picture: give only one of them")
    if arguments.example_weight is not None and not (examples and (arguments.words or arguments.weighted)):
        raise UsageError("--example-weight weighs --video or --picture against sentences: give both")
    if arguments.captions and (arguments.words or arguments.weighted):
        raise UsageError("--captions ranks captions for a video: leave out the sentences")
    if arguments.captions and not examples:
        raise UsageError("--captions ranks captions for a video: give --video FILE (or --picture FILE) with it")
    if arguments.captions and (arguments.export or arguments.open or arguments.open_number):
        raise UsageError("--captions finds lines of text, which --export and --open do not take")
    if arguments.open_number is not None and arguments.open_number < 1:
        raise UsageError(f"--open-number {arguments.open_number}: moments are counted from 1")
    start, end = arguments.start, arguments.end
    if (start, end) != (None, None) and not arguments.video:
        raise UsageError("--start and --end name a clip of a video: give --video FILE with them")
    if end is not None and end <= (start or 0):
        raise UsageError(f"--start {clock(start or 0)} --end {clock(end)}: the clip must end after it starts")
    sentences = _sentences(arguments)
    if arguments.video:
        example = Example(arguments.video, "video", Clip(start or 0.0, end))
    elif arguments.picture:
        example = Example(arguments.picture, "picture")
    else:
        check(sentences)
        return sentences
    if not sentences:
        return example
    weight = EXAMPLE_WEIGHT if arguments.example_weight is None else arguments.example_weight
    check_parts(sentences, [weight])
    parts: list[Sentence | tuple[Example, float]] = [*sentences, (example, weight)]
    return parts


def _sentences(arguments: argparse.Namespace) -> list[Sentence]:
    from vop.search.queries import Sentence

    sentences = [Sentence(text) for text in arguments.words]
    for weight, text in arguments.weighted:
        try:
            sentences.append(Sentence(text, float(weight)))
        except ValueError:
            raise UsageError(f"-w {weight!r} {text!r}: the weight comes first, a number such as 2 or -0.5") from None
    return sentences


def _folder(folder: str | None) -> str | Path | None:
    """Return a Path for a folder that starts with `.` or `..`. Any other name matches anywhere in a file's path."""
    return Path(folder) if folder and folder.split("/")[0] in (".", "..") else folder


def _print_captions(found: list[Caption], *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({"results": [asdict(caption) for caption in found]})
        return
    for rank, caption in enumerate(found, start=1):
        say(f"{rank:3}. {caption.score:.3f}  line {caption.line}: {on_one_line(caption.caption)}")


def _print(found: list[Moment], why_nothing: Callable[[], str], library: Library, *, strips: bool) -> None:
    from rich.table import Table

    if not found:
        say(f"nothing was found: {why_nothing()}")
        return
    show = strip_printer() if strips else None
    if show:
        _print_strips(found, library, show)
        return
    judged = any(moment.confidence is not None for moment in found)
    table = Table("", "score", *(["confidence"] if judged else []), "from", "to", box=None)
    table.add_column("video", overflow="fold")  # never cut the end of a path
    weak_from = _weak_from(found)
    for rank, moment in enumerate(found, start=1):
        if rank - 1 == weak_from:
            table.add_row(*[""] * (len(table.columns) - 1), _divider(first=rank == 1))
        shares = [_share(moment.confidence)] if judged else []
        times = (clock(moment.start_seconds), clock(moment.end_seconds))
        copies = f" (and {count('near-duplicate', len(moment.copies))})" if moment.copies else ""
        table.add_row(str(rank), f"{moment.score:.3f}", *shares, *times, on_one_line(moment.path) + copies)
        if moment.line is not None:
            line = moment.line
            times = (clock(line.start_seconds), clock(line.end_seconds))
            table.add_row("", moment.matched[-1], *[""] * len(shares), *times, f"“{on_one_line(line.text)}”")
    print_table(table)


def _print_strips(found: list[Moment], library: Library, show: Callable[[bytes], None]) -> None:
    weak_from = _weak_from(found)
    for rank, moment in enumerate(found, start=1):
        if rank - 1 == weak_from:
            say(_divider(first=rank == 1))
        clip = f"{clock(moment.start_seconds)} to {clock(moment.end_seconds)}"
        say(f"{rank:3}. {moment.score:.3f}  {clip}  {on_one_line(moment.path)}")
        show(library.segment(moment.segment).strip)


def _weak_from(found: list[Moment]) -> int:
    """Return the number of results before those at the end that are all weak."""
    strong = [place for place, moment in enumerate(found, start=1) if not moment.is_weak]
    return max(strong, default=0)


def _divider(*, first: bool) -> str:
    return "— nothing matches well; weaker matches: —" if first else "— weaker matches: —"


def _share(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.2f}"


def _why_nothing(library: Library, arguments: argparse.Namespace, filters: Mapping[str, Any]) -> str:
    counts, least = library.status(), arguments.min_confidence
    if counts.videos:
        if any(filters.values()):
            return "no video passes the filters" + ("" if least is None else f" with a confidence of {least:g} or more")
        return "no line has these words" if least is None else f"no result has a confidence of {least:g} or more"
    if counts.index:
        done, total = counts.index.done, counts.index.total
        return f"indexing is running ({done} of {total} files) and has not added a video yet; try again soon"
    return f"the library is empty: {command_line('index', library.path, 'FOLDER_OF_VIDEOS')}"


def clock(seconds: float) -> str:
    """Format seconds as 1:02:03.4."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
