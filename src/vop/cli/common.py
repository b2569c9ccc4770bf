"""Options, tables and JSON that several commands share."""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.errors import FileFailure, UsageError
from vop.storage.address import Address, location
from vop.training.recipe import ENOUGH_STEPS, FIELDS, PAPER_EPOCHS, Recipe, kind_of
from vop.utils.parsing import parse_yaml
from vop.utils.progress import is_launched
from vop.utils.text import count, first_few, in_json, visible
from vop.utils.threads import use_threads

if TYPE_CHECKING:
    from rich.text import Text

    from vop.backbones.embedding_config import EmbeddingConfig
    from vop.datasets.types import Dataset


def add_data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--data",
        metavar="SPEC",
        required=required,
        help="Data set: a benchmark and its folder (msrvtt-9k:data/msrvtt), a CSV, JSON, JSONL or Parquet file, a "
        "folder of such files, hf:OWNER/NAME, or a built-in one: emoji-motion-2, emoji-motion.",
    )
    add_table_options(parser)


def add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--videos", metavar="DIR", type=Path, help="Folder of the videos, if they are not beside the annotations."
    )
    parser.add_argument(
        "--video-column", metavar="NAME", help="Column that holds the video path. Detected automatically by default."
    )
    parser.add_argument(
        "--caption-column", metavar="NAME", help="Column that holds the caption. Detected automatically by default."
    )


