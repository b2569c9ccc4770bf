"""Reports: JSON for programs, and tables for people."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from vop.errors import FileFailure, UsageError
from vop.evaluation.confidence import bootstrap_intervals, paired_test
from vop.evaluation.metrics import retrieval_metrics
from vop.evaluation.report import (
    AmbiguousCaptions,
    EvaluationReport,
    Rescored,
    comparison_table,
    paired_table,
    table,
    text_table,
)


def make_report(**changes):
    scores = np.eye(4) - 2 * np.eye(4)[[1, 0, 2, 3]] * [[1], [0], [0], [0]]
    scores[1] = 0.5
    facts = {
        "method": "vop-f+p",
        "data": "emoji-motion",
        "split": "test",
        "metrics": retrieval_metrics(scores),
        "listed_videos": 5,
        "listed_texts": 5,
        "rescored": {"dual softmax": Rescored(retrieval_metrics(np.eye(4)), {"temperature": 0.01})},
        "skipped": (FileFailure(id="v4", path="/videos/[v4].mp4", reason="empty file"),),
        "selection": "validation-selected",
        "epoch": 4,
        "seed": 0,
        "settings": {"num_frames": 12},
    }
    return EvaluationReport(**{**facts, **changes})


def render(rich_table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(rich_table)
    return console.file.getvalue()


def test_to_dict_has_metrics_and_settings():
    report = make_report()
    found = json.loads(json.dumps(report.to_dict()))
    assert found["t2v"] == report.metrics.t2v.to_dict()
    assert found["t2v"]["r1"] == 75.0
    assert (found["method"], found["data"], found["split"]) == ("vop-f+p", "emoji-motion", "test")
    assert (found["gallery_size"], found["listed_videos"]) == (4, 5)
    assert found["rescored"]["dual softmax"]["t2v"]["r1"] == 100.0
    assert found["rescored"]["dual softmax"]["settings"] == {"temperature": 0.01}
    assert (found["selection"], found["epoch"], found["seed"]) == ("validation-selected", 4, 0)
    assert found["settings"] == {"num_frames": 12}


def test_to_dict_has_ranks_and_confidence():
    scores = np.random.default_rng(1).random((6, 4))
    targets = (0, 1, 2, 3, 3, 0)
    report = make_report(metrics=retrieval_metrics(scores, targets=targets), targets=targets, fingerprint="f00d")
    found = json.loads(json.dumps(report.to_dict()))
    assert found["ranks"]["t2v"] == report.metrics.t2v.ranks.tolist()
    assert found["ranks"]["v2t"] == report.metrics.v2t.ranks.tolist()
    assert found["ranks"]["targets"] == list(targets)
    assert found["fingerprint"] == "f00d"
    expected = bootstrap_intervals(report.ranks)
    assert found["confidence"]["t2v"]["r1"] == list(expected.t2v["r1"])
    assert found["confidence"]["v2t"].keys() == {"r1", "r5", "r10"}
    assert (found["confidence"]["level"], found["confidence"]["resamples"]) == (0.95, 2000)


def test_the_table_states_the_protocol():
    text = render(table(make_report(notes=("a [note]",))))
    for expected in (
        "vop-f+p on emoji-motion, test",
        "75.0",
        "gallery of 4 videos",
        "pessimistic",
        "validation-selected, epoch 4, seed 0",
        "1 of 5",
        "/videos/[v4].mp4: empty file",
        "a [note]",
    ):
        assert expected in " ".join(text.split())
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows if "plain" in row] == ["t2v", "v2t"]
    assert sum(row[:2] == ["dual", "softmax"] for row in rows) == 2


def test_the_table_shows_intervals_below_the_metrics():
    report = make_report()
    lines = [line.split() for line in render(table(report)).splitlines()]
    for direction in ("t2v", "v2t"):
        (headline,) = (n for n, line in enumerate(lines) if line[:1] == [direction])
        low, high = getattr(report.confidence, direction)["r1"]
        assert lines[headline][2] == f"{getattr(report.metrics, direction).r1:.1f}"
        assert lines[headline + 1][:3] == ["95", "%", f"{low:.1f}–{high:.1f}"]
        assert len(lines[headline + 1]) == 5


def test_the_paired_table_shows_both_and_their_difference():
    first, second = make_report(method="vop [8]"), make_report(metrics=retrieval_metrics(np.eye(4)))
    test = paired_test(first.ranks, second.ranks)
    text = render(paired_table(test))
    assert "vop [8] against vop-f+p" in text
    rows = [line.split() for line in text.splitlines()]
    low, high = test.t2v["r1"].interval
    interval = [f"{low:.1f}", "to", "0.0"]
    assert high == 0
    assert ["t2v", "R@1", "75.0", "100.0", "-25.0", *interval, f"{test.t2v['r1'].p:.4f}"] in rows
    assert ["R@5", "100.0", "100.0", "0.0", "0.0", "to", "0.0", "1.0000"] in rows
    assert [row[0] for row in rows if "R@1" in row] == ["t2v", "v2t"]
    assert "a [title]" in render(paired_table(test, title="a [title]"))


def test_many_skipped_videos_are_only_counted():
    skipped = tuple(FileFailure(id=str(n), path=f"/{n}.mp4", reason="empty file") for n in range(9))
    text = render(table(make_report(skipped=skipped)))
    assert "/4.mp4" in text
    assert "/5.mp4" not in text
    assert "4 more" in text


def test_the_comparison_fits_eighty_columns_and_shows_the_gain():
    baseline = make_report(method="zero-shot", metrics=retrieval_metrics(np.zeros((4, 4))), selection="untrained")
    reports = [baseline, make_report(metrics=retrieval_metrics(np.eye(4))), make_report(method="vop [8]")]
    text = render(comparison_table(reports, title="three [methods]"))
    assert "…" not in text
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    assert rows["three [methods]"]
    assert rows["vop-f+p"][-1] == "+100.0"
    assert rows["vop [8]"][-1] == "+75.0"
    assert rows["zero-shot"][1:6] == ["0.0", "100.0", "100.0", "4", "4.0"]
    assert len(rows["zero-shot"]) == 11  # no gain over itself
    assert "untrained: zero-shot" in text


def test_reports_are_checked():
    with pytest.raises(UsageError, match="'best'.*validation-selected"):
        make_report(selection="best")
    with pytest.raises(UsageError, match="0 reports"):
        comparison_table([])
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_report().epoch = 5


def test_text_has_the_same_numbers():
    report = make_report(method="vop_f&p")
    markdown = text_table(report, "markdown").splitlines()
    assert markdown[2] == "| direction | scores | R@1 | R@5 | R@10 | MdR | MnR | R-sum |"
    assert markdown[4] == "| t2v | plain | 75.0 | 100.0 | 100.0 | 1 | 1.8 | 575.0 |"
    assert len(markdown) == 8
    latex = text_table(report, "latex").splitlines()
    assert latex[1:3] == [r"\begin{tabular}{llrrrrrr}", r"\toprule"]
    assert latex[5] == r"t2v & plain & 75.0 & 100.0 & 100.0 & 1 & 1.8 & 575.0 \\"
    cells = list(csv.reader(io.StringIO(text_table(report, "csv"))))
    assert cells[1][:4] == ["t2v", "plain", "75.0", "100.0"]
    with pytest.raises(UsageError, match="'latx': did you mean latex"):
        text_table(report, "latx")


def test_the_sum_of_recalls():
    metrics = make_report().metrics
    recalls = [getattr(way, name) for way in (metrics.t2v, metrics.v2t) for name in ("r1", "r5", "r10")]
    assert make_report().to_dict()["rsum"] == metrics.rsum == sum(recalls)


def test_captions_of_several_videos_are_counted():
    """Captions 0 and 3 are the same in all but case and space; without them only caption 2, ranked second, is wrong."""
    targets = (0, 0, 1, 2, 3)
    scores = np.array([[5, 1, 6, 0], [9, 1, 2, 3], [4, 3, 1, 0], [5, 1, 6, 0], [1, 2, 3, 9.0]])
    metrics = retrieval_metrics(scores, targets=targets)
    captions = ["a dog", "a cat", "it rains", "A  dog", "a bird"]
    found = AmbiguousCaptions.among(captions, targets, metrics)
    assert (found.texts, found.t2v_r1) == (2, pytest.approx(200 / 3))
    assert found.v2t_r1 == pytest.approx(100 * np.mean(metrics.v2t.ranks[[1, 3]] == 1))
    text = render(table(make_report(ambiguous=found)), width=200)
    assert "2 captions are shared by several videos; R@1 without them: t2v 66.7" in " ".join(text.split())
    none = AmbiguousCaptions.among(["a", "b", "c", "d", "e"], targets, metrics)
    assert (none.texts, none.t2v_r1) == (0, metrics.t2v.r1)
    assert AmbiguousCaptions.among(["a"] * 5, targets, metrics).t2v_r1 is None
