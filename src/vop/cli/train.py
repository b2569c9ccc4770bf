"""`vop train`: tunes a method on captioned videos."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vop.cli.common import (
    add_compile_option,
    add_data_options,
    add_device_options,
    add_recipe_options,
    add_settings_option,
    command_line,
    data_options,
    parse_settings,
    recipe_of,
    say,
    use_device_options,
    warn,
    warn_skipped,
)
from vop.datasets.rows import TABLE_SUFFIXES
from vop.errors import UsageError
from vop.training.recipe import UNTUNED, TrainingConfig, read_config
from vop.utils import progress
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.datasets.types import Dataset
    from vop.evaluation.metrics import MetricsDict
    from vop.training.selection import TrainingResult


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "train",
        help="Tune a method on captioned videos.",
        description="Tunes a method on captioned videos. Under `accelerate launch -m vop` it runs on several devices.",
    )
    add_data_options(parser, required=False)
    parser.add_argument(
        "--method",
        help="Method to tune: vop-f+p (default), another one that `vop params` lists, or package.module:Class.",
    )
    parser.add_argument(
        "--head", help="Head: meanP (default), seqLSTM, seqTransf, tightTransf, x-pool, or package.module:Class."
    )
    parser.add_argument(
        "--backbone", help="Backbone: openai/clip-vit-base-patch32 (default), mini, a hub id or a CLIP folder."
    )
    parser.add_argument(
        "--out", metavar="RUN", type=Path, required=True, help="The run's folder. Created if it does not exist."
    )
    parser.add_argument(
        "--recipe",
        "--config",
        metavar="RECIPE",
        dest="config",
        help="Recipe: a name (msrvtt-9k) or a YAML file. Options on the command line override its values.",
    )
    parser.add_argument("--resume", action="store_true", help="Resume the stopped training in --out.")
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="Frame cache (see `vop data cache`). Missing videos are decoded and added to it.",
    )
    parser.add_argument(
        "--track",
        metavar="NAMES",
        help="Experiment trackers, separated by commas: tensorboard, wandb, mlflow, or none "
        "(default: TensorBoard, if it is installed).",
    )
    parser.add_argument("--num-frames", type=int, help="Number of frames per video (default: 12).")
    add_settings_option(parser)
    add_recipe_options(parser)
    add_device_options(parser)
    add_compile_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    config = read_config(arguments.config) if arguments.config else TrainingConfig()
    spec = arguments.data or config.data
    if spec is None:
        raise UsageError("no data: give --data SPEC, or `data:` in the recipe")
    settings = parse_settings(arguments.settings)
    if arguments.num_frames is not None:
        settings["num_frames"] = arguments.num_frames
    config = replace(config, recipe=recipe_of(config.recipe, arguments))
    use_device_options(arguments)
    from vop.training.job import train
    from vop.utils.ranks import leave

    with progress.show() as show:
        trained = train(
            spec,
            out=arguments.out,
            method=arguments.method,
            backbone=arguments.backbone,
            head=arguments.head,
            settings=settings,
            recipe=config,
            videos=arguments.videos,
            video_column=arguments.video_column,
            caption_column=arguments.caption_column,
            cache=arguments.cache,
            resume=arguments.resume,
            compile=arguments.compile,
            track=arguments.track.split(",") if arguments.track else None,
            progress=show,
            note=warn,
        )
    leave()
    if not progress.is_first_process():
        return
    warn_skipped(trained.skipped)
    _report(trained.result, arguments.out)
    warn(f"next: {_next(arguments, spec, trained.dataset)}")


def _in_words(validation: MetricsDict) -> str:
    t2v = validation["t2v"]
    found = f"validation t2v R@1 {t2v['r1']:.1f}, R@5 {t2v['r5']:.1f}, MnR {t2v['mnr']:.1f}"
    return f"{found} ({count('video', validation['videos'])})"


def _say_unproven(result: TrainingResult, best: MetricsDict, untuned: MetricsDict) -> None:
    """Warns in red that tuning has not been shown to help, and says what to do."""
    from rich.console import Console

    videos, is_untuned = count("validation video", untuned["videos"]), result.selection == UNTUNED
    if result.p is None:
        found = f"{videos} cannot tell whether tuning helped; the tuned model was kept without proof"
    else:
        is_worse = best["t2v"]["mnr"] > untuned["t2v"]["mnr"]
        found = "worse than untuned" if is_worse else "not provably better than untuned"
        kept = "the untuned model was kept" if is_untuned else "it was kept anyway"
        found = f"the tuned model is {found} (p = {result.p:.2g} on {videos}); {kept}"
    advice = "use more captioned videos (some hundreds), or try another --learning-rate or --method"
    other = "; to keep the tuned model, repeat the command with --resume --if-worse tuned" if is_untuned else ""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"{found}: {advice}{other}", style="bold red")


def _report(result: TrainingResult, out: Path) -> None:
    validated = [record for record in result.history if "validation" in record]
    for record in validated or result.history:
        line = f"epoch {record['epoch']}: loss {record['loss']:.3f}"
        say(f"{line}, {_in_words(record['validation'])}" if "validation" in record else line)
    if result.untuned:
        say(f"untuned: {_in_words(result.untuned)}")
    kept = "the untuned model" if result.selection == UNTUNED else f"epoch {result.best_epoch}"
    say(f"{out}: {kept} ({result.selection}), {result.seconds / 60:.1f} minutes")
    if result.untuned and not result.is_proven and result.best and "validation" in result.best:
        _say_unproven(result, result.best["validation"], result.untuned)


def _next(arguments: argparse.Namespace, spec: str, dataset: Dataset) -> str:
    """Returns the command that evaluates the run on videos that it was not trained on."""
    test = spec if "test" in dataset.splits else _test_table(spec)
    given = data_options(arguments)
    if arguments.cache is not None:
        given += ["--cache", str(arguments.cache)]
    if test is None:
        command = command_line("evaluate", arguments.out, "--data", "TEST.csv", *given)
        return f"write a table of videos that the run was not trained on, and evaluate the run on it: {command}"
    return command_line("evaluate", arguments.out, "--data", test, *given)


def _test_table(spec: str) -> str | None:
    """Returns the test table beside a training table: the same name with "test" for "train", or test.*."""
    path = Path(spec)
    named = [path.with_name(path.name.replace("train", "test")), *path.parent.glob("test.*")]
    tables = [other for other in named if other != path and other.suffix in TABLE_SUFFIXES and other.is_file()]
    return str(tables[0]) if path.is_file() and tables else None
