"""The search for a learning rate on the validation split, by Optuna.

The first half of the trials is spread evenly over the range on a log scale; TPE places the others near the good ones.
A trial stops after an epoch in which its score is below the median of the earlier trials. The search maximises the mean
of R@1, R@5 and R@10 in both directions, which is much less noisy than R@1 on a few hundred validation videos.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vop.datasets.loading import caption_groups
from vop.datasets.types import Split
from vop.errors import DivergenceError, VopError
from vop.evaluation.metrics import MetricsDict
from vop.experiments.plan import Search
from vop.experiments.results import Trial
from vop.training.checkpoint import EpochRecord
from vop.training.recipe import Recipe

if TYPE_CHECKING:
    import optuna

FAILED = "failed"  # a trial's attribute, with the reason
OnEpoch = Callable[[EpochRecord], None]
Evaluate = Callable[[float, OnEpoch], float]


def search_rate(search: Search, evaluate: Evaluate, journal: Path, *, seed: int = 0) -> tuple[float, list[Trial]]:
    """Return the best rate, and all trials in the order in which they ran.

    Args:
        evaluate: trains with a rate, calls its second argument with each epoch's record, and returns the last score.
        journal: the file of the search's state, from which a stopped search resumes.

    Raises:
        VopError: every trial failed, or one stopped for a reason that does not lie in its rate, such as a full disk.
            The same search then tries this rate again.
    """
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    study = _open(journal)
    wanted = len(search.rates) or search.trials
    while len(tried := {trial.params["learning_rate"] for trial in _ended(study)}) < wanted:
        given = [rate for rate in first_rates(search) if rate not in tried]
        if given:
            study.enqueue_trial({"learning_rate": given[0]})
        # Seeded by the number of trials, so that a resumed search suggests the same rates as an uninterrupted one.
        startup = max(1, search.trials // 2)
        study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + len(tried), n_startup_trials=startup)
        study.optimize(lambda trial: _try(trial, search, evaluate), n_trials=1, catch=(DivergenceError,))
    trials = _ended(study)
    if not any(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials):
        reason = next((trial.user_attrs[FAILED] for trial in trials if FAILED in trial.user_attrs), "all ended early")
        raise VopError(f"{journal.stem}: training failed with all {wanted} learning rates ({reason}); try lower ones")
    return float(study.best_params["learning_rate"]), [_trial(trial) for trial in trials]


def _open(journal: Path) -> optuna.Study:
    """Open the search in a journal. Trials that a killed process left running count as failed."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    _cut_unfinished_line(journal)
    study = optuna.create_study(
        direction="maximize",
        study_name=journal.stem,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal), cast(Any, _NoLock()))),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
        load_if_exists=True,
    )
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
    return study


class _NoLock:
    """Stands in for Optuna's lock, whose file a killed process leaves behind: the next one would wait for 30 seconds.

    Only one process at a time uses a journal, because the experiment's folder has a lock.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_unfinished_line(journal: Path) -> None:
    """Remove a last line of which a full disk took only the beginning: Optuna would continue it."""
    if journal.exists():
        os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the finished trials. A trial that was stopped has no reason of failure: its rate is tried again."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED") or FAILED in trial.user_attrs]


def _try(trial: optuna.Trial, search: Search, evaluate: Evaluate) -> float:
    """Run a trial, and return its score."""
    import optuna

    def report(record: EpochRecord) -> None:
        trial.report(score_of(record["validation"]), record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    rates = search.rates
    try:
        if rates:
            return evaluate(float(trial.suggest_categorical("learning_rate", rates)), report)
        return evaluate(trial.suggest_float("learning_rate", search.low, search.high, log=True), report)
    except DivergenceError as error:
        trial.set_user_attr(FAILED, error.what)
        raise


def first_rates(search: Search) -> list[float]:
    """Return the rates to try before any result is known."""
    if search.rates:
        return list(search.rates)
    count = max(1, search.trials // 2)
    edges = np.linspace(math.log(search.low), math.log(search.high), count + 1)
    return [float(rate) for rate in np.exp((edges[1:] + edges[:-1]) / 2)]


def score_of(metrics: MetricsDict) -> float:
    """Return the mean of R@1, R@5 and R@10 in both directions, in percent."""
    return sum(one["r1"] + one["r5"] + one["r10"] for one in (metrics["t2v"], metrics["v2t"])) / 6


def part_of(split: Split, search: Search, recipe: Recipe) -> Split:
    """Draw as much of a training split as a trial has steps for, with a fixed seed.

    Captions are drawn one by one or, if `captions_per_video` is more than 1, in groups of the same video.
    """
    groups = caption_groups(split, size=recipe.captions_per_video, seed=0, epoch=0)
    count = max(2, search.steps * recipe.batch_size // search.epochs)
    if count >= len(groups):
        return split
    drawn = np.random.default_rng(0).permutation(len(groups))[:count].tolist()
    rows = sorted(row for group in drawn for row in groups[group])
    videos = sorted({split.targets[row] for row in rows})
    place = {video: n for n, video in enumerate(videos)}
    return Split(
        name=split.name,
        videos=tuple(split.videos[video] for video in videos),
        captions=tuple(split.captions[row] for row in rows),
        targets=tuple(place[split.targets[row]] for row in rows),
    )


def _trial(trial: optuna.trial.FrozenTrial) -> Trial:
    score = trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=None)
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    minutes = trial.duration.total_seconds() / 60 if trial.duration else 0.0
    return Trial(learning_rate=trial.params["learning_rate"], score=score, state=state, minutes=minutes)
