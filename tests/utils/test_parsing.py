"""JSON and YAML that would take too long or too much memory are refused at once."""

from __future__ import annotations

import json

import pytest

from vop.errors import VopError
from vop.utils import parsing
from vop.utils.parsing import MAX_CONFIG_BYTES, MAX_YAML_BYTES, parse_json, parse_yaml, read_json_object

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: 1, l: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "more than 20,000 values"),
        (MERGES, "more than 20,000 values"),
        ("a: &a [*a]", "more than 20,000 values"),
        ("[" * 2_000, "nested too deeply"),
        ("x" * (MAX_YAML_BYTES + 1), "200,001 characters"),
        ("a: 2026-13-45", "month must be in 1..12"),
        ("a: " + "1" * 5000, "4300 digits"),
        ("a: [1", "expected ',' or ']'"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_malformed_or_huge_yaml_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_yaml(text)


def test_yaml_with_too_many_values_is_refused(monkeypatch):
    monkeypatch.setattr(parsing, "MAX_YAML_VALUES", 100)
    assert parse_yaml("- 1\n" * 99) == [1] * 99  # the list is a value too
    with pytest.raises(ValueError, match="more than 100 values"):
        parse_yaml("- 1\n" * 100)


def test_yaml_anchors_and_merges_are_resolved():
    assert parse_yaml("a: &x {k: [1, 2]}\nb: {<<: *x, l: 3}\nc: *x") == {
        "a": {"k": [1, 2]},
        "b": {"k": [1, 2], "l": 3},
        "c": {"k": [1, 2]},
    }
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("1" * 5000, "4300 digits"),
        (b"\xff\xfe", "not UTF-8|not JSON"),
        ('{"a": 1,\n}', "line 2: this is not JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' 2 times"),
    ],
)
def test_malformed_json_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_json(text)


def test_only_json_objects_of_limited_size_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json_object(path, remedy="fetch it again") == {"a": 1}
    path.write_text("[1]")
    with pytest.raises(VopError, match=r"config\.json.* list.*fetch it again"):
        read_json_object(path, remedy="fetch it again")
    with path.open("wb") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    with pytest.raises(VopError, match=r"config\.json.* 4,194,305 .* 4,194,304 "):
        read_json_object(path, remedy="fetch it again")