def add_device_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options that `use_device_options` reads."""
    parser.add_argument(
        "--device", default="auto", help="Device to compute on: auto (default), cpu, cuda, cuda:N or mps."
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        help="Number of CPU threads that PyTorch uses (default: OMP_NUM_THREADS, or one per core).",
    )


def add_compile_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--compile",
        action="store_true",
        help="Compile the layers with PyTorch (CPU and CUDA): work starts later, and long work may end earlier.",
    )


def add_ray_options(parser: argparse.ArgumentParser, *, to: argparse._ActionsContainer | None = None) -> None:
    """Adds the options of work on a Ray cluster, which `check_ray_options` checks.

    Args:
        to: a group that excludes other options, for --ray.
    """
    (to or parser).add_argument(
        "--ray",
        metavar="ADDRESS",
        help="Work on a Ray cluster: host:port, `auto` for the cluster of this machine, or `local` to start one for "
        "this command. The default of --jobs is then one worker per GPU or, without GPUs, per node.",
    )
    parser.add_argument(
        "--gpus-per-worker",
        metavar="N",
        type=float,
        help="With --ray: GPUs of each worker (default 1, if the cluster has any). A fraction shares a GPU.",
    )


def check_ray_options(arguments: argparse.Namespace) -> None:
    if arguments.gpus_per_worker is not None and arguments.ray is None:
        raise UsageError(f"--gpus-per-worker is {arguments.gpus_per_worker:g} without --ray; add --ray")


def use_device_options(arguments: argparse.Namespace) -> None:
    """Choose the device and the number of threads. This imports PyTorch.

    Raises:
        UsageError: the device does not exist on this machine, or the number is less than 1.
    """
    use_threads(arguments.threads)
    from vop.utils.device import use_device

    if not is_launched():  # otherwise the launcher gives each process a device
        use_device(arguments.device)


def load_data(spec: str, arguments: argparse.Namespace) -> Dataset:
    from vop.datasets.readers import load

    return load(
        spec,
        videos=arguments.videos,
        video_column=arguments.video_column,
        caption_column=arguments.caption_column,
    )


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="Setting of the method: --set split_layer=8 --set visual_layers=[1,2,3]. May be repeated.",
    )


def add_embedding_options(parser: argparse.ArgumentParser, *, note: str = "") -> None:
    """Adds the options that `embedding_of` reads.

    Args:
        note: the end of the help texts, such as when the options apply.
    """
    parser.add_argument(
        "--merge-tokens",
        metavar="RATIO",
        type=float,
        help="Merge similar patches of a frame, for speed: the fraction of the patches that the last layer no longer "
        f"has, such as 0.5 (default: 0, off).{note}",
    )
    parser.add_argument(
        "--dimensions",
        metavar="N",
        type=int,
        help="Keep only the first N dimensions of every embedding. The model must have been trained for it, see "
        f"--matryoshka of `vop train` (default: all).{note}",
    )


def embedding_of(arguments: argparse.Namespace) -> EmbeddingConfig:
    from vop.backbones.embedding_config import EmbeddingConfig

    return EmbeddingConfig.of(merge_tokens=arguments.merge_tokens, dimensions=arguments.dimensions)


_RECIPE_HELP = {
    "epochs": "Number of passes over the training pairs",
    "batch_size": "Videos per step, over all processes",
    "accumulate": "Batches whose gradients are averaged for a step; each batch has its own negatives",
    "chunk_size": "Videos that a process embeds at a time, for batches that do not fit into memory; the loss and its "
    "gradient remain those of the whole batch",
    "recompute": "What to compute again for the gradient, instead of keeping it in memory: none, or layers, for long "
    "videos",
    "captions_per_video": "Captions of each video in a step; the video is encoded once for all of them",
    "hard_negatives": "Videos with similar captions that share a batch with each video, so that the model learns to "
    "tell them apart; 0 for random batches",
    "learning_rate": "Learning rate of AdamW",
    "weight_decay": "Weight decay of AdamW",
    "warmup": "Fraction of the steps in which the learning rate rises",
    "rates": "Factors of the learning rate for parts of the model, such as text=0.5,head=2: text, video, head, scale, "
    "or patterns of parameter names; 0 freezes a part",
    "max_grad_norm": "Norm to which gradients are clipped",
    "ema_decay": "Decay of an exponential moving average of the weights, such as 0.999, which validation and the run "
    "use instead of the weights",
    "loss": "Loss: infonce, sigmoid, or auto for the one that the backbone was trained with",
    "matryoshka": "Numbers of dimensions, separated by commas, such as 64,128: also train embeddings that have only "
    "their first dimensions",
    "seed": "Seed of the prompts' initial values and of the order of the pairs",
    "precision": "Precision of the frozen weights and the activations: auto, bf16 or fp32",
    "validation": "Fraction of the training videos to hold out for choosing the epoch, if the data has no validation "
    "split; at least 100 videos or a third of them",
    "if_worse": "Which model to keep if no epoch beats the untuned model on validation videos: untuned, or tuned for "
    "the best epoch",
    "aspect": "Shape of frames: display for the shape that players show, or stored for square pixels, as in "
    "published pipelines",
    "augment": "Random views of training videos: none, or release for those of the released training code (random "
    "frames, crops, mirroring)",
    "frame_sampling": "Frame of each interval in training: middle or random",
    "crop_area": "Smallest share of a frame that a random crop in training keeps; 1 for no crops",
    "flip": "Probability that a training video is mirrored; never if its captions mention left or right",
    "on_bad_video": "What to do about unreadable videos: skip and list them, or fail",
    "workers": "Number of threads that load frames",
    "checkpoint_seconds": "Seconds between checkpoints",
}
_NO_DEFAULT = {
    "epochs": f"{PAPER_EPOCHS}, or more until {ENOUGH_STEPS} steps are reached",
    "chunk_size": "the whole batch",
    "learning_rate": "the method's own",
    "matryoshka": "none",
    "rates": "1 for all",
    "ema_decay": "no average",
    **dict.fromkeys(["frame_sampling", "crop_area", "flip"], "that of --augment"),
}


def add_recipe_options(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    """Adds an option for each field of a recipe."""
    for name, field in FIELDS.items():
        if name not in without:
            default = _NO_DEFAULT.get(name, field.default)
            text = f"{_RECIPE_HELP[name]} (default: {default})."
            kind = kind_of(field)
            reader = _READERS.get(kind, kind)
            parser.add_argument(f"--{name.replace('_', '-')}", type=reader, help=text)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Parses an option's whole numbers, separated by commas."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers: write 64,128") from None


def named_numbers(text: str) -> dict[str, float]:
    """Parses an option's names and numbers, separated by commas."""
    pairs = [pair.rpartition("=") for pair in text.split(",")]
    try:
        return {name: float(number) for name, _, number in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of names and numbers: write text=0.5,head=2"
        ) from None


_READERS: dict[Any, Callable[[str], Any]] = {tuple: whole_numbers, dict: named_numbers}


