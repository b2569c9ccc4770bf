"""The plan of an experiment: arms x seeds on one data set, with a learning rate that is searched or given.

An ablation of the paper (section 4.3) is an experiment with a name: a few arms that differ in one thing and train with
the learning rate that is searched for the method's defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vop.backbones.sizes import Sizes
from vop.errors import UsageError, VopError, unknown_name
from vop.heads import MEAN
from vop.training.recipe import FIELDS, PAPER_EPOCHS, TUNED, Recipe

# Recipe fields that do not change results.
FREE = ("if_worse", "workers", "checkpoint_seconds", "on_bad_video", "seed", "learning_rate", "recompute")

LATER = (
    "loss",
    "matryoshka",
    "augment",
    "frame_sampling",
    "crop_area",
    "flip",
    "rates",
    "ema_decay",
    "hard_negatives",
    "accumulate",
    "chunk_size",
    "recompute",
)  # recipe fields that the first versions did not have

ALL = "all"  # selects all arms

UNTRAINED = "zero-shot"

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the table.

    Attributes:
        name: the name in tables and figures.
        settings: settings of the method; those of the head are called `head.NAME`.
        x: its position on the axis of an ablation, if there is one.
        rate_of: the arm whose learning rate it uses. By default it has its own search.
    """

    name: str
    method: str
    head: str = MEAN
    settings: Settings = field(default_factory=dict)
    x: float | None = None
    rate_of: str | None = None

    @property
    def trains(self) -> bool:
        """Whether the arm has anything to train. Zero-shot with mean pooling has no parameters."""
        return not (self.method == UNTRAINED and self.head == MEAN)

    @property
    def is_default(self) -> bool:
        """Whether this arm is a method with the paper's settings, named after the method."""
        return self.has_usual_settings and self.head == MEAN

    @property
    def has_usual_settings(self) -> bool:
        """Whether this arm is a method and a head with their usual settings, named after them."""
        usual = self.method if self.head == MEAN else f"{self.method}/{self.head}"
        return self.name == usual and not self.settings.keys() - {"num_frames"}

    @property
    def key(self) -> str:
        """The name of its files. Arms with the same training have the same key."""
        parts = [self.method] if self.head == MEAN else [self.method, self.head]
        settings = {name: value for name, value in self.settings.items() if name != "num_frames"}
        if settings:
            parts.append(hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8])
        return "-".join(parts)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to search a learning rate on the validation split. The default range is the paper's.

    Attributes:
        low, high: the range, log-uniform.
        rates: the only rates to try, instead of a range.
        trials: the number of rates to try.
        epochs: epochs per trial. A trial may stop after each of them.
        steps: maximum number of steps of a trial. Larger training splits are subsampled.
    """

    low: float = 1e-6
    high: float = 1e-2
    rates: tuple[float, ...] = ()
    trials: int = 8
    epochs: int = 2
    steps: int = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(float(rate) for rate in self.rates))
        for name in ("trials", "epochs", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} of the search is {value!r}; it must be a whole number, 1 or more")
        if not 0 < self.low < self.high < 10:
            raise UsageError(f"the range of learning rates is {self.low!r} to {self.high!r}; give 0 < low < high < 10")
        for rate in self.rates:
            Recipe(learning_rate=rate)  # validates the rate


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An experiment.

    Attributes:
        kind: "compare", or the name of an ablation.
        data: the data set's SPEC.
        split: the split that is ranked at the end.
        search: None if every arm trains with the recipe's learning rate.
        baseline: the arm that gains in t2v R@1 are relative to, or None.
    """

    kind: str
    data: str
    arms: tuple[Arm, ...]
    recipe: Recipe
    backbone: str
    seeds: tuple[int, ...] = (0,)
    split: str = "test"
    search: Search | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not names:
            raise UsageError("no arms to compare: name at least one method")
        _check_unique("arm", names)
        _check_unique("seed", self.seeds)
        by_key: dict[str, str] = {}
        for arm in self.arms:
            other = by_key.setdefault(arm.key, arm.name)
            if other != arm.name:
                raise UsageError(f"the arms {other!r} and {arm.name!r} have the same training: name only one of them")
        if not self.seeds or min(self.seeds) < 0:
            raise UsageError(f"seeds are {list(self.seeds)}; give one or more whole numbers, each 0 or more")
        for seed in self.seeds:
            Recipe(seed=seed)  # validates the seed
        if self.baseline is not None and self.baseline not in names:
            raise UsageError(f"the baseline {self.baseline!r} is not among the arms: {', '.join(names)}")

        # Report a method's own result, even if the untuned model is better.
        recipe = replace(self.recipe, epochs=self.recipe.epochs or PAPER_EPOCHS, if_worse=TUNED)
        object.__setattr__(self, "recipe", recipe)

    def named(self, names: Sequence[str]) -> tuple[Arm, ...]:
        """Return the arms with these names or methods; `ALL` selects all."""
        return tuple(arm for arm in self.arms if {arm.name, arm.method, ALL} & set(names))

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def rate_arm(self, arm: Arm) -> Arm:
        """Return the arm whose search gives the learning rate of `arm`."""
        return self.arm(arm.rate_of) if arm.rate_of else arm

    def recipe_of(self, *, rate: float, seed: int, epochs: int | None = None) -> Recipe:
        return replace(self.recipe, learning_rate=rate, seed=seed, epochs=epochs or self.recipe.epochs)

    def identity(self, *, splits: dict[str, str], backbone: str) -> dict[str, Any]:
        """Return the values that must match for results to be reused. Arms and seeds may be added.

        Args:
            splits: the fingerprint of each split of the data set.
            backbone: the content hash.
        """
        recipe = {name: value for name, value in recipe_values(self.recipe).items() if name not in FREE}
        search = None if self.search is None else asdict(self.search)
        rate = self.recipe.learning_rate if self.search is None else None
        frames = sorted({arm.settings.get("num_frames", 12) for arm in self.arms})
        facts = {"split": self.split, "data": splits, "backbone": backbone, "num_frames": frames}
        identity: dict[str, Any] = json.loads(json.dumps({**facts, **recipe, "learning_rate": rate, "search": search}))
        return identity


