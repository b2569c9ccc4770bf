"""A recipe: the settings of a training, and the YAML files that hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from vop.datasets.augmentation import AUGMENTATIONS, Augmentation
from vop.datasets.augmentation import NONE as NO_AUGMENTATION
from vop.errors import UsageError, unknown_name
from vop.utils.checks import check_choice, check_list, check_number, check_whole, plain
from vop.utils.files import read_file
from vop.utils.parsing import MAX_YAML_BYTES, parse_yaml
from vop.video.clip import DISPLAY, check_aspect

ENOUGH_STEPS = 300  # after which new prompts improved retrieval on emoji-motion with mini (docs/training.md)
PAPER_EPOCHS = 5
SEED_LIMIT = 2**63  # of PyTorch
DEFAULT_METHOD = "vop-f+p"
UNTUNED, TUNED = "untuned", "tuned"
AUTO = "auto"
NO_RECOMPUTING, LAYERS = "none", "layers"
LOSS_NAMES = ("infonce", "sigmoid")  # those of vop.training.loss, which imports PyTorch
RECIPES = Path(__file__).resolve().parents[1] / "recipes"  # the recipes that come with vop


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training. The defaults are the paper's (section 4), as far as it states them.

    Attributes:
        epochs: passes over the training pairs; None for 5, as in the paper, or more if `ENOUGH_STEPS` steps need them.
        learning_rate: AdamW's; None for the method's default (`Method.learning_rate`). The paper searches [1e-6, 1e-2]
            for each method and does not report the result.
        weight_decay: AdamW's, on all trained parameters except the logit scale.
        warmup: fraction of the steps in which the learning rate rises from 0; it then falls along a cosine to 0.
        batch_size: videos per step over all processes, each with `captions_per_video` captions.
        accumulate: batches whose gradients are averaged for a step. Each batch has only its own negatives.
        chunk_size: videos that a process embeds at a time, for a batch that does not fit into memory. The loss and its
            gradient remain those of the batch (`vop.training.gradient_cache`). None for the whole batch.
        recompute: "layers" keeps only the inputs of the backbone's layers for the gradient, and computes the rest
            again, for long videos; "none" keeps everything. The gradient is the same.
        captions_per_video: captions that share one encoding of their video. The paper's is 1.
        hard_negatives: videos with similar captions that share a batch with each video
            (`vop.datasets.hard_negatives`); 0 for random batches, as in the paper.
        rates: factors of the learning rate for parts of the model, such as {"text": 0.5}: groups or patterns of
            parameter names (`vop.training.rates`). 0 freezes a part.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: keep, validate and select the exponential moving average of the trained parameters with this decay,
            which warms up (`vop.training.averaging`); None for the parameters themselves.
        loss: "infonce", "sigmoid", or "auto" for the one that the backbone was trained with.
        matryoshka: numbers of dimensions. The loss is averaged with the losses of embeddings that have only their first
            dimensions, so that shorter vectors work, too (`vop.training.loss.matryoshka_loss`).
        seed: the random seed for the prompts' initial values and the order of the pairs.
        precision: dtype of the frozen weights and the activations: "auto", "bf16" or "fp32".
        validation: fraction of the training videos that is held out to select the epoch, if the data has no
            validation split; at least 100 videos or a third of them, whichever is less.
        if_worse: what a run keeps if no epoch is better than the untuned model on validation videos: "untuned", or
            "tuned", which keeps the best epoch anyway.
        aspect: "display" gives frames the aspect ratio in which players show them; "stored" ignores the file's
            pixel aspect ratio, as most published pipelines do.
        augment: the random views of training videos: "none", or "release" for those of the released training code.
        frame_sampling, crop_area, flip: single values in place of those of `augment`
            (`vop.datasets.augmentation.Augmentation`).
        on_bad_video: "skip" leaves unreadable videos out and reports them; "fail" stops.
        workers: threads that load frames.
        checkpoint_seconds: seconds between two checkpoints. Each validation also ends with one.
    """

    epochs: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    chunk_size: int | None = None
    recompute: str = NO_RECOMPUTING
    captions_per_video: int = 1
    hard_negatives: int = 0
    learning_rate: float | None = None
    weight_decay: float = 0.2
    warmup: float = 0.1
    rates: Mapping[str, float] | None = None
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    loss: str = AUTO
    matryoshka: tuple[int, ...] = ()
    seed: int = 0
    precision: str = "auto"
    validation: float = 0.05
    if_worse: str = UNTUNED
    aspect: str = DISPLAY
    augment: str = NO_AUGMENTATION
    frame_sampling: str | None = None
    crop_area: float | None = None
    flip: float | None = None
    on_bad_video: str = "skip"
    workers: int = 2
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for own in dataclasses.fields(self):
            object.__setattr__(self, own.name, plain(getattr(self, own.name)))
            _check_type(own, getattr(self, own.name))
        leasts = {"epochs": 1, "batch_size": 2, "accumulate": 1, "chunk_size": 1, "captions_per_video": 1}
        for name, least in {**leasts, "hard_negatives": 0, "workers": 0, "seed": 0}.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if self.seed >= SEED_LIMIT:
            raise UsageError(f"seed is {self.seed}; it must be below {SEED_LIMIT:,}")
        if self.hard_negatives >= self.batch_size:
            raise UsageError(
                f"hard_negatives is {self.hard_negatives}; it must be below batch_size, {self.batch_size}, so that a "
                "video and the ones like it fit into a batch"
            )
        for name in ("warmup", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 0 or more and below 1")
        for name in ("weight_decay", "max_grad_norm", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:  # also refuses NaN
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < 10:
            raise UsageError(
                f"learning_rate is {self.learning_rate}; it must be above 0 and below 10 (the paper's are 1e-6 to 1e-2)"
            )
        if self.rates is not None:
            rates = {name: plain(rate) for name, rate in sorted(self.rates.items())}  # the order does not matter
            object.__setattr__(self, "rates", rates or None)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay is {self.ema_decay}; it must be 0 or more and below 1")
        check_aspect(self.aspect)
        if self.if_worse not in (UNTUNED, TUNED):
            raise unknown_name("if_worse", self.if_worse, [UNTUNED, TUNED])
        if self.loss not in (AUTO, *LOSS_NAMES):
            raise unknown_name("loss", self.loss, [AUTO, *LOSS_NAMES])
        dimensions = sorted({plain(number) for number in self.matryoshka})
        object.__setattr__(self, "matryoshka", tuple(dimensions))  # a file has a list
        check_choice("recompute", self.recompute, (NO_RECOMPUTING, LAYERS))
        check_choice("augment", self.augment, tuple(AUGMENTATIONS))
        _ = self.augmentation  # checks its values
        if self.on_bad_video not in ("skip", "fail"):
            raise unknown_name("on_bad_video", self.on_bad_video, ["skip", "fail"])

    @property
    def augmentation(self) -> Augmentation:
        """The random views of training videos."""
        own = {name: getattr(self, name) for name in ("frame_sampling", "crop_area", "flip")}
        return replace(AUGMENTATIONS[self.augment], **{name: value for name, value in own.items() if value is not None})


FIELDS = {own.name: own for own in dataclasses.fields(Recipe)}


Kind: TypeAlias = "type[int] | type[float] | type[str] | type[tuple[int, ...]] | type[dict[str, float]]"


def kind_of(own: dataclasses.Field[Any]) -> Kind:
    """Return the type of a field's values other than None. A `tuple` has whole numbers, a `dict` names and numbers."""
    kinds: dict[str, Kind] = {"int": int, "float": float, "str": str, "tuple[int,": tuple, "Mapping[str,": dict}
    return kinds[str(own.type).partition(" ")[0]]


def _check_type(own: dataclasses.Field[Any], value: object) -> None:
    if value is None and own.default is None:
        return
    kind = kind_of(own)
    if kind is tuple:
        check_list(own.name, value, example="[64, 128]")
        for number in cast(Sequence[object], value):
            check_whole(f"a number of {own.name}", number, at_least=1)
        return
    if kind is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{own.name} is {value!r}; it must map names to numbers, such as {{text: 0.5}}")
        for name, number in cast(Mapping[object, object], value).items():
            if not isinstance(name, str):
                raise UsageError(f"{own.name} has the name {name!r}; a name is a text")
            check_number(f"{name} in {own.name}", number, at_least=0)
        return
    words = {int: "a whole number", str: "a name", float: "a number"}[kind]
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise UsageError(f"{own.name} is {value!r}; it must be {words}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Contents of a recipe file: a whole training.

    Attributes:
        data: the data set's SPEC.
        method, backbone, head: names. None stands for the default.
        settings: the settings of the method and, as `head.NAME`, of the head.
        recipe: how the training is done.
        experiment: the settings of a comparison (see `vop.cli.compare`), which a training ignores. Its former name is
            `study`.
    """

    data: str | None = None
    method: str | None = None
    backbone: str | None = None
    head: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    experiment: Mapping[str, Any] = field(default_factory=dict)


_NAMES = ("data", "method", "backbone", "head")
_MAPPINGS = ("settings", "experiment", "study")


def read_config(recipe: str | Path) -> TrainingConfig:
    """Read a YAML recipe, with the fields of `Recipe` and of `TrainingConfig` at the top level.

    Args:
        recipe: a path, or the name of a recipe that comes with vop (`msrvtt-9k`).

    Raises:
        UsageError: the recipe does not exist, or an entry is unknown or has a value that is not allowed.
    """
    path = _path_of(recipe)
    content = read_file(path, at_most=MAX_YAML_BYTES, error=UsageError)
    try:
        values = parse_yaml(content.decode("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not readable as YAML ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a mapping of names to values, got {type(values).__name__}")
    known = [*FIELDS, *_NAMES, *_MAPPINGS]
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{path}: {unknown_name('entry', str(name), known)}")
        if name in _NAMES and not isinstance(value, str):
            raise UsageError(f"{path}: {name} is {value!r}; it must be a name")
        if name in _MAPPINGS and not isinstance(value, dict):
            raise UsageError(f"{path}: {name} is {value!r}; it must map names to values")
        if name in FIELDS and isinstance(value, str) and kind_of(FIELDS[name]) is float:
            values[name] = _number(value)
        if name in FIELDS and isinstance(value, dict):
            values[name] = {part: _number(number) for part, number in value.items()}
    if "study" in values:
        values["experiment"] = {**values.pop("study"), **values.get("experiment", {})}
    own = {name: values[name] for name in (*_NAMES, *_MAPPINGS) if name in values}
    return TrainingConfig(**own, recipe=Recipe(**{name: values[name] for name in FIELDS if name in values}))


def _number(value: object) -> object:
    """Return the number that a string contains, because YAML reads 1e-3 as a string, or else the value itself."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with vop."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _path_of(recipe: str | Path) -> Path:
    path = Path(recipe)
    is_name = len(path.parts) == 1 and not path.suffix and not path.is_file()
    if not is_name:
        return path
    if path.name not in recipe_names():
        raise unknown_name("recipe", path.name, [*recipe_names(), "or the path of a YAML file"])
    return RECIPES / f"{path.name}.yaml"
