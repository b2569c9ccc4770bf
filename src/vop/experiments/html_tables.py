"""The text of a study's page, out of its document: what stands above the figures, and what a reader looks up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vop.experiments.html_parts import facts, folded, sortable_table, titled
from vop.experiments.reading import found, origin, protocol, remarks, runs
from vop.experiments.tables import Cell, Column, Table, formatted, kind_tables, main_table, order_table, trial_table


def results(document: Mapping) -> str:
    """What was measured, by which rules, and what came out."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in remarks(document))
    return "".join(
        [
            facts(protocol(document) | {"baseline": document.get("baseline") or ""}),
            facts(origin(document) | {"command": document["command"]}),
            f"<ul>{lines}</ul>" if lines else "",
            sortable_table(main_table(document)),
            titled(order_table(document)),
        ]
    )


def more_tables(document: Mapping) -> str:
    """What a reader looks up, each part folded: kinds of content, settings, trainings, trials, missing videos."""
    recipe = facts({"recipe": _listed(document["recipe"]), "search": _listed(document.get("search")) or "none"})
    videos = {
        "Skipped videos": document["gallery"].get("skipped"),
        "Videos left out of the training": document.get("left_out_of_training"),
    }
    return "".join(
        [
            *map(folded, kind_tables(document)),
            folded(_settings(document), above=recipe),
            folded(_trainings(document)),
            folded(trial_table(document)),
            *(folded(_videos(title, listed)) for title, listed in videos.items() if listed),
        ]
    )


def _settings(document: Mapping) -> Table:
    columns = [
        Column("arm", lambda arm: Cell(arm["name"])),
        Column("settings", lambda arm: Cell(_listed(arm.get("settings")))),
    ]
    return Table("Recipe and settings", columns, document["arms"])


def _trainings(document: Mapping) -> Table:
    machines = document["machines"] if len(document["machines"]) > 1 else ()  # one alone stands above
    columns = [
        Column("arm", lambda pair: Cell(pair[0]["name"])),
        Column("seed", lambda pair: formatted(pair[1].get("seed"), "{}")),
        Column("epoch", lambda pair: formatted(pair[1].get("epoch"), "{}")),
        Column("weights", lambda pair: Cell(pair[1].get("selection") or "")),
        Column("t2v R@1", lambda pair: formatted(found(pair[1], "t2v", "r1"), "{:.1f}")),
        Column("v2t R@1", lambda pair: formatted(found(pair[1], "v2t", "r1"), "{:.1f}")),
        Column("minutes", lambda pair: formatted(pair[1].get("minutes"), "{:.1f}")),
        Column("machine", lambda pair: Cell(pair[1].get("machine") or "" if machines else "")),
        Column("folder", lambda pair: Cell(str(pair[1].get("run") or ""))),
    ]
    return Table("Trainings", columns, [(arm, run) for arm in document["arms"] for run in runs(arm)])


def _videos(title: str, videos: Sequence[Mapping]) -> Table:
    columns = [Column(key, lambda video, key=key: Cell(str(video[key]))) for key in ("id", "path", "reason")]
    return Table(f"{title} ({len(videos):,})", columns, videos)


def _listed(settings: Mapping[str, Any] | None) -> str:
    """Settings in one line."""
    return ", ".join(f"{name}: {value}" for name, value in (settings or {}).items())
