"""Captions for single pictures of the built-in world.

Every fact has several wordings. The words of video captions ("moves to the left", "gets big", "then") also occur here,
where they describe a picture of the last moment of the movement: a backbone can only distinguish facts whose words it
has learned.
"""

from __future__ import annotations

from random import Random

from vop.benchmarks.artwork import CONCEPTS

POSITIONS = (
    "left", "right", "top", "bottom", "middle", "top left", "top right", "bottom left", "bottom right",
)  # fmt: skip
SIZES = ("small", "big")
COUNTS = ("one", "two", "three")
CLARITIES = ("faint", "clear")
TURNS = ("upside down", "upright")
RELATIONS = ("left", "above")  # of the first thing to the second; "right" and "below" swap the things

_PLACES = {
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
    "top": ("at the top", "up at the top", "up", "on the top side"),
    "bottom": ("at the bottom", "down at the bottom", "down", "on the bottom side"),
    "middle": ("in the middle", "in the centre"),
}
_MOVES = {
    "left": ("moves left", "moves to the left", "goes to the left"),
    "right": ("moves right", "moves to the right", "goes to the right"),
    "top": ("moves up", "moves to the top", "goes up"),
    "bottom": ("moves down", "moves to the bottom", "goes down"),
}
_ADJECTIVES = {
    "small": ("small", "small", "little", "tiny"),
    "big": ("big", "big", "large", "huge"),
    "faint": ("faint", "faint", "pale"),
    "clear": ("clear", "clear", "solid"),
    "upside down": ("upside down", "upside down", "turned over"),
    "upright": ("upright", "upright", "standing"),
}
_CHANGES = {
    "small": ("gets small", "becomes small", "shrinks"),
    "big": ("gets big", "becomes big", "grows"),
    "faint": ("gets faint", "disappears", "fades away"),
    "clear": ("gets clear", "appears", "shows up"),
    "upside down": ("turns upside down", "turns over"),
    "upright": ("turns upright", "stands up"),
}
_LEADS = ("", "", "", "a picture of ", "there is ", "we see ", "here is ")
_BACKGROUNDS = (" on a {} background", " on {}", " in front of {}", ", {} background", ", all {} behind")
_IRREGULAR = {
    "mouse": "mice", "wolf": "wolves", "sheep": "sheep", "fish": "fish", "tropical fish": "tropical fish",
    "blowfish": "blowfish", "tooth": "teeth", "deer": "deer", "squid": "squid", "die": "dice", "goose": "geese",
}  # fmt: skip


def article(words: str) -> str:
    """Return `words` with the indefinite article."""
    exceptions = ("unicorn", "upright"), ("hour",)
    vowel = (words[0] in "aeiou" and not words.startswith(exceptions[0][:1])) or words.startswith(exceptions[1])
    return f"{'an' if vowel else 'a'} {words}"


def plural(name: str) -> str:
    """Return the plural of a concept's name."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def thing(concept: int, *adjectives: str) -> str:
    """Return the concept with its article and adjectives, such as "a big cat"."""
    return article(" ".join((*adjectives, CONCEPTS[concept])))


def adjective(fact: str, rng: Random) -> str:
    """Return one of the adjectives for a size, a clarity or a turn."""
    return rng.choice(_ADJECTIVES[fact])


def change(fact: str, rng: Random) -> str:
    """Return one of the wordings of becoming small, big, faint, clear, upside down or upright."""
    return rng.choice(_CHANGES[fact])


def move(position: str, rng: Random) -> str:
    """Return one of the wordings of moving to the left, right, top or bottom."""
    return rng.choice(_MOVES[position])


def place(position: str, rng: Random) -> str:
    """Return one of the wordings of a position in the picture."""
    if position in _PLACES:
        return rng.choice(_PLACES[position])
    return rng.choice((f"in the {position} corner", f"at the {position}"))


def behind(colour: str | None, rng: Random) -> str:
    """Return the end of a caption, which describes the background; an empty string for None."""
    return rng.choice(_BACKGROUNDS).format(colour) if colour else ""


def say_position(concept: int, position: str, rng: Random) -> str:
    """Return a sentence on a thing and its position."""
    if position in _MOVES and rng.random() < 0.2:
        return f"{thing(concept)} {move(position, rng)}"
    where, what = place(position, rng), thing(concept)
    lead = rng.choice(_LEADS)
    return rng.choice((f"{lead}{what} {where}", f"{what} is {where}", f"{where}, {what}", f"{where} there is {what}"))


def say_state(concept: int, fact: str, rng: Random) -> str:
    """Return a sentence on a thing and its size, clarity or turn."""
    if rng.random() < 0.25:
        return f"{thing(concept)} {change(fact, rng)}"
    word = adjective(fact, rng)
    return rng.choice((f"{rng.choice(_LEADS)}{thing(concept, word)}", f"{thing(concept)} is {word}"))


def say_count(concept: int, count: str, rng: Random) -> str:
    """Return a sentence that counts things of one kind."""
    name = CONCEPTS[concept]
    words = f"{count} {name if count == 'one' else plural(name)}"
    return rng.choice(("", "", "a picture of ", "we see ", "here are " if count != "one" else "here is ")) + words


def say_relation(first: int, second: int, relation: str, rng: Random) -> str:
    """Return a sentence on two things; `first` is left of, or above, `second`."""
    a, b = thing(first), thing(second)
    ways: tuple[str, ...]
    if relation == "left":
        ways = (
            f"{a} left of {b}", f"{a} to the left of {b}", f"{b} right of {a}", f"{b} to the right of {a}",
            f"{a} on the left and {b} on the right", f"{b} on the right and {a} on the left",
            f"first {a}, then {b}", f"{a} and then {b}", f"{a} then {b}",
        )  # fmt: skip
    else:
        ways = (
            f"{a} above {b}", f"{a} over {b}", f"{b} below {a}", f"{b} under {a}",
            f"{a} at the top and {b} at the bottom", f"{b} at the bottom and {a} at the top",
        )  # fmt: skip
    return rng.choice(("", "", "we see ", "there is ")) + rng.choice(ways)


def say_sizes(big: int, small: int, rng: Random) -> str:
    """Return a sentence on two things of different sizes."""
    a, b = thing(big, adjective("big", rng)), thing(small, adjective("small", rng))
    if rng.random() < 0.5:
        a, b = b, a
    return rng.choice(_LEADS) + rng.choice((f"{a} and {b}", f"{a} with {b}", f"{a} while there is {b}"))


def say_list(concepts: list[int], rng: Random) -> str:
    """Return a sentence on one to three different things, in any order."""
    words = [thing(c) for c in rng.sample(concepts, len(concepts))]
    lead = rng.choice(_LEADS)
    if len(words) == 1:
        return lead + words[0]
    joint = rng.choice((" and ", " with ", " and ")) if len(words) == 2 else " and "
    return lead + ", ".join(words[:-1]) + joint + words[-1]


def say_empty(rng: Random) -> str:
    """Return a sentence on a picture without things."""
    return rng.choice(("nothing", "an empty picture", "there is nothing", "only an empty background"))
