"""Write the report of experiments to a folder: results, tables, figures, and one page with all of them.

The pages are Jinja2 templates, in `templates/`: `report.html.j2` with `macros.html.j2`, `report.css` and `report.js`,
and `report.md.j2`.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from vop.benchmarks.artwork import CREDIT
from vop.errors import UsageError, VideoError
from vop.evaluation.figures import film_strip
from vop.experiments import figures, tables
from vop.experiments.formats import csv_text, latex_table, markdown_table
from vop.experiments.results import Example, ExperimentResults, file_stems
from vop.utils.files import atomic_write
from vop.utils.text import in_markdown, markdown_block
from vop.video import frames

FRAMES, FRAME_SIZE = 5, 96  # frames in a thumbnail strip, and their size in pixels
# Functions for the templates.
_IN_TEMPLATES: tuple[Callable[..., Any], ...] = (
    tables.main_table,
    tables.order_table,
    tables.kind_tables,
    tables.settings_table,
    tables.training_table,
    tables.trial_table,
    tables.video_tables,
    tables.protocol,
    tables.origin,
    tables.remarks,
    tables.listed,
)


def write_report(several: Sequence[ExperimentResults], folder: Path, *, name: str) -> Path:
    """Write all files of the report, each atomically.

    `DATA-KIND.json`, `.csv` and `.tex` for each experiment, `NAME.md` with tables and figures, the figures as SVG and
    PNG, and `NAME.html`, a self-contained page. Figures come last, so that an error there loses no numbers.

    Returns:
        the HTML file.
    """
    for stem, results in zip(file_stems(several), several, strict=True):
        document = _without_paths(results).to_dict()
        write_text(folder / f"{stem}.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        write_text(folder / f"{stem}.csv", csv_text(results))
        write_text(folder / f"{stem}.tex", latex_table(tables.main_table(results)) + "\n")
    drawings = figures.figures_of(several)
    write_text(folder / f"{name}.md", _markdown(several, drawings, html=f"{name}.html"))
    for stem, own in drawings.items():
        for figure, draw in own.items():
            figures.save_figure(draw(), folder, f"{stem}-{figure}" if stem else figure)
    return _write_html(several, folder / f"{name}.html", drawings)


def write_html(several: Sequence[ExperimentResults], path: Path) -> Path:
    """Write the page atomically: the figures of all experiments, then a section for each.

    If a video cannot be read, the page shows the reason. Every video is decoded once.

    Returns:
        the path.

    Raises:
        UsageError: there are no results.
        VopError: the file cannot be written.
    """
    if not several:
        raise UsageError("no results to report: give at least one")
    return _write_html(several, path, figures.figures_of(several))


def _write_html(several: Sequence[ExperimentResults], path: Path, drawings: figures.Drawings) -> Path:
    if len(several) == 1:  # with one experiment, its section holds all figures
        stem = file_stems(several)[0]
        drawings = {"": {}, stem: drawings[""] | drawings[stem]}
    strip = cache(_strip)
    templates = environment()
    script = (templates.loader or PackageLoader(__package__)).get_source(templates, "report.js")[0]
    sections = [
        _Section(
            stem=stem,
            results=results,
            figures=_inline(drawings[stem], prefix=stem),
            examples=[_example(example, strip) for example in results.examples],
            credit=CREDIT if results.data.startswith("emoji-motion") else "",
        )
        for stem, results in zip(file_stems(several), several, strict=True)
    ]
    page = templates.get_template("report.html.j2").render(
        title=_title(several),
        sections=sections,
        figures_of_all=_inline(drawings[""], prefix="all"),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode("ascii"),
    )
    write_text(path, page)
    return path


def environment() -> Environment:
    """Return the templates. Values are escaped as HTML, except in the Markdown page, which uses filters."""
    templates = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals |= {function.__name__: function for function in _IN_TEMPLATES}
    templates.globals |= {"file_name": figures.file_name, "TITLES": figures.TITLES, "NOTES": figures.NOTES}
    templates.filters |= {
        "combine": _combine,
        "markdown": in_markdown,
        "table": markdown_table,
        "code": markdown_block,
    }
    return templates


def _combine(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {**first, **second}


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # names may hold lone surrogates


def _without_paths(results: ExperimentResults) -> ExperimentResults:
    """Return the results with file names in place of the examples' paths."""

    def named(example: Example) -> Example:
        found = [clip.model_copy(update={"path": Path(clip.path).name}) for clip in example.found]
        return example.model_copy(update={"path": Path(example.path).name, "found": found})

    return results.model_copy(update={"examples": [named(example) for example in results.examples]})


