"""`vop compare` and `vop ablate`: several trainings, one table, one report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from vop.cli.common import (
    add_data_options,
    add_device_options,
    add_recipe_options,
    add_settings_option,
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

# Entries of a recipe's `study:`, and the options that go before them.
ENTRIES = {
    "methods": list,
    "seeds": list,
    "learning_rates": list,
    "rate_range": list,
    "trials": int,
    "trial_epochs": int,
    "trial_steps": int,
    "baseline": str,
}


def add_parser(subparsers) -> None:
    compare = subparsers.add_parser(
        "compare",
        help="train and rank several methods with several seeds: one table, one report",
        description="Searches each method's learning rate on validation, trains it with every seed, ranks and reports. "
        "What is done already in --out is used again.",
    )
    compare.add_argument("--methods", metavar="A,B/HEAD,…", help="default: all that `vop params` lists")
    compare.set_defaults(run=run_compare, goes_on=True)
    ablate = subparsers.add_parser(
        "ablate",
        help="the paper's ablations as named studies",
        description="Studies: towers, depth, length, specific-length, cmm, cmm-role, split-layer.",
    )
    ablate.add_argument("studies", metavar="STUDY", nargs="*", help="default: all of them")
    ablate.set_defaults(run=run_ablate, goes_on=True)
    for parser in (compare, ablate):
        _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser, required=False)
    parser.add_argument(
        "--recipe", metavar="FILE", action="append", default=[], help="may be repeated: one table for each"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="the study's folder (default runs/study-NAME)")
    parser.add_argument("--report", metavar="DIR", type=Path, help="tables and figures (default OUT/report)")
    parser.add_argument("--backbone", help="openai/clip-vit-base-patch32 (default), mini, a hub id, a CLIP folder")
    parser.add_argument("--head", help="of every method that names none: meanP (default) or another one")
    parser.add_argument("--seeds", metavar="0,1,2", help="of the trainings (default 0,1,2)")
    parser.add_argument(
        "--learning-rates", metavar="A,B,…", help="in place of a search: one for all, or several to try"
    )
    parser.add_argument("--rate-range", metavar="LOW,HIGH", help="of the search (default 1e-6,1e-2)")
    parser.add_argument("--trials", type=int, help="learning rates that a search tries (default 8)")
    parser.add_argument("--trial-epochs", type=int, help="of each (default 2)")
    parser.add_argument("--trial-steps", type=int, help="of each at most, over its epochs (default 1000)")
    parser.add_argument("--baseline", help="the arm that gains are measured from (default full, or the first)")
    parser.add_argument("--split", default="test", help="that is ranked: test (default) or val")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (default 1)")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="decoded frames (default OUT/cache)")
    parser.add_argument(
        "--rerun",
        metavar="METHOD",
        action="append",
        default=[],
        help="do the runs of a method again, or of all; what is there moves to OUT/replaced; may be repeated",
    )
    parser.add_argument("--num-frames", type=int, help="frames of a video (default 12)")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of documents under `studies`")
    add_settings_option(parser)
    add_recipe_options(parser, without=("learning_rate", "seed"))
    add_device_options(parser)


def run_compare(arguments: argparse.Namespace) -> int:
    return _run(arguments, "compare", ["compare"])


def run_ablate(arguments: argparse.Namespace) -> int:
    from vop.experiments.ablations import ABLATIONS

    studies = arguments.studies or list(ABLATIONS)
    for study in studies:
        if study not in ABLATIONS:
            raise unknown_name("study", study, ABLATIONS)
    return _run(arguments, "ablate", studies)


def _run(arguments: argparse.Namespace, command: str, kinds: Sequence[str]) -> int:
    _need("matplotlib", "drawing figures")
    use_device_options(arguments)
    from vop.experiments.runner import check, check_plan, set_aside

    if arguments.jobs < 1:
        raise UsageError(f"--jobs is {arguments.jobs}; give 1 or more")
    _check_folder("--report", arguments.report)

    configs = [read_config(recipe) for recipe in arguments.recipe] or [TrainingConfig()]
    if len(configs) > 1 and arguments.data:
        raise UsageError("several recipes name their own data: give --data with one recipe, or with none")
    by_recipe = [[_plan(arguments, config, kind, _spec(arguments, config)) for kind in kinds] for config in configs]
    for plan in (plan for plans in by_recipe for plan in plans):  # all of them, before the first hour is spent
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
    for plan, _, out in planned:  # before any of them runs: several share a folder, and runs in it
        if moved := set_aside(plan, out, rerun=arguments.rerun):
            warn(f"--rerun: what was there is in {moved}")
    documents, error = _documents(arguments, planned)
    page = _publish(arguments, planned, documents, command) if documents else None
    if error is not None:
        raise error
    if arguments.json:
        print_json({"studies": documents, "report": str(page)})
    else:
        _print(documents, page)
    return 1 if any(document["failures"] for document in documents) else 0


def _check_folder(option: str, path: Path | None) -> None:
    for parent in () if path is None else (path, *path.parents):
        if parent.exists() and not parent.is_dir():
            raise UsageError(f"{parent} is a file; {option} {path} is to be a folder")


def _check_rerun(names: Sequence[str], plans: Sequence) -> None:
    from vop.experiments.plan import ALL

    known = dict.fromkeys(name for plan in plans for arm in plan.arms for name in (arm.name, arm.method))
    for name in names:
        if name not in (*known, ALL):
            raise unknown_name("method to rerun", name, [*known, ALL])


def _documents(arguments: argparse.Namespace, planned: Sequence[tuple]) -> tuple[list[dict], VopError | None]:
    """Of the studies in their order, up to one that fails; its error comes after the report of the others."""
    from vop.experiments.job import run_plan

    documents: list[dict] = []
    given = {"command": _command(), "cache": arguments.cache, "jobs": arguments.jobs}
    with progress.show() as show:
        for plan, dataset, out in planned:
            try:
                documents.append(run_plan(plan, dataset, out, progress=show, **given))
            except VopError as error:
                return documents, error
    return documents, None


def _publish(arguments: argparse.Namespace, planned: Sequence[tuple], documents: list[dict], command: str) -> Path:
    from vop.experiments.publish import publish

    return publish(documents, arguments.report or _root(arguments, planned) / "report", name=command)


def _need(library: str, what: str) -> None:
    if find_spec(library) is None:
        raise UsageError(f"{what} needs the library {library}: pip install 'vop[compare]'")


def _plan(arguments: argparse.Namespace, config: TrainingConfig, kind: str, spec: str):
    from vop.backbones import DEFAULT_HUB_ID, find_sizes
    from vop.experiments import ablations
    from vop.experiments.plan import Plan, arms_of
    from vop.heads import MEAN

    study = _study(arguments, config)
    backbone = arguments.backbone or config.backbone or DEFAULT_HUB_ID
    settings = {**config.settings} | parse_settings(arguments.settings)
    if arguments.num_frames is not None:
        settings["num_frames"] = arguments.num_frames
    if kind == "compare":
        arms = arms_of(_methods(study.get("methods")), head=arguments.head or config.head or MEAN, settings=settings)
    else:
        frames = {name: value for name, value in settings.items() if name == "num_frames"}
        arms = ablations.arms(kind, find_sizes(backbone), settings=frames)
    names = [arm.name for arm in arms]
    rates = study.get("learning_rates", [])
    recipe = recipe_of(config.recipe, arguments, **({"learning_rate": rates[0]} if rates else {}))
    return Plan(
        kind=kind,
        data=spec,
        arms=arms,
        recipe=recipe,
        backbone=backbone,
        seeds=tuple(study.get("seeds", (0, 1, 2))),
        split=arguments.split,
        search=None if len(rates) == 1 else _search(study),
        baseline=_baseline(study.get("baseline"), names) if kind == "compare" else None,
    )


def _study(arguments: argparse.Namespace, config: TrainingConfig) -> dict:
    """The recipe's `study:` with the options in front of it."""
    study = dict(config.study)
    for name, value in study.items():
        if name not in ENTRIES:
            raise unknown_name("entry of study", str(name), ENTRIES)
        if not isinstance(value, ENTRIES[name]):
            raise UsageError(f"{name} of the study is {value!r}; it must be a {ENTRIES[name].__name__}")
    for name in ("trials", "trial_epochs", "trial_steps", "baseline"):
        if getattr(arguments, name) is not None:
            study[name] = getattr(arguments, name)
    for name in ("seeds", "learning_rates", "rate_range", "methods"):
        if getattr(arguments, name, None) is not None:
            study[name] = getattr(arguments, name).split(",")
    for name, kind in (("seeds", int), ("learning_rates", float), ("rate_range", float)):
        if name in study:
            study[name] = [_number(name, value, kind) for value in study[name]]
    return study


