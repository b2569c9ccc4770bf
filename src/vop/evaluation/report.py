"""The report of an evaluation, and its tables: Rich for terminals, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vop.errors import FileFailure, UsageError, unknown_name
from vop.evaluation.confidence import CUTS, DIRECTIONS, Confidence, PairedTest, QueryRanks, bootstrap_intervals
from vop.evaluation.metrics import DirectionMetrics, RetrievalMetrics
from vop.utils.text import as_tokenized, count, first_few, in_markdown, on_one_line, signed, visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# How the evaluated weights were selected. "best on test" is not a fair protocol.
SELECTIONS = ("validation-selected", "last", "untuned", "best on test", "untrained")
_RECALLS = tuple(f"R@{cut}" for cut in CUTS.values())
_HEADS = (*_RECALLS, "MdR", "MnR")


@dataclass(frozen=True)
class Rescored:
    """Metrics after rescoring, and its settings; never the headline metrics."""

    metrics: RetrievalMetrics
    settings: Mapping[str, float]


@dataclass(frozen=True)
class AmbiguousCaptions:
    """Captions that several videos of the gallery share, so that no model can rank all of these videos first.

    Attributes:
        texts: the number of such captions among the ranked texts.
        t2v_r1: R@1 of the other texts, in percent; None if there are none.
        v2t_r1: R@1 of the videos without such a caption, in percent; None if there are none.
    """

    texts: int
    t2v_r1: float | None
    v2t_r1: float | None

    @classmethod
    def among(cls, captions: Sequence[str], targets: Sequence[int], metrics: RetrievalMetrics) -> AmbiguousCaptions:
        """Count them. As for CLIP's tokenizer, captions that differ only in case or white space are equal."""
        videos: dict[str, set[int]] = {}
        plain = [as_tokenized(caption) for caption in captions]
        for caption, target in zip(plain, targets, strict=True):
            videos.setdefault(caption, set()).add(target)
        is_ambiguous = np.array([len(videos[caption]) > 1 for caption in plain])
        queried = np.unique(targets)
        is_touched = np.isin(queried, np.asarray(targets)[is_ambiguous])
        return cls(
            int(is_ambiguous.sum()),
            _first_places(metrics.t2v.ranks[~is_ambiguous]),
            _first_places(metrics.v2t.ranks[~is_touched]),
        )


