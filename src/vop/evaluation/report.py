"""What an evaluation found, for programs (`to_dict`) and for people (`table`, `comparison_table`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vop.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vop.evaluation.metrics import DirectionMetrics, RetrievalMetrics

# How the evaluated weights were chosen; "best on test" is no fair protocol, and is named so that nobody mistakes it.
SELECTIONS = ("validation-selected", "last", "best on test", "untrained")
_HEADS = ("R@1", "R@5", "R@10", "MdR", "MnR")


@dataclass(frozen=True)
class SkippedVideo:
    """A video that could not be read and is out of the gallery, with its captions."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Rescored:
    """Metrics after a rescoring, and its settings; never the headline."""

    metrics: RetrievalMetrics
    settings: Mapping[str, float]


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
    """

    method: str
    data: str
    split: str
    metrics: RetrievalMetrics
    listed_videos: int
    listed_texts: int
    rescored: Mapping[str, Rescored] = field(default_factory=dict)
    skipped: tuple[SkippedVideo, ...] = ()
    selection: str | None = None
    epoch: int | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.selection is not None and self.selection not in SELECTIONS:
            raise UsageError(f"selection {self.selection!r} is not allowed: give one of {', '.join(SELECTIONS)}")

    @property
    def gallery_size(self) -> int:
        """How many videos every text was ranked against."""
        return self.metrics.videos

    def to_dict(self) -> dict[str, Any]:
        """The metrics at the top level, and everything else beside them; plain types, ready for JSON."""
        return {
            **self.metrics.to_dict(),
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
        }


def table(report: EvaluationReport) -> Table:
    """A Rich table: a row per direction and scoring; the gallery, the tie rule and what was skipped beneath."""
    result = _new_table(f"{report.method} on {report.data}, {report.split}")
    result.add_column("direction")
    result.add_column("scores")
    _add_heads(result, _HEADS)
    scorings = {"cosine": report.metrics} | {name: other.metrics for name, other in report.rescored.items()}
    for direction in ("t2v", "v2t"):
        for n, (name, metrics) in enumerate(scorings.items()):
            cells = _cells(getattr(metrics, direction))
            result.add_row(direction if n == 0 else "", name, *cells, style=None if n == 0 else "dim")
        result.add_section()
    result.caption = _plain("\n".join(_caption_lines(report)))
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
            cells.append("" if n == baseline else f"{gain:+.1f}")
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

    return Text(text)


def _add_heads(table: Table, heads: Iterable[str]) -> None:
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)


def _cells(metrics: DirectionMetrics) -> list[str]:
    recalls = [f"{value:.1f}" for value in (metrics.r1, metrics.r5, metrics.r10)]
    return [*recalls, f"{metrics.mdr:g}", f"{metrics.mnr:.1f}"]


def _protocol(report: EvaluationReport) -> str:
    metrics = report.metrics
    return f"{metrics.texts:,} texts, gallery of {metrics.videos:,} videos ({report.split}); ties: {metrics.tie_rule}"


def _caption_lines(report: EvaluationReport) -> Iterable[str]:
    yield _protocol(report)
    chosen = [report.selection] if report.selection else []
    chosen += [
        f"{name} {value}" for name, value in (("epoch", report.epoch), ("seed", report.seed)) if value is not None
    ]
    if chosen:
        yield f"weights: {', '.join(chosen)}"
    if report.skipped:
        count = f"{len(report.skipped)} of {report.listed_videos:,}"
        yield f"{count} listed videos could not be read, and are out with their captions:"
        yield from (f"  {video.path}: {video.reason}" for video in report.skipped[:5])
        if len(report.skipped) > 5:
            yield f"  … and {len(report.skipped) - 5} more"
    yield from report.notes