def _number(name: str, value: object, kind: type) -> float | int:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name}: {value!r} is no {'whole number' if kind is int else 'number'}") from None


def _search(study: dict):
    from vop.experiments.plan import Search

    values = {
        name: study[given]
        for name, given in (("trials", "trials"), ("epochs", "trial_epochs"), ("steps", "trial_steps"))
        if given in study
    }
    if "rate_range" in study:
        if len(study["rate_range"]) != 2:
            raise UsageError(f"rate_range is {study['rate_range']}; give two numbers, LOW,HIGH")
        values |= dict(zip(("low", "high"), study["rate_range"], strict=True))
    return Search(**values, rates=tuple(study.get("learning_rates", ())))


def _methods(named: Sequence[str] | None) -> list[str]:
    from vop.methods import available

    return list(named) if named else available()


def _baseline(named: str | None, arms: Sequence[str]) -> str | None:
    if named is not None:
        return named
    return "full" if "full" in arms else arms[0] if len(arms) > 1 else None


def _spec(arguments: argparse.Namespace, config: TrainingConfig) -> str:
    spec = arguments.data or config.data
    if spec is None:
        raise UsageError(
            "no data: give --data SPEC, or --recipe FILE with `data:`; without any videos of your own: "
            "--recipe recipes/emoji-motion.yaml"
        )
    return spec


def _out(arguments: argparse.Namespace, name: str, *, several: bool) -> Path:
    if arguments.out is None:
        return Path("runs") / f"study-{name}"
    return arguments.out / name if several else arguments.out


def _root(arguments: argparse.Namespace, planned: Sequence[tuple]) -> Path:
    """Where the report of all studies goes."""
    return arguments.out or (planned[0][2] if len({out for *_, out in planned}) == 1 else Path("runs"))


def _command() -> str:
    return shlex.join(["vop", *sys.argv[1:]])


def _print(documents: Sequence[dict], page: Path) -> None:
    from vop.experiments.tables import rich_table

    for document in documents:
        print_table(rich_table(document))
    say(f"\n{page}: tables, figures and clips; the same as Markdown, CSV and JSON beside it")
