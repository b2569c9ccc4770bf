"""The command, the API and the documentation have exactly the filters of `FILTERS`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from vop import Library
from vop.cli.search import add_parser
from vop.search.filters import FILTERS, FilterOption, Filters
from vop.server.app import create_app

DOCS = Path(__file__).resolve().parents[2] / "docs" / "finding.md"
NOT_FILTERS = {
    "words",
    "view",
    "k",
    "q",
    "w",
    "order",
    "per_video",
    "min_confidence",
    "copies",
}  # the other parameters of a search


def test_the_list_has_every_filter():
    assert [option.name for option in FILTERS] == [*Filters.__dataclass_fields__]
    assert [option.name for option in FILTERS if option.type is float] == ["min_seconds", "max_seconds"]
    assert [option.name for option in FILTERS if option.type is bool] == ["favourites"]
    assert [option.name for option in FILTERS if option.repeatable] == ["where", "tag"]
    assert all(option.help.endswith(".") and option.label and option.placeholder for option in FILTERS)


def test_the_command_has_an_option_for_each_filter():
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    search = parser._subparsers._group_actions[0].choices["search"]
    (group,) = (group for group in search._action_groups if group.title == "filters")
    shown = [(action.option_strings, action.metavar, action.type, action.help) for action in group._group_actions]
    types = {option.name: None if option.type is bool else option.type for option in FILTERS}  # a switch has none
    assert shown == [([option.option], option.metavar, types[option.name], option.help) for option in FILTERS]
    assert search.parse_args(["library", "a dog", "--where", "a=1", "--where", "b=2"]).where == ["a=1", "b=2"]


@pytest.fixture(scope="module")
def parameters(tiny_folder, tmp_path_factory) -> dict[str, dict]:
    """The parameters of a search in the API, by name."""
    library = Library.create(tmp_path_factory.mktemp("api") / "library", model=str(tiny_folder), num_frames=2)
    document = create_app([library.path]).openapi()
    listed = document["paths"]["/api/views/{view}/search"]["get"]["parameters"]
    return {parameter["name"]: parameter for parameter in listed}


def test_the_api_has_a_parameter_for_each_filter(parameters):
    assert parameters.keys() - NOT_FILTERS == {option.name for option in FILTERS}


@pytest.mark.parametrize("option", FILTERS, ids=lambda option: option.name)
def test_parameters_of_the_api_have_the_types_of_the_filters(parameters, option: FilterOption):
    schema = parameters[option.name]["schema"]
    assert not parameters[option.name]["required"]
    if option.repeatable:
        assert (schema["type"], schema["items"]["type"]) == ("array", "string")
    else:
        wanted = {float: "number", bool: "boolean", str: "string"}
        assert {kind["type"] for kind in schema["anyOf"]} == {wanted[option.type], "null"}


def test_the_documentation_lists_each_filter():
    rows = re.findall(r"^\| `(--[^`]*)` \| `([^`]*)` \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        (" ".join(filter(None, [option.option, option.metavar])), option.name, option.help) for option in FILTERS
    ]
