"""Options stand before, between and after the positional arguments, in every command."""

from __future__ import annotations

import argparse
import re
from itertools import chain

import pytest

from vop.cli import build_parser
from vop.cli.common import named_numbers, seconds, whole_numbers

HELP = ("-h", "--help")


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()):
    """(words of the command, its parser) of every command and group, the program itself first."""
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from parsers(child, (*words, name))


PARSER = build_parser()
PARSERS = dict(parsers(PARSER))
COMMANDS = {words: parser for words, parser in PARSERS.items() if parser._subparsers is None}


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings and "-h" not in action.option_strings]


def sample(action: argparse.Action) -> str:
    if action.choices:
        return next(choice for choice in action.choices if choice != action.default)
    samples = {int: "3", float: "-0.5", seconds: "1:02.5", whole_numbers: "3,4", named_numbers: "a=0.5,b.*=2"}
    return samples.get(action.type, "value")


def written(action: argparse.Action, name: str) -> list[list[str]]:
    """Every way to write an option, except abbreviations."""
    count = {None: 1, "?": 1}.get(action.nargs, action.nargs)
    ways = [[name, *[sample(action)] * count]]
    if action.nargs == "?":
        ways.append([name])
    if count == 1 and name.startswith("--"):
        ways.append([f"{name}={sample(action)}"])
    return ways


def call(parser: argparse.ArgumentParser) -> list[list[str]]:
    """A valid call with required options only, in parts that stay together. Lists have two words."""
    parts = []
    for number, action in enumerate(parser._get_positional_actions()):
        parts += [[f"word {number}"]] if action.nargs in (None, "?") else [[f"one {number}"], [f"- two {number}"]]
    return parts + [[action.option_strings[0], "given"] for action in options(parser) if action.required]


def parsed(command: tuple[str, ...], parts: list[list[str]]) -> argparse.Namespace:
    return PARSER.parse_args([*command, *chain(*parts)])


def test_all_commands_are_covered():
    assert {" ".join(command) for command in COMMANDS} == {
        *(
            "demo",
            "params",
            "backbones",
            "data check",
            "data cache",
            "train",
            "evaluate",
            "compare",
            "ablate",
            "index",
            "search",
        ),
        *("library info", "library failures", "library forget", "library reembed", "library check"),
        *("library duplicates", "library export", "library folders", "library list", "library tree", "mcp"),
        *("library tag", "library tags", "library favourite"),
        *("library exclude", "library restore", "library publish", "serve", "import openai", "import modelscope"),
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_option_can_stand_anywhere(command):
    parser = COMMANDS[command]
    for action in options(parser):
        parts = [part for part in call(parser) if part[0] not in action.option_strings]
        for way in chain.from_iterable(written(action, name) for name in action.option_strings):
            expected = parsed(command, [*parts, way])
            assert getattr(expected, action.dest) != action.default
            for place in range(len(parts)):
                words = [*parts[:place], way, *parts[place:]]
                assert parsed(command, words) == expected, words


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_all_options_can_stand_before_or_after(command):
    parser = COMMANDS[command]
    exclusive = set(chain.from_iterable(group._group_actions[1:] for group in parser._mutually_exclusive_groups))
    given = [written(action, action.option_strings[-1])[0] for action in options(parser) if action not in exclusive]
    positional = [part for part in call(parser) if not part[0].startswith("--")]
    behind = parsed(command, [*positional, *given])
    assert parsed(command, [*given, *positional]) == behind
    mixed = [part for pair in zip(given, [*positional, *[[]] * len(given)], strict=False) for part in pair]
    assert len(given) < len(positional) or parsed(command, mixed) == behind


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        ("--use|2|a koala", ["a koala"]),
        ("a koala|-k|3|a tree", ["a koala", "a tree"]),
        ("-k3|a koala", ["a koala"]),
        ("--fold|X|a koala", ["a koala"]),
        ("--folder=X|a koala", ["a koala"]),
        ("-w|-0.5|a park|a koala", ["a koala"]),
        ("a koala|-w|-1e-3|a park", ["a koala"]),
        ("-k|3|--|-a koala|--use|-k", ["-a koala", "--use", "-k"]),
        ("a koala|--|--json", ["a koala", "--json"]),
        ("- a koala", ["- a koala"]),
        ("-5|-k|3", ["-5"]),
    ],
)
def test_search_words_and_options_can_be_mixed(words, sentences):
    arguments = build_parser().parse_args(["search", "library", *words.split("|")])
    assert (str(arguments.library), arguments.words) == ("library", sentences)


def test_the_library_can_follow_options():
    arguments = build_parser().parse_args(["search", "--json", "-k", "3", "library", "--use", "2", "a koala"])
    assert (str(arguments.library), arguments.words, arguments.k, arguments.use) == ("library", ["a koala"], 3, 2)


@pytest.mark.parametrize(
    ("words", "run", "file"),
    [
        ("--json runs/a --data x.csv", "runs/a", "-"),
        ("--data x.csv --json runs/a", "runs/a", "-"),
        ("runs/a --json --data x.csv", "runs/a", "-"),
        ("--json a.json runs/a --data x.csv", "runs/a", "a.json"),
        ("runs/a --data x.csv --json a.json", "runs/a", "a.json"),
        ("--json=a.json --data x.csv runs/a", "runs/a", "a.json"),
    ],
)
def test_optional_values_do_not_take_the_run(words, run, file):
    arguments = build_parser().parse_args(["evaluate", *words.split()])
    assert (arguments.model, arguments.json) == (run, file)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("search library dog --whre x", "unrecognized arguments: --whre"),
        ("search library dog --m x", "ambiguous option: --m could match"),
        ("search library -k", "argument -k: expected one argument"),
        ("search library dog -w 0.5", "argument -w/--weighted: expected 2 arguments"),
        ("search", "the following arguments are required: LIBRARY"),
        ("search library dog -k many", "argument -k: invalid int value: 'many'"),
        ("index", "the following arguments are required: LIBRARY"),
        ("data check a.csv b.csv", "unrecognized arguments: b.csv"),
        ("serve library --token a --no-token", "not allowed with argument"),
        ("search library \x1b[31mdog --\x1b]0;x", "unrecognized arguments: --\\x1b]0;x"),
    ],
)
def test_usage_errors_match_argparse(capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(words.split())
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert "\x1b" not in err


@pytest.mark.parametrize("words", PARSERS, ids=" ".join)
def test_every_command_and_group_describes_itself(words):
    description = PARSERS[words].description
    sentences = re.split(r"(?<=[.?])\s+(?=[A-Z`])", description)
    assert 1 <= len(sentences) <= 2
    assert all(re.fullmatch(r"[A-Z`].{20,}\.", sentence) for sentence in sentences)
    assert "".join(description.split()) in "".join(PARSERS[words].format_help().split())
