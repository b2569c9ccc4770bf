"""`vop compare` and `vop ablate`: train several methods and report the results."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.cli.common import (
    add_data_options,
    add_device_options,
    add_ray_options,
    add_recipe_options,
    add_settings_option,
    check_ray_options,
    load_data,
    parse_settings,
    print_json,
    print_table,
    recipe_of,
    say,
    use_device_options,
    warn,
)
from vop.errors import UsageError, VopError, unknown_name
from vop.training.recipe import TrainingConfig, read_config
from vop.utils import progress
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.datasets.types import Dataset
    from vop.experiments.plan import Plan, Search
    from vop.experiments.results import ExperimentResults
    from vop.experiments.workers import Workers

    Planned = tuple[Plan, Dataset, Path]

EXTRA = "compare"  # the extra with Matplotlib and Optuna: `pip install 'vop[compare]'`
# Entries of a recipe's `experiment:` (or `study:`, its former name). Options override them.
ENTRIES: dict[str, type] = {
    "methods": list,
    "seeds": list,
    "learning_rates": list,
    "rate_range": list,
    "trials": int,
    "trial_epochs": int,
    "trial_steps": int,
    "baseline": str,
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = subparsers.add_parser(
        "compare",
        help="Train and rank several methods with several seeds.",
        description="Searches each method's learning rate on validation videos, trains the method with every seed, "
        "ranks the test videos and writes a report. Reuses the results in --out; with --merge, only writes a standing "
        "comparison of results.",
    )
    compare.add_argument(
        "--methods",
        metavar="A,B/HEAD,…",
        help="Methods to compare, a row of the table each (default: all methods that `vop params` lists, except stop).",
    )
    compare.add_argument(
        "--merge",
        metavar="FILE",
        action="append",
        default=[],
        help="Train nothing: write the standing comparison of these results and rows (JSON) to --report. May be "
        "repeated.",
    )
    compare.set_defaults(run=run_compare, resumes=True, parser=compare)
    ablate = subparsers.add_parser(
        "ablate",
        help="Run the paper's ablations.",
        description="Runs the paper's ablations: towers, depth, length, specific-length, cmm, cmm-role, split-layer.",
    )
    ablate.add_argument("ablations", metavar="ABLATION", nargs="*", help="Ablations to run (default: all).")
    ablate.set_defaults(run=run_ablate, resumes=True)
    for parser in (compare, ablate):
        _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser, required=False)
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML recipe. Repeat the option for several tables.",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="Folder of the experiment (default runs/study-NAME).")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="Folder for tables and figures (default OUT/report)."
    )
    parser.add_argument(
        "--backbone", help="Backbone: openai/clip-vit-base-patch32 (default), mini, a hub id or a CLIP folder."
    )
    parser.add_argument("--head", help="Head of all methods that are given without a head (default meanP).")
    parser.add_argument("--seeds", metavar="0,1,2", help="Seeds of the trainings (default 0,1,2).")
    parser.add_argument(
        "--learning-rates",
        metavar="A,B,…",
        help="One learning rate to use, or several to try, instead of searching a range.",
    )
    parser.add_argument(
        "--rate-range", metavar="LOW,HIGH", help="Range of learning rates to search (default 1e-6,1e-2)."
    )
    parser.add_argument("--trials", type=int, help="Number of learning rates to try (default 8).")
    parser.add_argument("--trial-epochs", type=int, help="Epochs of a trial (default 2).")
    parser.add_argument(
        "--trial-steps", type=int, help="Maximum number of steps of a trial, over all its epochs (default 1000)."
    )
    parser.add_argument("--baseline", help="Row to compare the others with (default: full, or the first row).")
    parser.add_argument("--split", default="test", help="Split to rank (default test).")
    parser.add_argument("--jobs", type=int, help="Number of trainings to run in parallel (default 1).")
    add_ray_options(parser)
    parser.add_argument("--cache", metavar="DIR", type=Path, help="Folder for decoded frames (default OUT/cache).")
    parser.add_argument(
        "--rerun",
        metavar="METHOD",
        action="append",
        default=[],
        help="Repeat the runs of this method, or all. Moves the old runs to OUT/replaced. May be repeated.",
    )
    parser.add_argument("--num-frames", type=int, help="Number of frames per video (default 12).")
    parser.add_argument(
        "--json", action="store_true", help="Print one JSON document, with a list of results under `studies`."
    )
    add_settings_option(parser)
    add_recipe_options(parser, without=("learning_rate", "seed"))
    add_device_options(parser)


def run_compare(arguments: argparse.Namespace) -> int:
    if arguments.merge:
        return _merge(arguments)
    return _run(arguments, "compare", ["compare"])


def run_ablate(arguments: argparse.Namespace) -> int:
    from vop.experiments.plan import ABLATIONS

    names = arguments.ablations or list(ABLATIONS)
    for name in names:
        if name not in ABLATIONS:
            raise unknown_name("ablation", name, ABLATIONS)
    return _run(arguments, "ablate", names)


def _merge(arguments: argparse.Namespace) -> int:
    usual = arguments.parser.get_default
    read = ("merge", "report", "json", "debug")
    unused = [name for name, value in vars(arguments).items() if name not in read and value != usual(name)]
    if unused:
        options = ", ".join("--set" if name == "settings" else f"--{name.replace('_', '-')}" for name in unused)
        raise UsageError(f"--merge trains nothing: leave out {options}")
    if arguments.report is None:
        raise UsageError("--merge needs --report DIR, the folder for the page, its figures and the data")
    _check_folder("--report", arguments.report)
    _need("matplotlib", "drawing figures")
    from vop.experiments.standing import merge
    from vop.experiments.standing_report import write_standing

    standing = merge(arguments.merge)
    page = write_standing(standing, arguments.report)
    if arguments.json:
        print_json(standing.to_dict())
    else:
        say(f"standing comparison of {count('row', len(standing.rows))}: {page}. Its folder also has figures and data")
    return 0


def _run(arguments: argparse.Namespace, command: str, kinds: Sequence[str]) -> int:
    _need("matplotlib", "drawing figures")
    use_device_options(arguments)
    from vop.experiments.runner import check, check_plan, move_replaced

    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"--jobs is {arguments.jobs}; give 1 or more")
    check_ray_options(arguments)
    _check_folder("--report", arguments.report)

    configs = [read_config(recipe) for recipe in arguments.recipe] or [TrainingConfig()]
    if len(configs) > 1 and arguments.data:
        raise UsageError("several recipes name their own data: give --data with at most one recipe")
    by_recipe = [[_plan(arguments, config, kind, _spec(arguments, config)) for kind in kinds] for config in configs]
    for plan in (plan for plans in by_recipe for plan in plans):  # check all plans before the first one runs
        if plan.search:
            _need("optuna", "searching learning rates")
        check_plan(plan)
    _check_rerun(arguments.rerun, [plan for plans in by_recipe for plan in plans])
    planned = []
    for plans in by_recipe:
        dataset = load_data(plans[0].data, arguments)  # emoji-motion is rendered here
        out = _out(arguments, dataset.name, several=len(configs) > 1)
        planned += [(plan, dataset, out) for plan in plans]
    for plan, dataset, out in planned:
        check(plan, dataset, out, rerun=arguments.rerun)
    with _workers(arguments) as workers:  # before anything is moved
        for plan, _, out in planned:  # before any plan runs, because plans can share runs
            if moved := move_replaced(plan, out, rerun=arguments.rerun):
                warn(f"--rerun: the old runs are in {moved}")
        results, error = _results(arguments, planned, workers)
    if results:
        from vop.experiments.report import write_report

        page = write_report(results, arguments.report or _root(arguments, planned) / "report", name=command)
    if error is not None:
        raise error
    if arguments.json:
        print_json({"studies": [one.to_dict() for one in results], "report": str(page)})
    else:
        _print(results, page)
    return 1 if any(one.failures for one in results) else 0


def _check_folder(option: str, path: Path | None) -> None:
    for parent in () if path is None else (path, *path.parents):
        if parent.exists() and not parent.is_dir():
            raise UsageError(f"{parent} is a file; {option} {path} must be a folder")


def _check_rerun(names: Sequence[str], plans: Sequence[Plan]) -> None:
    from vop.experiments.plan import ALL

    known = dict.fromkeys(name for plan in plans for arm in plan.arms for name in (arm.name, arm.method))
    for name in names:
        if name not in (*known, ALL):
            raise unknown_name("method to rerun", name, [*known, ALL])


@contextmanager
def _workers(arguments: argparse.Namespace) -> Iterator[Workers]:
    """Yields the processes or the Ray cluster that the options name."""
    if arguments.ray is None:
        from vop.experiments.processes import Processes

        yield Processes(arguments.jobs or 1)
        return
    from vop.experiments.cluster import RayWorkers
    from vop.utils.cluster import Cluster

    with Cluster(arguments.ray) as cluster:
        yield RayWorkers(cluster, jobs=arguments.jobs, gpus_per_worker=arguments.gpus_per_worker)


def _results(
    arguments: argparse.Namespace, planned: Sequence[Planned], workers: Workers
) -> tuple[list[ExperimentResults], VopError | None]:
    """Runs the experiments in order, and stops at the first error. Returns the results so far and the error."""
    from vop.experiments.runner import run_experiment

    results: list[ExperimentResults] = []
    command = shlex.join(["vop", *sys.argv[1:]])
    with progress.show() as show:
        for plan, dataset, out in planned:
            try:
                results.append(
                    run_experiment(
                        plan,
                        dataset,
                        out,
                        command=command,
                        cache=arguments.cache,
                        workers=workers,
                        progress=show,
                    )
                )
            except VopError as error:
                return results, error
    return results, None


def _need(library: str, what: str) -> None:
    if find_spec(library) is None:
        raise UsageError(f"{what} needs the library {library}: pip install 'vop[{EXTRA}]'")


def _plan(arguments: argparse.Namespace, config: TrainingConfig, kind: str, spec: str) -> Plan:
    from vop.backbones import DEFAULT_HUB_ID, find_sizes
    from vop.experiments.plan import Plan, ablation_arms, arms_of
    from vop.experiments.results import COMPARE
    from vop.heads import MEAN

    entries = _entries(arguments, config)
    backbone = arguments.backbone or config.backbone or DEFAULT_HUB_ID
    settings = {**config.settings} | parse_settings(arguments.settings)
    if arguments.num_frames is not None:
        settings["num_frames"] = arguments.num_frames
    if kind == COMPARE:
        arms = arms_of(_methods(entries.get("methods")), head=arguments.head or config.head or MEAN, settings=settings)
    else:
        frames = {name: value for name, value in settings.items() if name == "num_frames"}
        arms = ablation_arms(kind, find_sizes(backbone), settings=frames)
    names = [arm.name for arm in arms]
    rates = entries.get("learning_rates", [])
    recipe = recipe_of(config.recipe, arguments, **({"learning_rate": rates[0]} if rates else {}))
    return Plan(
        kind=kind,
        data=spec,
        arms=arms,
        recipe=recipe,
        backbone=backbone,
        seeds=tuple(entries.get("seeds", (0, 1, 2))),
        split=arguments.split,
        search=None if len(rates) == 1 else _search(entries),
        baseline=_baseline(entries.get("baseline"), names) if kind == COMPARE else None,
    )


def _entries(arguments: argparse.Namespace, config: TrainingConfig) -> dict[str, Any]:
    """Returns the recipe's `experiment:`, overridden by the options."""
    entries = dict(config.experiment)
    for name, value in entries.items():
        if name not in ENTRIES:
            raise UsageError(f"experiment: {unknown_name('entry', str(name), ENTRIES)}")
        if not isinstance(value, ENTRIES[name]):
            raise UsageError(f"{name} of the experiment is {value!r}; it must be a {ENTRIES[name].__name__}")
    for name in ("trials", "trial_epochs", "trial_steps", "baseline"):
        if getattr(arguments, name) is not None:
            entries[name] = getattr(arguments, name)
    for name in ("seeds", "learning_rates", "rate_range", "methods"):
        if getattr(arguments, name, None) is not None:
            entries[name] = getattr(arguments, name).split(",")
    if "seeds" in entries:
        entries["seeds"] = [_whole_number("seeds", value) for value in entries["seeds"]]
    for name in ("learning_rates", "rate_range"):
        if name in entries:
            entries[name] = [_number(name, value) for value in entries[name]]
    return entries


