"""Summarize the runs of an experiment: means and spreads over seeds, gains with intervals, the paper's results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import mean, stdev

from vop.datasets.types import Dataset, Split
from vop.errors import UsageError
from vop.evaluation.confidence import QueryRanks, bootstrap_intervals, check_same_gallery, paired_test
from vop.evaluation.metrics import METRIC_NAMES
from vop.experiments import paper
from vop.experiments.plan import Arm, Plan, recipe_values
from vop.experiments.results import (
    ABLATE,
    COMPARE,
    ArmResult,
    Example,
    ExperimentResults,
    FoundClip,
    Gain,
    Gallery,
    Intervals,
    KindResult,
    Metrics,
    Number,
    OverSeeds,
    Parameters,
    RunRecord,
    SearchSettings,
    SeedResult,
    UnreadableVideo,
)
from vop.experiments.scheduler import Outcome

EXAMPLES = {COMPARE: 8, ABLATE: 4}  # sentences with thumbnail strips; fewer per ablation, since a page has several

Statistic = Callable[[Iterable[Number]], Number]


def summarize(
    plan: Plan, outcome: Outcome, dataset: Dataset, *, parameters: Mapping[str, Parameters], command: str
) -> ExperimentResults:
    """Return the results of an experiment.

    Args:
        parameters: parameter counts by arm.
        command: the command that repeats the experiment.

    Raises:
        UsageError: runs were ranked on different galleries.
    """
    kind = COMPARE if plan.kind == COMPARE else ABLATE
    done = [arm for arm in plan.arms if outcome.runs[arm.name]]
    ranks = {arm.name: [run.ranks for run in outcome.runs[arm.name]] for arm in done}
    _check_gallery(outcome, done, ranks)
    arms = [_arm(plan, arm, outcome, ranks, parameters[arm.name]) for arm in done]
    every_run = [run for runs in outcome.runs.values() for run in runs]
    report = outcome.runs[done[0].name][0].report
    unreadable = {video.id for video in report.skipped}
    split = dataset.split(plan.split)
    ranked = split.keep({video.id for video in split.videos} - unreadable)
    recipe = {key: value for key, value in recipe_values(plan.recipe).items() if key not in ("seed", "learning_rate")}
    search = plan.search and SearchSettings(**{**asdict(plan.search), "rates": list(plan.search.rates)})
    in_gallery = {video.path for run in every_run for video in run.report.skipped}
    return ExperimentResults(
        command=command,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        minutes=_minutes(outcome),
        machines=list(dict.fromkeys(run.machine for run in every_run)),
        vop_versions=list(dict.fromkeys(run.vop_version for run in every_run)),
        kind=kind,
        ablation=None if kind == COMPARE else plan.kind,
        data=dataset.name,
        split=plan.split,
        backbone=plan.backbone,
        recipe=recipe | {key: report.settings[key] for key in ("num_frames", "precision")},
        search=search,
        learning_rate=plan.recipe.learning_rate if plan.search is None else None,
        seeds=list(plan.seeds),
        gallery=Gallery(
            videos=report.videos,
            texts=report.texts,
            listed_videos=report.listed_videos,
            listed_texts=report.listed_texts,
            tie_rule=report.tie_rule,
            fingerprint=report.fingerprint,
            skipped=[UnreadableVideo(id=video.id, path=video.path, reason=video.reason) for video in report.skipped],
        ),
        notes=list(dict.fromkeys([*dataset.notes, *report.notes])),
        baseline=plan.baseline,
        arms=arms,
        order=paper.order([arm for arm in arms if plan.arm(arm.name).is_default]),
        examples=_examples(done, outcome, ranked, count=EXAMPLES[kind]),
        left_out_of_training=[video for video in outcome.left_out if video.path not in in_gallery],
        failures=outcome.failures,
    )


def _arm(
    plan: Plan, arm: Arm, outcome: Outcome, ranks: Mapping[str, list[QueryRanks]], parameters: Parameters
) -> ArmResult:
    runs = outcome.runs[arm.name]
    searched = outcome.rates.get(arm.name) if arm.rate_of is None else None
    found = ArmResult(
        name=arm.name,
        method=arm.method,
        head=arm.head,
        settings=arm.settings,
        x=arm.x,
        learning_rate=runs[0].learning_rate,
        parameters=parameters,
        trials=searched.trials if searched else [],
        runs=[_seed(run) for run in runs],
        mean=_over_seeds(runs, mean),
        spread=_over_seeds(runs, stdev) if len(runs) > 1 else None,
        interval=Intervals.from_dict(bootstrap_intervals(ranks[arm.name]).to_dict()),
    )
    if runs[0].kinds:
        found = found.model_copy(update={"kinds": _kinds(runs)})
    if plan.baseline is not None and plan.baseline in ranks and arm.name != plan.baseline:
        found = found.model_copy(update={"gain": _gain(ranks[arm.name], ranks[plan.baseline])})
    if arm.has_usual_settings and plan.split == "test":
        row = paper.row(runs[0].report.data, arm.name)
        if arm.is_default or row is not None:  # documents have no empty row of a head
            found = found.model_copy(update={"paper": row})
        if arm.is_default and plan.baseline == "full":
            found = found.model_copy(update={"paper_average_gain": paper.average_gain(arm.method)})
    return found


def _minutes(outcome: Outcome) -> float:
    """Return the total time of all trainings and trials, including parallel ones."""
    trials = sum(trial.minutes or 0.0 for search in outcome.rates.values() for trial in search.trials)
    return trials + sum(run.minutes for runs in outcome.runs.values() for run in runs)


def _seed(run: RunRecord) -> SeedResult:
    found = SeedResult(
        seed=run.seed,
        run=run.run,
        machine=run.machine,
        epoch=run.epoch,
        selection=run.selection,
        minutes=run.minutes,
        peak_memory_bytes=run.peak_memory_bytes,
        size_bytes=run.size_bytes,
        history=run.history,
        t2v=run.report.t2v,
        v2t=run.report.v2t,
    )
    return found.model_copy(update={"extras": run.extras}) if run.extras else found


def _over_seeds(runs: Sequence[RunRecord], statistic: Statistic) -> OverSeeds:
    def of(metrics: Sequence[Metrics]) -> Metrics:
        return Metrics(**{key: statistic(one.value(key) for one in metrics) for key in METRIC_NAMES})

    peaks = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None]

    return OverSeeds(
        t2v=of([run.report.t2v for run in runs]),
        v2t=of([run.report.v2t for run in runs]),
        minutes=statistic(run.minutes for run in runs),
        peak_memory_bytes=statistic(peaks) if len(peaks) == len(runs) else None,
        size_bytes=statistic(run.size_bytes for run in runs),
        extras={key: statistic(run.extras[key] for run in runs) for key in runs[0].extras},
    )


def _kinds(runs: Sequence[RunRecord]) -> dict[str, KindResult]:
    """Return the mean over seeds, by kind of content, of the numbers that the first run has."""
    found = {}
    for kind, first in runs[0].kinds.items():
        known = sorted(key for key, value in first.to_dict().items() if value is not None)
        every = [run.kinds[kind].to_dict() for run in runs]
        found[kind] = KindResult(**{key: mean(values[key] for values in every) for key in known})
    return found


def _gain(ranks: list[QueryRanks], baseline: list[QueryRanks]) -> Gain:
    test = paired_test(ranks, baseline).t2v["r1"]
    return Gain(t2v_r1=test.difference, interval=test.interval, p=test.p)


def _check_gallery(outcome: Outcome, arms: Sequence[Arm], ranks: Mapping[str, list[QueryRanks]]) -> None:
    """Raise a UsageError if the runs were ranked on different galleries."""
    first = ranks[arms[0].name][0]
    for arm in arms:
        for run, own in zip(outcome.runs[arm.name], ranks[arm.name], strict=True):
            try:
                check_same_gallery(first, own)
            except UsageError as error:
                raise UsageError(
                    f"{run.run} was ranked on another gallery than {arms[0].name}: {error}. "
                    f"Delete {run.run}/result.json or the other result files, and run the experiment again"
                ) from None


def _examples(arms: Sequence[Arm], outcome: Outcome, split: Split, *, count: int) -> list[Example]:
    """Return the sentences on which the arms' first seeds disagree most evenly, in the order of the split."""
    runs = {arm.name: outcome.runs[arm.name][0] for arm in arms}
    right = [[run.report.ranks.t2v[row] == 1 for run in runs.values()] for row in range(len(split))]
    uneven = [abs(2 * sum(marks) - len(marks)) for marks in right]
    rows = [row for row in range(len(split)) if 0 < sum(right[row]) < len(arms)]
    chosen = sorted(sorted(rows, key=lambda row: (uneven[row], row))[:count])
    return [
        Example(
            sentence=split.captions[row],
            path=str(split.videos[split.targets[row]].path),
            found=[
                FoundClip(
                    arm=name,
                    path=str(split.videos[run.first[row]].path),
                    right=is_right,
                    caption=split.captions[split.captions_of[run.first[row]][0]],
                )
                for (name, run), is_right in zip(runs.items(), right[row], strict=True)
            ],
        )
        for row in chosen
    ]