def _check_unique(what: str, listed: Sequence[object]) -> None:
    for entry in listed:
        if listed.count(entry) > 1:
            raise UsageError(f"the {what} {entry!r} is listed twice")


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe, without the defaults of fields that earlier versions did not have."""
    values = asdict(recipe)
    return {name: value for name, value in values.items() if name not in LATER or value != FIELDS[name].default}


def check_same(saved: dict[str, Any], wanted: dict[str, Any], *, out: object) -> None:
    """Raise a VopError that lists the differences of two identities, if any."""
    differences = [
        f"{key}: {saved.get(key)!r} in the folder, {wanted.get(key)!r} given"
        for key in dict.fromkeys([*saved, *wanted])
        if saved.get(key) != wanted.get(key)
    ]
    if differences:
        lines = "\n".join(f"  {line}" for line in differences)
        raise VopError(
            f"{out} holds an experiment with other values:\n{lines}\n"
            "Repeat it with the original values, or choose another --out"
        )


def arms_of(names: Sequence[str], *, head: str = MEAN, settings: Settings | None = None) -> tuple[Arm, ...]:
    """Return an arm for each method, with the settings that apply to it and differ from its defaults.

    "METHOD/HEAD" is an arm with a head of its own.

    Raises:
        UsageError: a method or head does not exist, or no method has one of the settings.
    """
    from vop import heads, methods
    from vop.models.model import HEAD_PREFIX

    arms: list[Arm] = []
    used: set[str] = set()
    known: Settings = {}
    for name in names:
        method, _, own_head = name.partition("/")
        chosen = own_head or head
        has = methods.settings_of(method)
        has |= {f"{HEAD_PREFIX}{key}": value for key, value in heads.settings_of(chosen).items()}
        known |= has
        used |= has.keys()
        own = {key: value for key, value in (settings or {}).items() if key in has and value != has[key]}
        arms.append(
            Arm(name=name if own_head or head == MEAN else f"{name}/{head}", method=method, head=chosen, settings=own)
        )
    for key in settings or {}:
        if key not in used:
            raise unknown_name("setting", key, known)
    return tuple(arms)


LENGTHS = (4, 8, 12, 16, 20)  # Figure 5
SPECIFIC = (1, 2, 4, 6, 8)  # of 8 visual prompts


def ablation_arms(name: str, sizes: Sizes, *, settings: Settings) -> tuple[Arm, ...]:
    """Return the arms of an ablation on a backbone of `sizes`. All arms get `settings` (the number of frames).

    Raises:
        UsageError: the ablation does not exist.
    """
    if name not in ABLATIONS:
        raise unknown_name("ablation", name, ABLATIONS)
    built = ABLATIONS[name](sizes)
    default = next(arm.name for arm in built if arm.rate_of is None)
    return tuple(
        replace(arm, settings=settings | arm.settings, rate_of=None if arm.name == default else arm.rate_of or default)
        for arm in built
    )


def _towers(sizes: Sizes) -> list[Arm]:
    return [
        Arm(name="both towers", method="vop"),
        Arm(name="visual prompts only", method="vop", settings={"text_layers": []}, rate_of="both towers"),
        Arm(name="text prompts only", method="vop", settings={"visual_layers": []}, rate_of="both towers"),
    ]


def _depth(sizes: Sizes) -> list[Arm]:
    """Prompt the lowest layer, a quarter, a half, three quarters or all of each tower (paper: 1, 3, 6, 9, 12 of 12)."""
    built = [Arm(name="all layers", method="vop", x=float(sizes.vision.layers))]
    shares = dict.fromkeys(
        max(1, round(sizes.vision.layers * part)) for part in (1 / sizes.vision.layers, 1 / 4, 1 / 2, 3 / 4)
    )
    for visual in shares:
        text = max(1, round(sizes.text.layers * visual / sizes.vision.layers))
        layers = {"visual_layers": list(range(1, visual + 1)), "text_layers": list(range(1, text + 1))}
        name = f"layers 1-{visual}" if visual > 1 else "layer 1"
        built.append(Arm(name=name, method="vop", settings=layers, x=float(visual), rate_of="all layers"))
    return sorted(built, key=lambda arm: arm.x or 0.0)


def _length(sizes: Sizes) -> list[Arm]:
    return [
        Arm(
            name=f"{length} prompts",
            method="vop",
            settings={} if length == 8 else {"text_prompts": length, "visual_prompts": length},
            x=float(length),
            rate_of=None if length == 8 else "8 prompts",
        )
        for length in LENGTHS
    ]


def _specific_length(sizes: Sizes) -> list[Arm]:
    return [
        Arm(
            name=f"{count} of 8",
            method="vop-p",
            settings={} if count == 4 else {"specific_prompts": count},
            x=float(count),
            rate_of=None if count == 4 else "4 of 8",
        )
        for count in SPECIFIC
    ]


def _cmm(sizes: Sizes) -> list[Arm]:
    others = [
        Arm(name=kind, method="vop-c", settings={"cmm": kind}, rate_of="bilstm") for kind in ("lstm", "transformer")
    ]
    return [Arm(name="bilstm", method="vop-c"), *others]


def _cmm_role(sizes: Sizes) -> list[Arm]:
    replaces = Arm(name="replaces [CLS]", method="vop-c", settings={"cmm_role": "replace"}, rate_of="makes prompts")
    return [Arm(name="makes prompts", method="vop-c"), replaces]


def _split_layer(sizes: Sizes) -> list[Arm]:
    """Split at 0 to 6 sixths of the tower, and at the default of two thirds."""
    depth = sizes.vision.layers
    default = round(depth * 2 / 3)
    places = sorted({round(depth * step / 6) for step in range(7)} | {default})
    return [
        Arm(
            name=f"K_s = {place}",
            method="vop-f",
            settings={} if place == default else {"split_layer": place},
            x=float(place),
            rate_of=None if place == default else f"K_s = {default}",
        )
        for place in places
    ]


ABLATIONS: dict[str, Callable[[Sizes], list[Arm]]] = {
    "towers": _towers,
    "depth": _depth,
    "length": _length,
    "specific-length": _specific_length,
    "cmm": _cmm,
    "cmm-role": _cmm_role,
    "split-layer": _split_layer,
}
