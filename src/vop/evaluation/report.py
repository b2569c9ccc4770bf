"""What an evaluation found, for programs (`to_dict`) and for people (`table`, `comparison_table`, `paired_table`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vop.errors import FileFailure, UsageError
from vop.evaluation.confidence import CUTS, DIRECTIONS, Confidence, PairedTest, QueryRanks, bootstrap_intervals
from vop.utils.text import count, first_few, signed, visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vop.evaluation.metrics import DirectionMetrics, RetrievalMetrics

# How the evaluated weights were chosen; "best on test" is no fair protocol, and is named so that nobody mistakes it.
SELECTIONS = ("validation-selected", "last", "untuned", "best on test", "untrained")
_RECALLS = tuple(f"R@{cut}" for cut in CUTS.values())
_HEADS = (*_RECALLS, "MdR", "MnR")


@dataclass(frozen=True)
class Rescored:
    """Metrics after a rescoring, and its settings; never the headline."""

    metrics: RetrievalMetrics
    settings: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """What only the caller of an evaluation knows of the model and the data; the fields are `EvaluationReport`'s."""

    method: str = ""
    data: str = ""
    selection: str | None = None
    epoch: int | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationReport:
    """One model on one split.

    Attributes:
        method, data, split: names.
        metrics: the headline numbers, both directions.
        rescored: by name (`dual softmax`, `qb-norm`), beside the headline.
        skipped: the videos that could not be read.
        listed_videos, listed_texts: what the split lists; `metrics` counts what is left of it.
        selection: one of `SELECTIONS`, or None if nobody said.
        epoch, seed: of the evaluated weights, from 1 and as trained; None if they do not apply.
        notes: what a reader should know besides, such as why a rescoring is missing.
        settings: more facts for programs (backbone, number of frames, …).
        fingerprint: of what was ranked (`Split.fingerprint`).
        targets: the index of each ranked text's video; None if text i belongs to video i.
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

    def __post_init__(self) -> None:
        if self.selection is not None and self.selection not in SELECTIONS:
            raise UsageError(f"selection {self.selection!r} is not allowed: give one of {', '.join(SELECTIONS)}")

    @property
    def gallery_size(self) -> int:
        """How many videos every text was ranked against."""
        return self.metrics.videos

    @cached_property
    def ranks(self) -> QueryRanks:
        """Every query's rank; what `paired_test` takes."""
        return QueryRanks(
            self.metrics.t2v.ranks,
            self.metrics.v2t.ranks,
            range(self.metrics.texts) if self.targets is None else self.targets,
            fingerprint=self.fingerprint,
            tie_rule=self.metrics.tie_rule,
            name=self.method,
        )

    @cached_property
    def confidence(self) -> Confidence:
        """Intervals of the headline recalls."""
        return bootstrap_intervals(self.ranks)

    def to_dict(self) -> dict[str, Any]:
        """The metrics at the top level, and everything else beside them; plain types, ready for JSON."""
        return {
            **self.metrics.to_dict(),
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
            "fingerprint": self.fingerprint,
            "ranks": self.ranks.to_dict(),
        }


def table(report: EvaluationReport) -> Table:
    """A Rich table: a row per direction and scoring, and the headline's intervals.

    The gallery, the tie rule and what was skipped stand beneath.
    """
    result = _new_table(f"{report.method} on {report.data}, {report.split}")
    result.add_column("direction")
    result.add_column("scores")
    _add_heads(result, _HEADS)
    scorings = {"plain": report.metrics} | {name: other.metrics for name, other in report.rescored.items()}
    for direction in DIRECTIONS:
        for n, (name, metrics) in enumerate(scorings.items()):
            cells = _cells(getattr(metrics, direction))
            result.add_row(direction if n == 0 else "", name, *cells, style=None if n == 0 else "dim")
            if n == 0:
                result.add_row("", *_interval_cells(report.confidence, direction), style="dim")
        result.add_section()
    result.caption = _plain("\n".join(_caption_lines(report)))
    return result


def paired_table(test: PairedTest, *, title: str = "") -> Table:
    """A Rich table with a row per direction and recall: both models', their difference, its interval and p-value."""
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
    """A Rich table with a row per report, both directions side by side.

    Args:
        reports: in the order of their rows.
        title: above the table.
        baseline: the row that t2v R@1 is compared with in an extra column; None for no such column.
    """
    reports = list(reports)
    if not reports:
        raise UsageError("there are 0 reports to compare: give at least one")
    result = _new_table(title)
    result.add_column("\nmethod", no_wrap=True)
    for direction in ("t2v", "v2t"):
        _add_heads(result, [f"{direction if n == 0 else ''}\n{head}" for n, head in enumerate(_HEADS)])
    with_gain = baseline is not None and len(reports) > 1
    if with_gain:
        _add_heads(result, ["R@1\ngain"])
    best = max(report.metrics.t2v.r1 for report in reports)
    for n, report in enumerate(reports):
        cells = [_plain(report.method), *_cells(report.metrics.t2v), *_cells(report.metrics.v2t)]
        if with_gain:
            gain = report.metrics.t2v.r1 - reports[baseline].metrics.t2v.r1
            cells.append("" if n == baseline else signed(gain))
        result.add_row(*cells, style="bold" if report.metrics.t2v.r1 == best else None)
    lines = dict.fromkeys(_protocol(report) for report in reports)
    chosen = {report.selection: [r.method for r in reports if r.selection == report.selection] for report in reports}
    lines |= {f"{choice}: {', '.join(dict.fromkeys(names))}": None for choice, names in chosen.items() if choice}
    result.caption = _plain("\n".join(lines))
    return result


def _new_table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    options = {"box": SIMPLE_HEAD, "collapse_padding": True, "pad_edge": False, "show_edge": False}
    options |= {"title_justify": "left", "caption_justify": "left"}
    return Table(title=_plain(title) if title else None, **options)


def _plain(text: str) -> Text:
    """Text in which a bracket is no markup: names and paths come from users."""
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
        are, their = ("is", "its") if len(report.skipped) == 1 else ("are", "their")
        yield f"{listed} could not be read, and {are} out with {their} captions:"
        yield from first_few(f"{video.path}: {video.reason}" for video in report.skipped)
    yield from report.notes