def _markdown(several: Sequence[ExperimentResults], drawings: Mapping[str, Mapping[str, object]], *, html: str) -> str:
    return (
        environment()
        .get_template("report.md.j2")
        .render(
            title=", ".join(dict.fromkeys(results.heading for results in several)),
            html=html,
            names=drawings,
            experiments=list(zip(file_stems(several), several, strict=True)),
        )
    )


def _title(several: Sequence[ExperimentResults]) -> str:
    kinds = " and ".join(dict.fromkeys(f"vop {results.kind}" for results in several))
    return f"{kinds}: {', '.join(dict.fromkeys(results.data for results in several))}"


@dataclass(frozen=True)
class _Figure:
    svg: Markup
    note: str


@dataclass(frozen=True)
class _Strip:
    """A thumbnail strip of a video as WebP in base64, or the reason why the video cannot be read."""

    name: str
    webp: str = ""
    problem: str = ""


@dataclass(frozen=True)
class _Card:
    """A thumbnail strip with its caption: the right video, or a video that some arms ranked first."""

    strip: _Strip
    mark: str
    right: bool = True
    arms: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class _Example:
    sentence: str
    cards: list[_Card]


@dataclass(frozen=True)
class _Section:
    stem: str
    results: ExperimentResults
    figures: list[_Figure]
    examples: list[_Example]
    credit: str


def _inline(drawings: Mapping[str, Callable[[], Figure]], *, prefix: str) -> list[_Figure]:
    return [
        _Figure(_inline_svg(draw(), prefix=f"{prefix}-{name}-", label=figures.TITLES[name]), figures.NOTES[name])
        for name, draw in drawings.items()
    ]


def _inline_svg(figure: Figure, *, prefix: str, label: str) -> Markup:
    """Return the figure as an element of an HTML page.

    Args:
        prefix: prefix of its ids; unique on the page.
        label: text for screen readers.
    """
    head, _, body = figures.svg_text(figure, facecolor="none").partition("<svg")[2].partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # styles would apply to the whole page
    body = body.replace(' id="', f' id="{prefix}').replace("url(#", f"url(#{prefix}")
    body = body.replace('xlink:href="#', f'href="#{prefix}')
    return Markup(f'<svg {box[0] if box else ""} role="img" aria-label="{escape(label)}">{body}')


def _example(example: Example, strip: Callable[[str], _Strip]) -> _Example:
    # Arms often agree: show each clip once, with all arms that rank it first.
    arms: dict[tuple[str, bool, str], tuple[str, ...]] = {}
    for clip in example.found:
        key = (clip.path, clip.right, clip.caption)
        arms[key] = (*arms.get(key, ()), clip.arm)
    cards = [_Card(strip(example.path), "the right video")]
    for (path, right, caption), names in sorted(arms.items(), key=lambda item: not item[0][1]):
        mark = "✓ right" if right else "✗ wrong"
        cards.append(_Card(strip(path), mark, right=right, arms=names, caption=caption))
    return _Example(example.sentence, cards)


def _strip(path: str) -> _Strip:
    name = Path(path).name
    try:
        pixels = frames.read_frames(path, num_frames=FRAMES, size=FRAME_SIZE)
    except VideoError as error:
        return _Strip(name, problem=error.reason)
    target = BytesIO()
    film_strip(pixels).save(target, format="WEBP", quality=75)
    return _Strip(name, webp=b64encode(target.getvalue()).decode("ascii"))
