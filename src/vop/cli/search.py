"""`vop search`: sentences, a video or a picture in, moments out."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import add_threads_option, command_line, print_json, print_table, say, seconds, warn
from vop.errors import UsageError
from vop.utils.text import count, on_one_line
from vop.utils.threads import use_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from vop.models.model import TextVideoModel
    from vop.search.filters import Filters
    from vop.search.queries import Caption
    from vop.search.results import Moment
    from vop.search.store import Store


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("search", help="find moments by what happens in them, or by an example")
    parser.add_argument("library", metavar="LIBRARY", type=Path)
    parser.add_argument("words", metavar="SENTENCE", nargs="*", help="what happens; several are added up")
    parser.add_argument(
        "-w",
        "--weighted",
        metavar=("WEIGHT", "SENTENCE"),
        nargs=2,
        action="append",
        default=[],
        help='a sentence that counts more or less, or against: -w -0.5 "a park"',
    )
    parser.add_argument("--video", metavar="FILE", type=Path, help="more like this video")
    parser.add_argument("--start", metavar="TIME", type=seconds, help="of the moment of --video: 92.5 or 1:32.5")
    parser.add_argument("--end", metavar="TIME", type=seconds, help="of the moment of --video, likewise")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="moments that look like this picture")
    parser.add_argument("--captions", metavar="FILE", type=Path, help="rank the lines of a text file for --video")
    parser.add_argument("-k", type=int, default=10, help="how many (default 10)")
    _add_filters(parser)
    parser.add_argument("--model", metavar="M", help="where the library's model is now, if it has moved")
    parser.add_argument("--use", metavar="N", type=int, default=1, help="which of a library's models (default 1)")
    parser.add_argument("--precision", default="auto", help="auto (default), bf16 or fp32")
    add_threads_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, uses_database=True)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("only videos")
    group.add_argument("--folder", metavar="DIR", help="below this folder: a path, or a folder's name anywhere in it")
    group.add_argument("--name", metavar="GLOB", help="whose file name has this in it, or matches it with * and ?")
    group.add_argument("--min-seconds", metavar="S", type=float, help="that last as long")
    group.add_argument("--max-seconds", metavar="S", type=float, help="that last no longer")
    group.add_argument("--after", metavar="DATE", help="from this date on: 2024-07-01, 2024-07 or 2024")
    group.add_argument("--before", metavar="DATE", help="from before this date, month or year")
    group.add_argument(
        "--where", metavar="CONDITION", action="append", default=[], help="on a column of the metadata: stars>=4"
    )


def run(arguments: argparse.Namespace) -> None:
    # What is imported stays: to look for garbage in it takes a sixth of the time to the first result.
    gc.disable()
    try:
        _search(arguments)
    finally:
        gc.enable()


def _search(arguments: argparse.Namespace) -> None:
    from vop.search.store import Store

    _check(arguments)
    library = Store.open(arguments.library)
    if not 1 <= arguments.use <= len(library.models):
        raise UsageError(f"--use {arguments.use}: the library has {count('model', len(library.models))}, from 1 on")
    made_by = library.models[arguments.use - 1]
    filters = _filters(arguments)
    filters.sql(library.columns)  # before seconds are spent on the model
    model = _open_model(library, arguments)
    vector = _vector(model, arguments)
    if arguments.captions:
        _print_captions(_captions(model, vector, arguments), as_json=arguments.json)
        return
    found = library.search(vector, k=arguments.k, filters=filters, model=made_by)
    if arguments.json:
        print_json({"results": [moment.to_dict() for moment in found]})
        return
    _print(found, library)


def _check(arguments: argparse.Namespace) -> None:
    """What is wrong with the call by itself."""
    from vop.search import queries

    if arguments.k < 1:
        raise UsageError(f"-k {arguments.k}: ask for 1 result or more")
    examples = [name for name in ("video", "picture") if getattr(arguments, name)]
    if len(examples) > 1 or (examples and (arguments.words or arguments.weighted)):
        raise UsageError("ask by sentences, by --video or by --picture, one of the three")
    if arguments.captions and not examples:
        raise UsageError("--captions ranks captions for a video: give --video FILE (or --picture FILE) with it")
    _check_times(arguments)
    if not examples:
        queries.check(_sentences(arguments))


def _check_times(arguments: argparse.Namespace) -> None:
    start, end = arguments.start, arguments.end
    if (start, end) != (None, None) and not arguments.video:
        raise UsageError("--start and --end name a moment of a video: give --video FILE with them")
    if end is not None and end <= (start or 0):
        raise UsageError(f"--start {clock(start or 0)} --end {clock(end)}: the moment must end after it starts")


def _sentences(arguments: argparse.Namespace) -> list:
    from vop.search.queries import Sentence

    sentences = [Sentence(text) for text in arguments.words]
    for weight, text in arguments.weighted:
        try:
            sentences.append(Sentence(text, float(weight)))
        except ValueError:
            raise UsageError(f"-w {weight!r} {text!r}: the weight comes first, a number such as 2 or -0.5") from None
    return sentences


def _filters(arguments: argparse.Namespace) -> Filters:
    from vop.search.filters import Filters
    from vop.utils.names import existing_path

    folder = arguments.folder
    if folder and folder.split("/")[0] in (".", ".."):  # from here; any other is a name anywhere on the way
        folder = str(existing_path(folder).resolve())
    return Filters(
        folder=folder,
        name=arguments.name,
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
        after=arguments.after,
        before=arguments.before,
        where=arguments.where,
    )


def _open_model(library: Store, arguments: argparse.Namespace) -> TextVideoModel:
    use_threads(arguments.threads)
    from vop.search.models import open_models

    wanted = library.manifest.with_(models=(library.models[arguments.use - 1],))
    (model,) = open_models(wanted, folder=library.path, name=arguments.model, precision=arguments.precision)
    return model


def _vector(model: TextVideoModel, arguments: argparse.Namespace) -> np.ndarray:
    from vop.search import queries

    sizes = {"num_frames": model.num_frames, "size": model.image_size}
    if arguments.video:
        from vop.video.frames import decode_frames

        stretch = {"start_seconds": arguments.start or 0.0, "end_seconds": arguments.end}
        return queries.of_frames(model, _decoded(decode_frames, arguments.video, **sizes, **stretch))
    if arguments.picture:
        from vop.video.picture import picture_frames

        return queries.of_frames(model, _decoded(picture_frames, arguments.picture, **sizes))
    sentences = _sentences(arguments)
    for note in queries.cut_short(model, sentences):
        warn(f"vop: {note}")
    return queries.of_sentences(model, sentences)


def _decoded(read: Callable[..., np.ndarray], path: Path, **how) -> Tensor:
    """Frames of a file, which is read in another process: it may be damaged in a way that crashes a decoder."""
    import torch

    from vop.video.isolated import DecodingProcesses

    with DecodingProcesses() as processes:
        return torch.from_numpy(processes.call(read, path, **how))


def _captions(model: TextVideoModel, vector: np.ndarray, arguments: argparse.Namespace) -> list[Caption]:
    from vop.search.queries import best_captions, read_captions

    return best_captions(model, vector, read_captions(arguments.captions), arguments.k)


def _print_captions(found: list[Caption], *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({"results": [asdict(caption) for caption in found]})
        return
    for place, caption in enumerate(found, start=1):
        say(f"{place:3}. {caption.score:.3f}  line {caption.line}: {on_one_line(caption.caption)}")


def _print(found: list[Moment], library: Store) -> None:
    from rich.table import Table

    if not found:
        say(f"nothing was found: {_why_nothing(library)}")
        return
    table = Table("", "score", "from", "to", box=None)
    table.add_column("video", overflow="fold")  # a path of which an end is missing is of no use
    for place, moment in enumerate(found, start=1):
        times = (clock(moment.start_seconds), clock(moment.end_seconds))
        table.add_row(str(place), f"{moment.score:.3f}", *times, on_one_line(moment.path))
    print_table(table)


def _why_nothing(library: Store) -> str:
    counts = library.status()
    if counts["videos"]:
        return "no video passes the filters"
    if counts["index"]:
        done, total = counts["index"]["done"], counts["index"]["total"]
        return f"indexing is under way ({done} of {total} files), and no video can be searched yet: try again soon"
    return f"the library is empty: {command_line('index', library.path, 'FOLDER_OF_VIDEOS')}"


def clock(seconds: float) -> str:
    """Seconds as 1:02:03.4."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
