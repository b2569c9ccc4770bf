"""Compare names of files, folders and columns that Unicode can spell in several ways.

An é is one code point (composed, NFC) or an e followed by an accent (decomposed, NFD). macOS returns decomposed names,
people type composed ones, and Linux treats them as different names. Paths keep the spelling on disk. Names are compared
as `nfc(name)`.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import permutations
from pathlib import Path

# The ranges of characters that NFC replaces, such as the ångström sign by Å, or U+095B by two characters.
_WITH_REPLACED = (range(0x340, 0x2330), range(0xF900, 0xFB50), range(0x2F800, 0x2FA20))
_MOST_REORDERED = 4  # marks on one letter whose order may differ; Vietnamese needs two


def nfc(text: str) -> str:
    """Return a text in Unicode's composed form. Two spellings of a name are equal in this form."""
    return unicodedata.normalize("NFC", text)


def names_in(folder: Path) -> dict[str, list[str]]:
    """Return the sorted names in a folder by their composed form; an empty dictionary if it cannot be read."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        names = []
    found = defaultdict(list)
    for name in names:
        found[nfc(name)].append(name)
    return dict(found)


def existing_path(path: str | Path, *, names_in: Callable[[Path], Mapping[str, Sequence[str]]] = names_in) -> Path:
    """Return the path on disk that equals `path` in some spelling of its names.

    Args:
        names_in: lists a folder. `functools.cache(names_in)` lists each folder only once.

    Returns:
        `path` itself if it exists, or if no spelling of it exists.
    """
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):  # names in ASCII have one spelling
        return path
    found = [Path(path.anchor)]
    for name in path.parts[bool(path.anchor) :]:
        found = [folder / own for folder in found for own in _spelled_in(folder, name, names_in)]
    return found[0] if found else path


def _spelled_in(folder: Path, name: str, names_in: Callable[[Path], Mapping[str, Sequence[str]]]) -> Iterator[str]:
    """Yield the spellings of a name that exist in a folder, the given one first."""
    if os.path.lexists(folder / name):
        yield name
    if not name.isascii():
        yield from (own for own in names_in(folder).get(nfc(name), ()) if own != name)


def letters(text: str) -> list[str]:
    """Split a text in composed form into letters, each with the marks that follow it."""
    found: list[str] = []
    for character in nfc(text):
        if found and unicodedata.category(character).startswith("M"):
            found[-1] += character
        else:
            found.append(character)
    return found


def spellings(letter: str) -> list[str]:
    """Return all spellings of a letter: composed, decomposed, partly composed, and with marks in another order."""
    if letter.isascii():  # names hardly ever contain a kelvin sign instead of a K
        return [letter]
    whole = unicodedata.normalize("NFD", letter)
    base, marks = whole[0], whole[1:]
    found = set()
    for order in permutations(marks) if len(marks) <= _MOST_REORDERED else [tuple(marks)]:
        spelt = base + "".join(order)
        if unicodedata.normalize("NFD", spelt) == whole:
            found |= {one + spelt[end:] for end in range(1, len(spelt) + 1) for one in _as_one(spelt[:end])}
    return sorted(found)


def _as_one(text: str) -> list[str]:
    """Return the single characters that are equal to a text."""
    composed = nfc(text)
    return [composed] * (len(composed) == 1) + _replaced().get(composed, [])


@cache
def _replaced() -> dict[str, list[str]]:
    """Return the characters that NFC replaces, by their replacement."""
    found = defaultdict(list)
    for character in (chr(code) for codes in _WITH_REPLACED for code in codes):
        if nfc(character) != character:
            found[nfc(character)].append(character)
    return dict(found)
