"""The search of a learning rate, on scores that are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vop.data.types import Split, Video
from vop.errors import UsageError, VopError
from vop.studies.plan import Search
from vop.studies.search import first_rates, part_of, score_of, search_rate


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
def test_it_comes_near_the_best_rate(tmp_path, best):
    rate, trials = search_rate(Search(trials=16), peak_at(best), tmp_path / "a.log")
    assert abs(math.log10(rate / best)) < 0.5
    assert len(trials) == 16
    assert all(1e-6 <= trial["learning_rate"] <= 1e-2 for trial in trials)
    assert max(trials, key=lambda trial: trial["score"])["learning_rate"] == rate


def test_hopeless_trials_are_given_up_after_an_epoch(tmp_path):
    _, trials = search_rate(Search(trials=12), peak_at(1e-3), tmp_path / "a.log")
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}
    assert max(trial["score"] for trial in pruned) < max(trial["score"] for trial in trials)


def test_the_first_half_stands_evenly_over_the_range(tmp_path):
    seen = []
    search_rate(Search(low=1e-6, high=1e-2, trials=8), peak_at(1e-3, seen=seen), tmp_path / "a.log")
    expected = [10**x for x in (-5.5, -4.5, -3.5, -2.5)]
    assert seen[:4] == pytest.approx(expected)
    assert first_rates(Search(trials=8)) == pytest.approx(expected)


def test_stopped_it_goes_on_and_tries_none_twice(tmp_path):
    class Killed(BaseException):
        pass

    seen = []
    evaluate = peak_at(1e-3, seen=seen)

    def killed_at_the_third(rate, on_epoch):
        if len(seen) == 2:
            seen.append(rate)
            raise Killed
        return evaluate(rate, on_epoch)

    with pytest.raises(Killed):
        search_rate(Search(trials=6), killed_at_the_third, tmp_path / "a.log")
    rate, trials = search_rate(Search(trials=6), evaluate, tmp_path / "a.log")
    done = [trial for trial in trials if trial["state"] != "failed"]
    assert len(done) == 6
    assert seen[2] in [trial["learning_rate"] for trial in done]  # what was cut off is tried again
    assert search_rate(Search(trials=6), evaluate, tmp_path / "a.log") == (rate, trials)  # and then nothing more


def test_given_rates_are_tried_and_no_others(tmp_path):
    seen = []
    rates = (1e-4, 1e-3, 1e-2)
    rate, _ = search_rate(Search(rates=rates), peak_at(2e-3, seen=seen), tmp_path / "a.log")
    assert tuple(seen) == rates
    assert rate == 1e-3


def test_a_rate_that_diverges_is_no_end(tmp_path):
    good = peak_at(1e-4)

    def evaluate(rate, on_epoch):
        if rate > 1e-3:
            raise VopError("the loss became nan")
        return good(rate, on_epoch)

    rate, trials = search_rate(Search(trials=8), evaluate, tmp_path / "a.log")
    assert rate <= 1e-3
    assert "failed" in {trial["state"] for trial in trials}

    def fails(rate, on_epoch):
        raise VopError("the loss became nan")

    with pytest.raises(VopError, match="b: no learning rate of 4 could be trained with"):
        search_rate(Search(trials=4), fails, tmp_path / "b.log")


def test_the_score_is_the_mean_recall():
    metrics = {"t2v": {"r1": 10, "r5": 20, "r10": 30, "mnr": 5}, "v2t": {"r1": 40, "r5": 50, "r10": 60, "mnr": 5}}
    assert score_of(metrics) == 35


@pytest.mark.parametrize(("steps", "captions"), [(10, 20), (1, 2), (1000, 60)])
def test_a_trial_sees_as_many_captions_as_it_has_steps_for(steps, captions):
    targets = [row % 7 for row in range(60)]
    videos = tuple(Video(str(n), Path(f"{n}.mp4")) for n in range(7))
    split = Split("train", videos, tuple(f"{target} in row {row}" for row, target in enumerate(targets)), targets)
    part = part_of(split, Search(steps=steps, epochs=2), batch_size=4)
    assert len(part) == captions
    for caption, target in zip(part.captions, part.targets, strict=True):
        assert caption.split()[0] == part.videos[target].id


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
def test_wrong_searches_are_named(values, says):
    with pytest.raises(UsageError, match=says):
        Search(**values)
