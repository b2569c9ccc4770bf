"""Pictures of the built-in world: one to three stickers on a background, drawn by NumPy at any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

import numpy as np

from vop.benchmarks import captions
from vop.benchmarks.artwork import CONCEPTS, Atlas

COLOURS = {
    "red": (0.82, 0.16, 0.16), "orange": (0.95, 0.55, 0.12), "yellow": (0.95, 0.88, 0.25),
    "green": (0.22, 0.62, 0.26), "blue": (0.18, 0.36, 0.82), "purple": (0.52, 0.24, 0.68),
    "pink": (0.96, 0.62, 0.76), "brown": (0.46, 0.30, 0.17), "gray": (0.52, 0.52, 0.52),
    "white": (0.96, 0.96, 0.96), "black": (0.07, 0.07, 0.07),
}  # fmt: skip
_COLOUR_NAMES = tuple(COLOURS)
_CENTRES = {
    "left": (0.23, 0.5), "right": (0.77, 0.5), "top": (0.5, 0.23), "bottom": (0.5, 0.77), "middle": (0.5, 0.5),
    "top left": (0.23, 0.23), "top right": (0.77, 0.23), "bottom left": (0.23, 0.77), "bottom right": (0.77, 0.77),
}  # fmt: skip
_SIZE_RANGES = {"small": (0.25, 0.31), "any": (0.36, 0.48), "big": (0.60, 0.76)}
_TEXTURES = 128


@dataclass(frozen=True)
class Sticker:
    """A drawing in a picture: its centre and side as fractions of the picture's side."""

    concept: int
    x: float
    y: float
    size: float
    opacity: float = 1.0
    angle: float = 0.0  # degrees, anticlockwise


@dataclass(frozen=True)
class Background:
    """A texture that blends from `colour` to `shade`; both are RGB in 0..1."""

    colour: tuple[float, float, float]
    shade: tuple[float, float, float]
    texture: int = 0


@dataclass(frozen=True)
class Example:
    """A picture, its caption, and the facts that the caption states (see `FACTS`) for checks and auxiliary losses."""

    stickers: tuple[Sticker, ...]
    background: Background
    caption: str
    facts: dict[str, int] = field(default_factory=dict)


# Facts that a caption may state, with the number of values. The values of the last six are concepts.
FACTS = {
    "position": len(captions.POSITIONS), "size": 2, "count": 3, "clarity": 2, "turn": 2, "background": len(COLOURS),
    "left": len(CONCEPTS), "right": len(CONCEPTS), "above": len(CONCEPTS), "below": len(CONCEPTS),
    "bigger": len(CONCEPTS), "smaller": len(CONCEPTS),
}  # fmt: skip


def is_held_out(first: int, second: int) -> bool:
    """Return whether two concepts never appear together in training pictures, so that pairs of them are new."""
    low, high = min(first, second), max(first, second)
    return (low * 31 + high * 17) % 16 == 0


def any_held_out(concepts: list[int]) -> bool:
    """Return whether any two of the concepts are a held-out pair."""
    return any(is_held_out(a, b) for i, a in enumerate(concepts) for b in concepts[i + 1 :])


def render(stickers: tuple[Sticker, ...], background: Background, atlas: Atlas, pixels: int) -> np.ndarray:
    """Draw a picture: float32 (pixels, pixels, 3) in 0..1."""
    colour = np.asarray(background.colour, np.float32)
    shade = np.asarray(background.shade, np.float32)
    canvas: np.ndarray = colour + (shade - colour) * textures(pixels)[background.texture]
    for sticker in stickers:
        paste(canvas, sticker, atlas)
    return canvas


