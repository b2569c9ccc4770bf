"""The search of a learning rate on the validation split, by Optuna.

The first half of the trials stands evenly over the range on a log scale, the others go where those were good (TPE). A
trial is given up after an epoch in which it is worse than half of the others were. What is maximised is the mean of
R@1, R@5 and R@10 in both directions: on a few hundred validation videos it is much less noisy than R@1.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vop.datasets.loading import caption_groups
from vop.datasets.types import Split
from vop.errors import UsageError, VopError
from vop.experiments.plan import Search
from vop.training.recipe import Recipe

FAILED = "failed"  # a trial's attribute, with the reason
Evaluate = Callable[[float, Callable[[dict], None]], float]  # (learning rate, on_epoch) to a score


def search_rate(search: Search, evaluate: Evaluate, journal: Path, *, seed: int = 0) -> tuple[float, list[dict]]:
    """The best rate, and every trial as `{"learning_rate", "score", "state"}`, in their order.

    Args:
        evaluate: trains with a rate, calls its second argument with the validation metrics after each epoch, and gives
            the last score.
        journal: the search's state; a search that was stopped goes on from it.

    Raises:
        VopError: every trial failed.
    """
    optuna = _optuna()
    study = _open(optuna, journal)
    wanted = len(search.rates) or search.trials
    try:
        while len(tried := {trial.params["learning_rate"] for trial in _ended(study)}) < wanted:
            given = [rate for rate in first_rates(search) if rate not in tried]
            if given:
                study.enqueue_trial({"learning_rate": given[0]})
            # Seeded by what was tried, so that a search which was stopped suggests what the whole one would have.
            startup = max(1, search.trials // 2)
            study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + len(tried), n_startup_trials=startup)
            study.optimize(lambda trial: _try(optuna, trial, search, evaluate), n_trials=1, catch=(VopError,))
    except _Through as passed:
        raise passed.error from None
    trials = _ended(study)
    if not any(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials):
        reason = next((trial.user_attrs[FAILED] for trial in trials if FAILED in trial.user_attrs), "all were given up")
        raise VopError(f"{journal.stem}: no learning rate of {wanted} could be trained with ({reason}); try lower ones")
    return study.best_params["learning_rate"], [_to_dict(trial) for trial in trials]


class _Through(BaseException):
    """Carries an error through Optuna, which would take it for that of a trial and count the trial as done."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def _open(optuna, journal: Path):
    """The study in a journal; what a process that was killed has left running there is over."""
    study = optuna.create_study(
        direction="maximize",
        study_name=journal.stem,
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal))),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
        load_if_exists=True,
    )
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
    return study


def _ended(study) -> list:
    """The trials that came to an end. One that was cut off failed without a reason: its rate is tried again."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED") or FAILED in trial.user_attrs]


def _try(optuna, trial, search: Search, evaluate: Evaluate) -> float:
    """A trial's score."""
    try:
        return evaluate(_suggest(trial, search), lambda record: _report(optuna, trial, record))
    except (UsageError, KeyboardInterrupt) as error:  # of the search, not of this rate
        raise _Through(error) from None
    except VopError as error:
        trial.set_user_attr(FAILED, str(error))
        raise
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise _Through(VopError(f"the device is out of memory: use a smaller --batch-size ({error})")) from None
        raise


def first_rates(search: Search) -> list[float]:
    """The rates that are tried before any result is known."""
    if search.rates:
        return list(search.rates)
    count = max(1, search.trials // 2)
    edges = np.linspace(math.log(search.low), math.log(search.high), count + 1)
    return [float(rate) for rate in np.exp((edges[1:] + edges[:-1]) / 2)]


def score_of(metrics: dict) -> float:
    """Of both directions' metrics: the mean of R@1, R@5 and R@10 in both, in percent."""
    return sum(metrics[way][key] for way in ("t2v", "v2t") for key in ("r1", "r5", "r10")) / 6


def part_of(split: Split, search: Search, recipe: Recipe) -> Split:
    """As much of a training split, drawn by a fixed seed, as a trial has steps for.

    Captions are drawn one by one, or if a step has several of a video, by groups of so many of one video.
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


def _suggest(trial, search: Search) -> float:
    if search.rates:
        return trial.suggest_categorical("learning_rate", search.rates)
    return trial.suggest_float("learning_rate", search.low, search.high, log=True)


def _report(optuna, trial, record: dict) -> None:
    trial.report(score_of(record["validation"]), record["epoch"])
    if trial.should_prune():
        raise optuna.TrialPruned


def _to_dict(trial) -> dict:
    score = trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=None)
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    minutes = trial.duration.total_seconds() / 60 if trial.duration else 0.0
    return {"learning_rate": trial.params["learning_rate"], "score": score, "state": state, "minutes": minutes}


def _optuna():
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    return optuna