def _whole_number(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name}: {value!r} is not a whole number") from None


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name}: {value!r} is not a number") from None


def _search(entries: dict[str, Any]) -> Search:
    from vop.experiments.plan import Search

    values = {
        name: entries[given]
        for name, given in (("trials", "trials"), ("epochs", "trial_epochs"), ("steps", "trial_steps"))
        if given in entries
    }
    if "rate_range" in entries:
        if len(entries["rate_range"]) != 2:
            raise UsageError(f"rate_range is {entries['rate_range']}; give two numbers, LOW,HIGH")
        values |= dict(zip(("low", "high"), entries["rate_range"], strict=True))
    return Search(**values, rates=tuple(entries.get("learning_rates", ())))


def _methods(named: Sequence[str] | None) -> list[str]:
    from vop.methods import COSTLY, available

    return list(named) if named else [name for name in available() if name not in COSTLY]


def _baseline(named: str | None, arms: Sequence[str]) -> str | None:
    if named is not None:
        return named
    return "full" if "full" in arms else arms[0] if len(arms) > 1 else None


def _spec(arguments: argparse.Namespace, config: TrainingConfig) -> str:
    spec: str | None = arguments.data or config.data
    if spec is None:
        raise UsageError(
            "no data: give --data SPEC, or --recipe FILE with `data:`. To try it without videos: "
            "--recipe recipes/emoji-motion.yaml"
        )
    return spec


def _out(arguments: argparse.Namespace, name: str, *, several: bool) -> Path:
    out: Path | None = arguments.out
    if out is None:
        return Path("runs") / f"study-{name}"
    return out / name if several else out


def _root(arguments: argparse.Namespace, planned: Sequence[Planned]) -> Path:
    """Returns the folder above the report of all experiments."""
    given: Path | None = arguments.out
    return given or (planned[0][2] if len({out for *_, out in planned}) == 1 else Path("runs"))


def _print(results: Sequence[ExperimentResults], page: Path) -> None:
    from vop.experiments.formats import Terminal

    for one in results:
        print_table(Terminal(one))
    say(f"\nreport: {page} (tables, figures, clips). Its folder also has Markdown, LaTeX, CSV and JSON files")