def paste(canvas: np.ndarray, sticker: Sticker, atlas: Atlas) -> None:
    """Blend a sticker into a float canvas (side, side, 3), in place, clipped to the canvas."""
    pixels = canvas.shape[0]
    drawing = _turned(atlas.drawing(sticker.concept, max(2, round(sticker.size * pixels))), sticker.angle)
    side = drawing.shape[0]
    left, top = round(sticker.x * pixels - side / 2), round(sticker.y * pixels - side / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, pixels), min(top + side, pixels)
    if x0 >= x1 or y0 >= y1:
        return
    part = drawing[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    if sticker.opacity < 1:
        part = part * np.float32(sticker.opacity)
    region *= 1 - part[..., 3:]
    region += part[..., :3]


def _turned(drawing: np.ndarray, angle: float) -> np.ndarray:
    if angle % 180 == 0:
        return drawing[::-1, ::-1] if angle % 360 else drawing
    from PIL import Image

    room = round(drawing.shape[0] * 0.21)  # for the corners
    padded = np.pad(drawing, ((room, room), (room, room), (0, 0)))
    image = Image.fromarray((padded * 255).round().astype(np.uint8))
    return np.asarray(image.rotate(angle, Image.Resampling.BILINEAR), np.float32) / 255


@lru_cache(maxsize=4)
def textures(pixels: int) -> np.ndarray:
    """Return a fixed bank of textures, float32 (128, pixels, pixels, 1) in 0..1: plain, gradients, stripes, blobs."""
    rng = np.random.default_rng(1)
    y, x = np.meshgrid(*[np.linspace(-1, 1, pixels)] * 2, indexing="ij")
    bank = np.zeros((_TEXTURES, pixels, pixels))
    for i in range(32, _TEXTURES):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        along = x * np.cos(angle) + y * np.sin(angle)
        if i < 72:
            bank[i] = 0.5 + along / (2 * np.sqrt(2))
        elif i < 96:
            bank[i] = 0.5 + 0.5 * np.sin(along * rng.uniform(4, 16) + phase)
        else:
            bank[i] = _blobs(rng, x, y)
    return bank[..., None].astype(np.float32)


def _blobs(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    waves = rng.normal(0, 5, (8, 2)), rng.uniform(0, 2 * np.pi, 8)
    total: np.ndarray = sum(np.sin(a * x + b * y + phase) for (a, b), phase in zip(*waves, strict=True))
    blobs: np.ndarray = (total - total.min()) / (total.max() - total.min())
    return blobs


def any_background(rng: Random) -> Background:
    """Return a random background, for captions that do not mention it."""
    if rng.random() < 0.5:
        return named_background(rng.choice(_COLOUR_NAMES), rng)
    first = rng.random(), rng.random(), rng.random()
    return Background(first, (rng.random(), rng.random(), rng.random()), rng.randrange(_TEXTURES))


def named_background(colour: str, rng: Random) -> Background:
    """Return a background of one colour, with a little jitter and a texture towards a lighter or darker shade."""
    red, green, blue = (min(1.0, max(0.0, c + rng.uniform(-0.05, 0.05))) for c in COLOURS[colour])
    target, strength = rng.choice((0.0, 1.0)), rng.uniform(0.05, 0.22)
    shade = tuple(c + (target - c) * strength for c in (red, green, blue))
    return Background((red, green, blue), (shade[0], shade[1], shade[2]), rng.randrange(_TEXTURES))


def pick_concepts(count: int, rng: Random, *, held_out: bool = False) -> list[int]:
    """Return `count` different concepts. With `held_out`, at least one pair of them is held out, otherwise none."""
    while True:
        chosen = rng.sample(range(len(CONCEPTS)), count)
        if any_held_out(chosen) == held_out:
            return chosen


def _near(value: float, rng: Random, jitter: float = 0.05) -> float:
    return value + rng.uniform(-jitter, jitter)


def _side(size: str, rng: Random) -> float:
    return rng.uniform(*_SIZE_RANGES[size])


def single(concept: int, rng: Random, *, size: str = "any", **more: float) -> Sticker:
    """Return one thing anywhere in the picture."""
    room = 0.5 - 0.42 * _SIZE_RANGES[size][1]
    return Sticker(concept, _near(0.5, rng, room), _near(0.5, rng, room), _side(size, rng), **more)


def at_position(concept: int, position: str, rng: Random) -> tuple[Sticker, ...]:
    """Return one thing at a named position."""
    x, y = _CENTRES[position]
    return (Sticker(concept, _near(x, rng), _near(y, rng), rng.uniform(0.30, 0.44)),)


def scattered(concepts: list[int], rng: Random) -> tuple[Sticker, ...]:
    """Return up to four things in different quarters of the picture, in random order."""
    centres = rng.sample([(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)], len(concepts))
    return tuple(
        Sticker(c, _near(x, rng), _near(y, rng), rng.uniform(0.32, 0.44))
        for c, (x, y) in zip(concepts, centres, strict=True)
    )


def related(first: int, second: int, relation: str, rng: Random) -> tuple[Sticker, ...]:
    """Return two things; the first is left of the second, or above it."""
    placed = []
    for concept, along in ((first, 0.25), (second, 0.75)):
        x, y = _near(along, rng, 0.04), _near(0.5, rng, 0.12)
        if relation == "above":
            x, y = y, x
        placed.append(Sticker(concept, x, y, rng.uniform(0.34, 0.46)))
    return tuple(placed)


def unequal(big: int, small: int, rng: Random) -> tuple[Sticker, ...]:
    """Return two things side by side in any direction, one much bigger than the other."""
    sign = rng.choice((-1, 1))
    a = (0.5 - sign * 0.17, _near(0.5, rng, 0.1), rng.uniform(0.54, 0.62))
    b = (0.5 + sign * 0.33, _near(0.5, rng, 0.25), rng.uniform(0.23, 0.28))
    if rng.random() < 0.5:
        a, b = (a[1], a[0], a[2]), (b[1], b[0], b[2])
    return Sticker(big, *a), Sticker(small, *b)