def recipe_of(recipe: Recipe, arguments: argparse.Namespace, **fixed: object) -> Recipe:
    """Returns the recipe with values replaced by the given options and by `fixed`."""
    given = {name: value for name, value in vars(arguments).items() if name in FIELDS and value is not None}
    return replace(recipe, **given | fixed)


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Parses NAME=VALUE pairs, with values in YAML."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--set {pair!r}: write NAME=VALUE")
        try:
            settings[name] = parse_yaml(value)
        except ValueError:
            raise UsageError(f"--set {pair!r}: the value {value!r} is not readable as YAML") from None
    return settings


def say(text: str = "") -> None:
    """Prints text on standard output. Escapes control characters, because file names may contain them."""
    print(visible(text), flush=True)


def warn(text: str) -> None:
    """Prints text on standard error, with control characters escaped as by `say`."""
    print(visible(text), file=sys.stderr, flush=True)


def command_line(*words: object) -> str:
    """Returns a `vop` command for the user's shell, with quotes where needed."""
    return shlex.join([*_program(), *map(str, words)])


def _program() -> list[str]:
    """Returns the words that start this program."""
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("vop", "__main__.py"):
        return [sys.executable, "-m", "vop"]
    if started.name == "vop" and shutil.which("vop") != str(started):
        return [str(started)]
    return ["vop"]


def data_options(arguments: argparse.Namespace) -> list[str]:
    """Returns the options of `add_table_options` that were given, to print a command that reads the same data."""
    given = {
        "--videos": arguments.videos,
        "--video-column": arguments.video_column,
        "--caption-column": arguments.caption_column,
    }
    return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def place(text: str) -> Path | str:
    """Parses a path, or an address of object storage, which stays text.

    Raises:
        ArgumentTypeError: the address is not valid.
    """
    try:
        found = location(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return str(found) if isinstance(found, Address) else found


def seconds(text: str) -> float:
    """Parses an option's time: seconds, mm:ss or h:mm:ss.

    Raises:
        ArgumentTypeError: the text is not a time of a video.
    """
    *front, last = text.strip().split(":")
    try:
        parts = [*map(int, front), float(last)]
    except ValueError:
        parts = []
    within = all(part < 60 for part in parts[1:])  # minutes and seconds after a colon
    if not parts or len(parts) > 3 or not within or not all(0 <= part < math.inf for part in parts) or "-" in text:
        allowed = "write seconds (92.5), mm:ss (1:32.5) or h:mm:ss (0:01:32.5)"
        raise argparse.ArgumentTypeError(f"{text!r} is not a time of a video: {allowed}")
    return sum(part * 60**place for place, part in enumerate(reversed(parts)))


def print_json(document: Mapping[str, Any], *, file: str | None = None) -> None:
    """Prints one JSON document, or writes it to a file."""
    text = in_json(_on_few_lines(json.dumps(document, indent=2, ensure_ascii=False)))
    if file in (None, "-"):
        print(text)
        return
    from vop.utils.files import atomic_write

    with atomic_write(file) as path:
        path.write_text(text + "\n", encoding="utf-8")


def _on_few_lines(text: str) -> str:
    """Puts each list of numbers in indented JSON on one line, because a list of ranks has tens of thousands."""
    number = r"-?[\d.e+-]+"
    lists = rf"\[\n\s*({number}(?:,\n\s*{number})*)\n\s*\]"  # JSON strings contain no line ends
    return re.sub(lists, lambda found: f"[{' '.join(found[1].split())}]", text)


def print_table(table: object) -> None:
    """Prints a Rich table with literal texts: no markup, no emoji, no control characters."""
    from rich.console import Console

    class Literal(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options | {"markup": False, "emoji": False, "highlight": False})

    width = None if sys.stdout.isatty() else 140  # a file has no width of its own
    Literal(width=width).print(table)


def warn_skipped(skipped: Sequence[FileFailure]) -> None:
    """Lists skipped videos on standard error."""
    if skipped:
        warn(f"{count('video', len(skipped))} {'was' if len(skipped) == 1 else 'were'} skipped:")
        warn_listed(f"{video.path}: {video.reason}" for video in skipped)


def warn_listed(lines: Iterable[str], *, most: int = 20) -> None:
    """Prints the first `most` lines and the number of the others on standard error."""
    for line in first_few(lines, most=most):
        warn(line)
