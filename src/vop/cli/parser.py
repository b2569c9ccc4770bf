"""A parser that takes options before, between and after the positional arguments."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import IO

from vop.utils.text import visible

_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


class Parser(argparse.ArgumentParser):
    """`argparse` fills a list of positional arguments from the first place that has any; this one from all places."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = _NUMBER  # argparse's own does not know -1e-3

    def parse_known_args(self, args=None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # its own arguments follow the name of a command
            words = _in_order(self, words)
        return super().parse_known_args(words, namespace)

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:
        super()._print_message(visible(message), file)  # it holds what was typed


def _in_order(parser: Parser, words: list[str]) -> list[str]:
    """The words with the positional ones side by side; unchanged where one of them is not understood."""
    needed = sum(_at_least(action) for action in parser._get_positional_actions())
    try:
        positional, options = _split(parser, words)
        if len(positional) < needed:  # an option whose value may be missing has taken one: --json RUN
            positional, options = _split(parser, words, generous=False)
    except LookupError:
        return words
    if any(word.startswith("-") for word in positional):
        return [*options, "--", *positional]
    return [*positional, *options]  # in front, because `*` takes nothing if an option comes first


def _at_least(positional: argparse.Action) -> int:
    """How many words a positional argument needs."""
    if positional.nargs is None or positional.nargs == "+":
        return 1
    return positional.nargs if isinstance(positional.nargs, int) else 0


def _split(parser: Parser, words: list[str], *, generous: bool = True) -> tuple[list[str], list[str]]:
    """Positional words, and options with their values.

    Args:
        generous: whether an option whose value may be missing takes the next word.

    Raises:
        LookupError: there is no such option.
    """
    positional, options, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*positional, *rest], options
        if not _is_option(parser, word):
            positional.append(word)
            continue
        options.append(word)
        for _ in range(_most_values(parser, word, generous=generous)):
            if not rest or rest[0] == "--" or _is_option(parser, rest[0]):
                break
            options.append(rest.pop(0))
    return positional, options


def _is_option(parser: Parser, word: str) -> bool:
    """As argparse has it: a negative number is none, nor a sentence that begins with a dash."""
    if not word.startswith("-") or word == "-":
        return False
    name = word.partition("=")[0]
    return bool(_matching(parser, name)) or not (_NUMBER.match(word) or " " in word)


def _matching(parser: Parser, name: str) -> list[argparse.Action]:
    """The options of this name, or of which it is an abbreviation."""
    known = parser._option_string_actions
    if name in known:
        return [known[name]]
    if name.startswith("--"):
        return [action for option, action in known.items() if option.startswith(name)]
    return [known[name[:2]]] if name[:2] in known else []


def _most_values(parser: Parser, word: str, *, generous: bool) -> int:
    """How many of the next words may be an option's values."""
    name, equals, _ = word.partition("=")
    (action,) = _only(_matching(parser, name))
    if equals or (name not in parser._option_string_actions and not name.startswith("--")):  # -k5
        return 0
    if action.nargs == "?":
        return int(generous)
    return 1 if action.nargs is None else int(action.nargs)


def _only(found: Sequence[argparse.Action]) -> Sequence[argparse.Action]:
    if len(found) != 1:
        raise LookupError
    return found
