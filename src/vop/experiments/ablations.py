"""The paper's ablations (section 4.3) as named studies: each a few arms that differ in one thing.

All arms of a study train with the learning rate that is searched for the default setting of its method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vop.backbones.clip.config import ClipSizes
from vop.errors import unknown_name
from vop.experiments.plan import Arm

LENGTHS = (4, 8, 12, 16, 20)  # Figure 5
SPECIFIC = (1, 2, 4, 6, 8)  # of 8


def arms(study: str, sizes: ClipSizes, *, settings: dict) -> tuple[Arm, ...]:
    """The arms of a study on a backbone of `sizes`; `settings` (the number of frames) hold for all of them.

    Raises:
        UsageError: no such study.
    """
    if study not in ABLATIONS:
        raise unknown_name("study", study, ABLATIONS)
    built = ABLATIONS[study](sizes)
    default = next(arm.name for arm in built if arm.rate_of is None)
    return tuple(
        replace(arm, settings=settings | arm.settings, rate_of=None if arm.name == default else arm.rate_of or default)
        for arm in built
    )


def _towers(sizes: ClipSizes) -> list[Arm]:
    return [
        Arm(name="both towers", method="vop"),
        Arm(name="visual prompts only", method="vop", settings={"text_layers": []}, rate_of="both towers"),
        Arm(name="text prompts only", method="vop", settings={"visual_layers": []}, rate_of="both towers"),
    ]


def _depth(sizes: ClipSizes) -> list[Arm]:
    """The lowest layer, and a quarter, half, three quarters of each tower (the paper's 1, 3, 6, 9, 12 of 12)."""
    built = [Arm(name="all layers", method="vop", x=float(sizes.vision.layers))]
    shares = dict.fromkeys(
        max(1, round(sizes.vision.layers * part)) for part in (1 / sizes.vision.layers, 1 / 4, 1 / 2, 3 / 4)
    )
    for visual in shares:
        text = max(1, round(sizes.text.layers * visual / sizes.vision.layers))
        layers = {"visual_layers": list(range(1, visual + 1)), "text_layers": list(range(1, text + 1))}
        name = f"layers 1-{visual}" if visual > 1 else "layer 1"
        built.append(Arm(name=name, method="vop", settings=layers, x=float(visual), rate_of="all layers"))
    return sorted(built, key=lambda arm: arm.x)


def _length(sizes: ClipSizes) -> list[Arm]:
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


def _specific_length(sizes: ClipSizes) -> list[Arm]:
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


def _cmm(sizes: ClipSizes) -> list[Arm]:
    others = [
        Arm(name=kind, method="vop-c", settings={"cmm": kind}, rate_of="bilstm") for kind in ("lstm", "transformer")
    ]
    return [Arm(name="bilstm", method="vop-c"), *others]


def _cmm_role(sizes: ClipSizes) -> list[Arm]:
    replaces = Arm(name="replaces [CLS]", method="vop-c", settings={"cmm_role": "replace"}, rate_of="makes prompts")
    return [Arm(name="makes prompts", method="vop-c"), replaces]


def _split_layer(sizes: ClipSizes) -> list[Arm]:
    """Six steps over the tower and its ends; the default is two thirds of it."""
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


ABLATIONS: dict[str, Callable[[ClipSizes], list[Arm]]] = {
    "towers": _towers,
    "depth": _depth,
    "length": _length,
    "specific-length": _specific_length,
    "cmm": _cmm,
    "cmm-role": _cmm_role,
    "split-layer": _split_layer,
}
