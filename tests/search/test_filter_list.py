"""The command, the API and the documentation have the filters of the one list, and no others."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from vop import Library
from vop.cli.search import add_parser
from vop.search.filters import FILTERS, FilterOption, Filters
from vop.server.app import create_app

DOCS = Path(__file__).resolve().parents[2] / "docs" / "search.md"
NOT_FILTERS = {"view", "k", "q", "w"}  # parameters of a search that say what is asked for


def test_the_list_is_what_a_search_takes():
    assert [option.name for option in FILTERS] == [*Filters.__dataclass_fields__]
    assert [option.name for option in FILTERS if option.type is float] == ["min_seconds", "max_seconds"]
    assert [option.name for option in FILTERS if option.repeatable] == ["where"]
    assert all(option.help.endswith(".") and option.label and option.placeholder for option in FILTERS)


def test_options_of_the_command():
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    search = parser._subparsers._group_actions[0].choices["search"]
    (group,) = (group for group in search._action_groups if group.title == "filters")
    shown = [(action.option_strings, action.metavar, action.type, action.help) for action in group._group_actions]
    assert shown == [([option.option], option.metavar, option.type, option.help) for option in FILTERS]
    assert search.parse_args(["library", "a dog", "--where", "a=1", "--where", "b=2"]).where == ["a=1", "b=2"]


@pytest.fixture(scope="module")
def parameters(tiny_folder, tmp_path_factory) -> dict[str, dict]:
    """What the API takes at a search, by name."""
    library = Library.create(tmp_path_factory.mktemp("api") / "library", model=str(tiny_folder), num_frames=2)
    document = create_app([library.path]).openapi()
    listed = document["paths"]["/api/views/{view}/search"]["get"]["parameters"]
    return {parameter["name"]: parameter for parameter in listed}


def test_parameters_of_the_api(parameters):
    assert parameters.keys() - NOT_FILTERS == {option.name for option in FILTERS}


@pytest.mark.parametrize("option", FILTERS, ids=lambda option: option.name)
def test_a_parameter_of_the_api(parameters, option: FilterOption):
    said = parameters[option.name]["schema"]
    assert not parameters[option.name]["required"]
    if option.repeatable:
        assert (said["type"], said["items"]["type"]) == ("array", "string")
    else:
        wanted = "number" if option.type is float else "string"
        assert {kind["type"] for kind in said["anyOf"]} == {wanted, "null"}


def test_the_table_of_the_documentation():
    rows = re.findall(r"^\| `(--[^`]*)` \| `([^`]*)` \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(f"{option.option} {option.metavar}", option.name, option.help) for option in FILTERS]
