"""What a study is: arms x seeds on one data set, the learning rate searched or given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vop.errors import UsageError, VopError
from vop.heads import MEAN
from vop.training.recipe import PAPER_EPOCHS, TUNED, Recipe

# Fields of a recipe that change neither a result nor what it is compared with.
FREE = ("if_worse", "workers", "checkpoint_seconds", "on_bad_video", "seed", "learning_rate")

ALL = "all"  # in the place of the names of arms


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of a study.

    Attributes:
        name: in tables and figures.
        settings: the method's, and the head's under `head.NAME`.
        x: its place on the axis of an ablation, where that has one.
        rate_of: the name of the arm whose searched learning rate it shares; its own by default.
    """

    name: str
    method: str
    head: str = MEAN
    settings: dict = field(default_factory=dict)
    x: float | None = None
    rate_of: str | None = None

    @property
    def key(self) -> str:
        """A folder's name; arms that train the same have the same one, whatever they are called."""
        parts = [self.method] if self.head == MEAN else [self.method, self.head]
        settings = {name: value for name, value in self.settings.items() if name != "num_frames"}
        if settings:
            parts.append(hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8])
        return "-".join(parts)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a learning rate is found, on the validation split (defaults: the paper's range).

    Attributes:
        low, high: the range, log-uniform.
        rates: these and no others, in place of a range.
        trials: rates that are tried.
        epochs: of a trial; after each of them it may be given up.
        steps: of a trial, in all of its epochs; fewer captions are drawn for it where the training has more.
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
                raise UsageError(f"{name} of the search is {value!r}; it is a whole number, 1 or more")
        if not 0 < self.low < self.high < 10:
            raise UsageError(f"the range of learning rates is {self.low!r} to {self.high!r}; give 0 < low < high < 10")
        for rate in self.rates:
            Recipe(learning_rate=rate)  # raises what is wrong with it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study.

    Attributes:
        kind: "compare", or the name of an ablation.
        data: the data set's SPEC.
        split: that is ranked at the end.
        search: None if every arm trains with the recipe's learning rate.
        baseline: the arm whose t2v R@1 the others' gain is measured from; None for none.
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
            raise UsageError("there are 0 arms to compare: name one method or more")
        for listed, what in ((names, "arm"), (self.seeds, "seed")):
            twice = [entry for entry in listed if listed.count(entry) > 1]
            if twice:
                raise UsageError(f"the {what} {twice[0]!r} is listed twice")
        by_key: dict[str, str] = {}
        for arm in self.arms:
            other = by_key.setdefault(arm.key, arm.name)
            if other != arm.name:
                raise UsageError(f"the arms {other!r} and {arm.name!r} train the same: name one of them")
        if not self.seeds or min(self.seeds) < 0:
            raise UsageError(f"seeds are {list(self.seeds)}; give one or more whole numbers, 0 or more")
        if self.baseline is not None and self.baseline not in names:
            raise UsageError(f"the baseline {self.baseline!r} is not among the arms: {', '.join(names)}")

        # What a method gives is reported, also where it does worse than the untuned model.
        recipe = replace(self.recipe, epochs=self.recipe.epochs or PAPER_EPOCHS, if_worse=TUNED)
        object.__setattr__(self, "recipe", recipe)

    def named(self, names: Sequence[str]) -> tuple[Arm, ...]:
        """The arms that are meant by names of arms or methods; `ALL` means every one."""
        return tuple(arm for arm in self.arms if {arm.name, arm.method, ALL} & set(names))

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def rate_arm(self, arm: Arm) -> Arm:
        """The arm by which the learning rate of `arm` is searched."""
        return self.arm(arm.rate_of) if arm.rate_of else arm

    def recipe_of(self, *, rate: float, seed: int, **changes) -> Recipe:
        return replace(self.recipe, learning_rate=rate, seed=seed, **changes)

    def identity(self, *, splits: dict[str, str], backbone: str) -> dict[str, Any]:
        """What has to stay the same for results to be used again; arms and seeds may be added.

        Args:
            splits: the fingerprint of each split of the data set.
            backbone: the content hash.
        """
        recipe = {name: value for name, value in asdict(self.recipe).items() if name not in FREE}
        search = None if self.search is None else asdict(self.search)
        rate = self.recipe.learning_rate if self.search is None else None
        frames = sorted({arm.settings.get("num_frames", 12) for arm in self.arms})
        facts = {"split": self.split, "data": splits, "backbone": backbone, "num_frames": frames}
        return json.loads(json.dumps({**facts, **recipe, "learning_rate": rate, "search": search}))


def check_same(saved: dict[str, Any], wanted: dict[str, Any], *, out: object) -> None:
    """Raises a VopError with every difference of two identities."""
    differences = [
        f"{key}: {saved.get(key)!r} there, {wanted.get(key)!r} now"
        for key in dict.fromkeys([*saved, *wanted])
        if saved.get(key) != wanted.get(key)
    ]
    if differences:
        lines = "\n".join(f"  {line}" for line in differences)
        raise VopError(
            f"{out} holds a study that was started with something else:\n{lines}\n"
            "Go on with what it was started with, or choose another --out"
        )


def arms_of(names: Sequence[str], *, head: str = MEAN, settings: dict | None = None) -> tuple[Arm, ...]:
    """An arm for each method, with those settings that it has, where they are not its defaults.

    "METHOD/HEAD" is an arm with a head of its own.

    Raises:
        UsageError: no such method or head, or no method has one of the settings.
    """
    from vop import heads, methods
    from vop.errors import unknown_name
    from vop.models.model import HEAD_PREFIX

    arms, used, known = [], set(), {}
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
            raise unknown_name("setting of these methods", key, known)
    return tuple(arms)
