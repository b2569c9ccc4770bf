"""The search of a learning rate, on known scores."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from vop.datasets.loading import count_groups
from vop.datasets.types import Split, Video
from vop.errors import DivergenceError, UsageError, VopError
from vop.experiments.plan import Search
from vop.experiments.tune import first_rates, part_of, score_of, search_rate
from vop.training.recipe import Recipe


def peak_at(best: float, *, seen: list[float] | None = None):
    """Scores that fall with the distance from `best` in decades."""

    def evaluate(rate, on_epoch):
        if seen is not None:
            seen.append(rate)
        score = 80 - 10 * abs(math.log10(rate / best))
        for epoch in (1, 2):
            both = {key: score - 2 + epoch for key in ("r1", "r5", "r10")}
            on_epoch({"epoch": epoch, "validation": {"t2v": both, "v2t": both}})
        return score

    return evaluate


@pytest.mark.parametrize("best", [1e-5, 3e-4, 5e-3])
def test_the_search_comes_near_the_best_rate(tmp_path, best):
    rate, trials = search_rate(Search(trials=16), peak_at(best), tmp_path / "a.log")
    assert abs(math.log10(rate / best)) < 0.5
    assert len(trials) == 16
    assert all(1e-6 <= trial.learning_rate <= 1e-2 for trial in trials)
    assert max(trials, key=lambda trial: trial.score).learning_rate == rate


def test_hopeless_trials_are_pruned_after_an_epoch(tmp_path):
    _, trials = search_rate(Search(trials=12), peak_at(1e-3), tmp_path / "a.log")
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    assert {trial.state for trial in trials} == {"complete", "pruned"}
    assert max(trial.score for trial in pruned) < max(trial.score for trial in trials)


def test_the_first_half_covers_the_range_evenly(tmp_path):
    seen = []
    search_rate(Search(low=1e-6, high=1e-2, trials=8), peak_at(1e-3, seen=seen), tmp_path / "a.log")
    expected = [10**x for x in (-5.5, -4.5, -3.5, -2.5)]
    assert seen[:4] == pytest.approx(expected)
    assert first_rates(Search(trials=8)) == pytest.approx(expected)


class Killed(BaseException):
    """Like a killed process: nothing catches it."""


@pytest.mark.parametrize("stop", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize("at", [2, 5])
def test_resumed_searches_give_the_same_trials(tmp_path, stop, at):
    whole = search_rate(Search(trials=8), peak_at(2e-4), tmp_path / "whole.log")
    seen = []
    evaluate = peak_at(2e-4, seen=seen)

    def stopped(rate, on_epoch):
        if len(seen) == at:
            raise stop
        return evaluate(rate, on_epoch)

    with pytest.raises(stop):
        search_rate(Search(trials=8), stopped, tmp_path / "cut.log")
    rate, trials = search_rate(Search(trials=8), evaluate, tmp_path / "cut.log")
    assert rate == whole[0]
    assert [(t.learning_rate, t.score) for t in trials] == [(t.learning_rate, t.score) for t in whole[1]]
    assert len(seen) == 8


def test_usage_errors_end_the_search(tmp_path):
    seen = []

    def evaluate(rate, on_epoch):
        seen.append(rate)
        raise UsageError("batch_size is 3")

    with pytest.raises(UsageError, match="batch_size is 3"):
        search_rate(Search(), evaluate, tmp_path / "a.log")
    assert len(seen) == 1


def test_errors_other_than_divergence_do_not_count_against_a_rate(tmp_path):
    """A full disk or another program on the GPU says nothing about a rate: the resumed search tries it again."""
    seen, whole = [], []
    expected = search_rate(Search(trials=6), peak_at(1e-3, seen=whole), tmp_path / "whole.log")[0]
    good = peak_at(1e-3, seen=seen)

    def evaluate(rate, on_epoch):
        if len(seen) == 4:
            raise VopError("memory ran out")
        return good(rate, on_epoch)

    with pytest.raises(VopError, match="memory ran out"):
        search_rate(Search(trials=6), evaluate, tmp_path / "a.log")
    rate, trials = search_rate(Search(trials=6), peak_at(1e-3, seen=seen), tmp_path / "a.log")
    assert (rate, seen) == (expected, whole)
    assert len(trials) == 6
    assert "failed" not in {trial.state for trial in trials}


@pytest.mark.parametrize("lost", [1, 30])
def test_searches_resume_after_a_line_was_written_in_part(tmp_path, lost):
    seen, whole = [], []
    expected = search_rate(Search(trials=4), peak_at(1e-3, seen=whole), tmp_path / "a.log")[0]
    lines = (tmp_path / "a.log").read_bytes().splitlines(keepends=True)
    (tmp_path / "a.log").write_bytes(b"".join(lines[:-3])[:-lost])
    for _ in range(2):
        assert search_rate(Search(trials=4), peak_at(1e-3, seen=seen), tmp_path / "a.log")[0] == expected
    assert seen == whole[-1:]


def test_locks_of_killed_processes_are_not_waited_for(tmp_path):
    journal = tmp_path / "a.log"
    (tmp_path / "a.log.lock").symlink_to(journal)  # as Optuna's lock
    before = time.monotonic()
    search_rate(Search(trials=1), peak_at(1e-3), journal)
    assert time.monotonic() - before < 15


def test_finished_searches_try_no_more_rates(tmp_path):
    seen = []
    found = search_rate(Search(trials=6), peak_at(1e-3), tmp_path / "a.log")
    assert search_rate(Search(trials=6), peak_at(1e-3, seen=seen), tmp_path / "a.log") == found
    assert not seen


def test_only_given_rates_are_tried(tmp_path):
    seen = []
    rates = (1e-4, 1e-3, 1e-2)
    rate, _ = search_rate(Search(rates=rates), peak_at(2e-3, seen=seen), tmp_path / "a.log")
    assert tuple(seen) == rates
    assert rate == 1e-3


def test_diverging_rates_do_not_end_the_search(tmp_path):
    good = peak_at(1e-4)

    def evaluate(rate, on_epoch):
        if rate > 1e-3:
            raise DivergenceError("the loss became nan")
        return good(rate, on_epoch)

    rate, trials = search_rate(Search(trials=8), evaluate, tmp_path / "a.log")
    assert rate <= 1e-3
    assert "failed" in {trial.state for trial in trials}

    def fails(rate, on_epoch):
        raise DivergenceError("the loss became nan")

    with pytest.raises(VopError, match="b: training failed with all 4 learning rates"):
        search_rate(Search(trials=4), fails, tmp_path / "b.log")


def test_the_score_is_the_mean_recall():
    metrics = {"t2v": {"r1": 10, "r5": 20, "r10": 30, "mnr": 5}, "v2t": {"r1": 40, "r5": 50, "r10": 60, "mnr": 5}}
    assert score_of(metrics) == 35


@pytest.mark.parametrize(("steps", "captions"), [(10, 20), (1, 2), (1000, 60)])
def test_trials_use_as_many_captions_as_their_steps_allow(steps, captions):
    targets = [row % 7 for row in range(60)]
    videos = tuple(Video(str(n), Path(f"{n}.mp4")) for n in range(7))
    split = Split("train", videos, tuple(f"{target} in row {row}" for row, target in enumerate(targets)), targets)
    part = part_of(split, Search(steps=steps, epochs=2), Recipe(batch_size=4))
    assert len(part) == captions
    for caption, target in zip(part.captions, part.targets, strict=True):
        assert caption.split()[0] == part.videos[target].id


@pytest.mark.parametrize("size", [2, 5, 20])
def test_trials_use_as_many_captions_per_video_as_training(size):
    """30 videos with 20 captions each; the drawn part keeps groups whole."""
    targets = [row % 30 for row in range(600)]
    videos = tuple(Video(str(n), Path(f"{n}.mp4")) for n in range(30))
    split = Split("train", videos, tuple(f"{target} in row {row}" for row, target in enumerate(targets)), targets)
    recipe = Recipe(batch_size=4, captions_per_video=size)
    part = part_of(split, Search(steps=6, epochs=2), recipe)
    assert len(part) == 12 * size
    assert all(len(rows) % size == 0 for rows in part.captions_of)
    assert count_groups(part, size=size) == 12


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"trials": 0}, "trials of the search is 0"),
        ({"epochs": 1.5}, "epochs of the search is 1.5"),
        ({"steps": True}, "steps of the search is True"),
        ({"low": 0.1, "high": 0.01}, "range of learning rates is 0.1 to 0.01"),
        ({"low": 0.0}, "range of learning rates is 0.0 to 0.01"),
        ({"rates": [11.0]}, "learning_rate is 11.0"),
    ],
)
def test_invalid_searches_are_refused(values, says):
    with pytest.raises(UsageError, match=says):
        Search(**values)
