"""A parser that takes options before, between and after the positional arguments, and `--debug` everywhere."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vop.utils.text import visible

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


class ReplacedBy(argparse.Action):
    """Stores one positional argument, which is needed unless an option takes its place."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, option: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs="?", **kwargs)
        self.option = option

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Collects positional arguments from everywhere, where `argparse` stops after the first group of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = _NUMBER  # argparse's own does not know -1e-3
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # a command's own default would undo `vop --debug COMMAND`
            help="Log every step, and show the traceback of an error.",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # otherwise its own arguments follow the name of a command
            words = _in_order(self, words)
        return super().parse_known_args(words, namespace)

    def _get_formatter(self) -> argparse.HelpFormatter:
        formatter = super()._get_formatter()
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # argparse forgets that these names are indented
                formatter._action_max_length = 4 + max(map(len, action.choices), default=0)
        return formatter

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        super()._print_message(visible(message), file)  # the message repeats the user's input


def _in_order(parser: Parser, words: list[str]) -> list[str]:
    """Moves the positional words together. Returns the words unchanged if an option among them is unknown."""
    needed = sum(_at_least(action, words) for action in parser._get_positional_actions())
    try:
        positional, options = _split(parser, words)
        if len(positional) < needed:  # an option with an optional value has taken one of them: --json RUN
            positional, options = _split(parser, words, generous=False)
    except LookupError:
        return words
    if any(word.startswith("-") for word in positional):
        return [*options, "--", *positional]
    return [*positional, *options]  # in front, because `*` takes nothing if an option comes first


def _at_least(positional: argparse.Action, words: Sequence[str]) -> int:
    """Returns the minimum number of words of a positional argument."""
    if isinstance(positional, ReplacedBy):
        return int(not any(word.partition("=")[0] == positional.option for word in words))
    if positional.nargs is None or positional.nargs == "+":
        return 1
    return positional.nargs if isinstance(positional.nargs, int) else 0


def _split(parser: Parser, words: list[str], *, generous: bool = True) -> tuple[list[str], list[str]]:
    """Splits the words into positional words, and options with their values.

    Args:
        generous: whether an option with an optional value takes the next word.

    Raises:
        LookupError: an option is unknown or ambiguous.
    """
    positional: list[str] = []
    options: list[str] = []
    rest = list(words)
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
    """Returns whether a word is an option, as in argparse: a negative number or a sentence with a dash is not."""
    if not word.startswith("-") or word == "-":
        return False
    name = word.partition("=")[0]
    return bool(_matching(parser, name)) or not (_NUMBER.match(word) or " " in word)


def _matching(parser: Parser, name: str) -> list[argparse.Action]:
    """Returns the options with this name, or those that the name abbreviates."""
    known = parser._option_string_actions
    if name in known:
        return [known[name]]
    if name.startswith("--"):
        return [action for option, action in known.items() if option.startswith(name)]
    return [known[name[:2]]] if name[:2] in known else []


def _most_values(parser: Parser, word: str, *, generous: bool) -> int:
    """Returns how many of the following words may be values of the option."""
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