def _first_places(ranks: NDArray[np.int64]) -> float | None:
    return 100.0 * float(np.mean(ranks == 1)) if len(ranks) else None


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """Facts that only the caller of an evaluation knows; the fields are those of `EvaluationReport`."""

    method: str = ""
    data: str = ""
    selection: str | None = None
    epoch: int | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    made_with: Mapping[str, str] = field(default_factory=dict)
    trained_with: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationReport:
    """Results of one model on one split.

    Attributes:
        method, data, split: names.
        metrics: the headline metrics of both directions.
        rescored: the metrics after rescoring, by name (`dual softmax`, `qb-norm`).
        skipped: the videos that could not be read.
        listed_videos, listed_texts: the numbers in the split; `metrics` has those of the readable part.
        selection: one of `SELECTIONS`, or None if unknown.
        epoch: the epoch of the evaluated weights, counted from 1; None if it does not apply.
        seed: the seed of their training; None if it does not apply.
        notes: remarks for the reader, such as why a rescoring is missing.
        settings: further facts for programs (backbone, number of frames, …).
        fingerprint: `Split.fingerprint` of the ranked captions and videos.
        targets: the index of each ranked text's video; None if text i belongs to video i.
        ambiguous: captions that several videos share; None if not counted.
        made_with: the precision of the evaluation, the versions of vop and its libraries, and vop's commit if known.
        trained_with: the same facts about the model's training, as far as the model card has them.
    """

    method: str
    data: str
    split: str
    metrics: RetrievalMetrics
    listed_videos: int
    listed_texts: int
    rescored: Mapping[str, Rescored] = field(default_factory=dict)
    skipped: tuple[FileFailure, ...] = ()
    selection: str | None = None
    epoch: int | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    fingerprint: str = ""
    targets: tuple[int, ...] | None = field(default=None, repr=False)
    ambiguous: AmbiguousCaptions | None = None
    made_with: Mapping[str, str] = field(default_factory=dict)
    trained_with: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.selection is not None and self.selection not in SELECTIONS:
            raise UsageError(f"selection {self.selection!r} is not allowed: give one of {', '.join(SELECTIONS)}")

    @property
    def gallery_size(self) -> int:
        """The number of videos that every text was ranked against."""
        return self.metrics.videos

    @cached_property
    def ranks(self) -> QueryRanks:
        """The rank of every query, for `paired_test`."""
        return QueryRanks(
            self.metrics.t2v.ranks,
            self.metrics.v2t.ranks,
            np.arange(self.metrics.texts) if self.targets is None else np.asarray(self.targets),
            fingerprint=self.fingerprint,
            tie_rule=self.metrics.tie_rule,
            name=self.method,
        )

    @cached_property
    def confidence(self) -> Confidence:
        """Confidence intervals of the headline recalls."""
        return bootstrap_intervals(self.ranks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: the metrics and all other facts, at the top level."""
        return {
            **self.metrics.to_dict(),
            "rsum": self.metrics.rsum,
            "confidence": self.confidence.to_dict(),
            "method": self.method,
            "data": self.data,
            "split": self.split,
            "gallery_size": self.gallery_size,
            "listed_videos": self.listed_videos,
            "listed_texts": self.listed_texts,
            "rescored": {
                name: {
                    "t2v": other.metrics.t2v.to_dict(),
                    "v2t": other.metrics.v2t.to_dict(),
                    "settings": dict(other.settings),
                }
                for name, other in self.rescored.items()
            },
            "skipped": [{"id": v.id, "path": v.path, "reason": v.reason} for v in self.skipped],
            "selection": self.selection,
            "epoch": self.epoch,
            "seed": self.seed,
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "ambiguous": asdict(self.ambiguous) if self.ambiguous else None,
            "made_with": dict(self.made_with),
            "trained_with": dict(self.trained_with),
            "fingerprint": self.fingerprint,
            "ranks": self.ranks.to_dict(),
        }


# -- tables


def table(report: EvaluationReport) -> Table:
    """Return a Rich table with a row per direction and scoring, and the intervals of the headline recalls.

    Its caption names the gallery, the tie rule and the skipped videos.
    """
    result = _new_table(f"{report.method} on {report.data}, {report.split}")
    result.add_column("direction")
    result.add_column("scores")
    _add_heads(result, _HEADS)
    scorings = _scorings(report)
    for direction in DIRECTIONS:
        for n, (name, metrics) in enumerate(scorings.items()):
            cells = _cells(getattr(metrics, direction))
            result.add_row(direction if n == 0 else "", name, *cells, style=None if n == 0 else "dim")
            if n == 0:
                result.add_row("", *_interval_cells(report.confidence, direction), style="dim")
        result.add_section()
    result.caption = _plain("\n".join(_caption_lines(report)))
    return result


def text_table(report: EvaluationReport, form: str) -> str:
    """Return the headline and the rescored metrics as Markdown, LaTeX (with booktabs' rules) or CSV.

    Args:
        form: one of `TEXT_FORMATS`.

    Raises:
        UsageError: the format is unknown.
    """
    if form not in TEXT_FORMATS:
        raise unknown_name("format", form, TEXT_FORMATS)
    heads = ["direction", "scores", *_HEADS, "R-sum"]
    rows = []
    for name, metrics in _scorings(report).items():
        sums = [f"{metrics.rsum:.1f}", ""]
        for direction, rsum in zip(DIRECTIONS, sums, strict=True):
            rows.append([direction, name, *_cells(getattr(metrics, direction)), rsum])
    return _FORMATS[form](f"{report.method} on {report.data}, {_protocol(report)}", heads, rows)


def _as_markdown(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        heads,
        ["---", "---", *["---:"] * (len(heads) - 2)],
        *([in_markdown(cell) for cell in row] for row in rows),
    ]
    return "\n".join([in_markdown(title), "", *(f"| {' | '.join(line)} |" for line in lines)])


def _as_latex(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" & ".join(map(_in_latex, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            f"% {on_one_line(title)}",
            rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}",
            r"\toprule",
            " & ".join(map(_in_latex, heads)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _in_latex(text: str) -> str:
    return re.sub(r"[&%$#_{}]", r"\\\g<0>", text)


def _as_csv(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([heads, *rows])
    return file.getvalue().rstrip("\n")


_FORMATS = {"markdown": _as_markdown, "latex": _as_latex, "csv": _as_csv}
TEXT_FORMATS = tuple(_FORMATS)


def _scorings(report: EvaluationReport) -> dict[str, RetrievalMetrics]:
    return {"plain": report.metrics} | {name: other.metrics for name, other in report.rescored.items()}


def paired_table(test: PairedTest, *, title: str = "") -> Table:
    """Return a Rich table with a row per direction and recall: both values, their difference, its interval and p."""
    result = _new_table(title or f"{test.names[0]} against {test.names[1]}")
    result.add_column("direction")
    result.add_column("recall")
    _add_heads(result, [*map(_plain, test.names), "difference", _level(test), "p"])
    for direction in DIRECTIONS:
        for n, (recall, found) in enumerate(zip(_RECALLS, getattr(test, direction).values(), strict=True)):
            low, high = found.interval
            cells = [f"{found.first:.1f}", f"{found.second:.1f}", signed(found.difference)]
            cells += [f"{signed(low)} to {signed(high)}", f"{found.p:.4f}"]
            result.add_row(direction if n == 0 else "", recall, *cells)
        result.add_section()
    result.caption = _plain(
        f"intervals: {count('resample', test.resamples)} of the videos with their captions\n"
        f"p: two-sided, from {count('random swap', test.swaps)} of the models' results by video"
    )
    return result


def comparison_table(reports: Iterable[EvaluationReport], *, title: str = "", baseline: int | None = 0) -> Table:
    """Return a Rich table with a row per report, both directions side by side.

    Args:
        reports: the reports, in the order of the rows.
        title: text above the table.
        baseline: the index of the report that an extra column compares t2v R@1 with; None for no such column.
    """
    reports = list(reports)
    if not reports:
        raise UsageError("there are 0 reports to compare: give at least one")
    result = _new_table(title)
    result.add_column("\nmethod", no_wrap=True)
    for direction in ("t2v", "v2t"):
        _add_heads(result, [f"{direction if n == 0 else ''}\n{head}" for n, head in enumerate(_HEADS)])
    compared = reports[baseline] if baseline is not None and len(reports) > 1 else None
    if compared is not None:
        _add_heads(result, ["R@1\ngain"])
    best = max(report.metrics.t2v.r1 for report in reports)
    for report in reports:
        cells: list[str | Text] = [_plain(report.method), *_cells(report.metrics.t2v), *_cells(report.metrics.v2t)]
        if compared is not None:
            gain = report.metrics.t2v.r1 - compared.metrics.t2v.r1
            cells.append("" if report is compared else signed(gain))
        result.add_row(*cells, style="bold" if report.metrics.t2v.r1 == best else None)
    lines = dict.fromkeys(_protocol(report) for report in reports)
    chosen = {report.selection: [r.method for r in reports if r.selection == report.selection] for report in reports}
    lines |= {f"{choice}: {', '.join(dict.fromkeys(names))}": None for choice, names in chosen.items() if choice}
    result.caption = _plain("\n".join(lines))
    return result


def _new_table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=_plain(title) if title else None,
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
        title_justify="left",
        caption_justify="left",
    )


def _plain(text: str) -> Text:
    """Return text in which brackets are not markup: names and paths come from users."""
    from rich.text import Text

    return Text(visible(text))


def _add_heads(table: Table, heads: Iterable[str | Text]) -> None:
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)


def _cells(metrics: DirectionMetrics) -> list[str]:
    recalls = [f"{value:.1f}" for value in (metrics.r1, metrics.r5, metrics.r10)]
    return [*recalls, f"{metrics.mdr:g}", f"{metrics.mnr:.1f}"]


def _interval_cells(confidence: Confidence, direction: str) -> list[str]:
    intervals = getattr(confidence, direction).values()
    return [_level(confidence), *(f"{low:.1f}–{high:.1f}" for low, high in intervals), "", ""]


def _level(of: Confidence | PairedTest) -> str:
    return f"{100 * of.level:g} %"


def _protocol(report: EvaluationReport) -> str:
    metrics = report.metrics
    texts, videos = count("text", metrics.texts), count("video", metrics.videos)
    return f"{texts}, gallery of {videos} ({report.split}); ties: {metrics.tie_rule}"


def _caption_lines(report: EvaluationReport) -> Iterable[str]:
    yield _protocol(report)
    chosen = [report.selection] if report.selection else []
    chosen += [
        f"{name} {value}" for name, value in (("epoch", report.epoch), ("seed", report.seed)) if value is not None
    ]
    if chosen:
        yield f"weights: {', '.join(chosen)}"
    if report.skipped:
        listed = f"{len(report.skipped):,} of {count('listed video', report.listed_videos)}"
        skipped = "it and its captions were" if len(report.skipped) == 1 else "they and their captions were"
        yield f"{listed} could not be read; {skipped} skipped:"
        yield from first_few(f"{video.path}: {video.reason}" for video in report.skipped)
    yield f"R-sum (R@1, R@5, R@10 of both directions): {report.metrics.rsum:.1f}"
    if report.ambiguous and report.ambiguous.texts:
        yield _ambiguous_line(report.ambiguous)
    if report.made_with:
        yield _in_one_line(report.made_with)
    yield from report.notes


def _ambiguous_line(found: AmbiguousCaptions) -> str:
    recalls = {"t2v": found.t2v_r1, "v2t": found.v2t_r1}
    rest = ", ".join(f"{way} {recall:.1f}" for way, recall in recalls.items() if recall is not None)
    are = "is" if found.texts == 1 else "are"
    line = f"{count('caption', found.texts)} {are} shared by several videos"
    return f"{line}; R@1 without them: {rest}" if rest else line


def _in_one_line(made_with: Mapping[str, str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value[:12]}" for name, value in made_with.items())
