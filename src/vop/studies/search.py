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

from vop.data.types import Split
from vop.errors import UsageError, VopError
from vop.studies.plan import Search

Evaluate = Callable[[float, Callable[[dict], None]], float]  # (learning rate, on_epoch) to a score


def search_rate(search: Search, evaluate: Evaluate, journal: Path, *, seed: int = 0) -> tuple[float, list[dict]]:
    """The best rate, and every trial as `{"learning_rate", "score", "state"}`, in their order.

    Args:
        evaluate: trains with a rate, calls its second argument with the validation metrics after each epoch, and gives
            the last score.
        journal: the search's state; a search that was stopped goes on from it.

    Raises:
        UsageError: Optuna is not installed.
        VopError: every trial failed.
    """
    optuna = _optuna()
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.create_study(
        direction="maximize",
        study_name=journal.stem,
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, search.trials // 2)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
        load_if_exists=True,
    )
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=[states.RUNNING]):  # of a process that was killed: tried again
        study.tell(trial.number, state=states.FAIL)
        study.enqueue_trial(trial.params)
    if not study.trials:
        for rate in first_rates(search):
            study.enqueue_trial({"learning_rate": rate})

    reasons = []

    def objective(trial) -> float:
        try:
            return evaluate(_suggest(trial, search), lambda record: _report(optuna, trial, record))
        except VopError as error:
            reasons.append(str(error))
            raise

    done = study.get_trials(states=[states.COMPLETE, states.PRUNED])
    wanted = len(search.rates) or search.trials
    study.optimize(objective, n_trials=max(0, wanted - len(done)), catch=(VopError,))
    if not study.get_trials(states=[states.COMPLETE]):
        why = f" ({reasons[-1]})" if reasons else ""
        raise VopError(f"{journal.stem}: no learning rate of {wanted} could be trained with{why}; try lower ones")
    return study.best_params["learning_rate"], [_to_dict(trial) for trial in study.trials if trial.params]


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


def part_of(split: Split, search: Search, *, batch_size: int) -> Split:
    """As many captions of a training split, drawn by a fixed seed, as a trial has steps for."""
    count = max(2, search.steps * batch_size // search.epochs)
    if count >= len(split):
        return split
    rows = sorted(np.random.default_rng(0).permutation(len(split))[:count].tolist())
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
    return {"learning_rate": trial.params["learning_rate"], "score": score, "state": state}


def _optuna():
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "searching learning rates needs Optuna: pip install 'vop[study]', or give --learning-rates"
        ) from None
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna
