"""Counts of things, and untrusted text that is escaped for terminals, spreadsheets and Markdown."""

from __future__ import annotations

import json

import pytest

from vop.utils.text import (
    count,
    first_few,
    in_json,
    in_markdown,
    in_spreadsheet,
    markdown_block,
    on_one_line,
    signed,
    visible,
)

CONTROLS = [
    *map(chr, range(0x09)),
    *map(chr, range(0x0B, 0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *("\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069", "\u200e", "\u200f"),
    *("\u061c", "\u2028", "\u2029", "\ud83d", "\udce9"),
]


@pytest.mark.parametrize(
    ("noun", "number", "text"),
    [
        ("video", 0, "0 videos"),
        ("video", 1, "1 video"),
        ("video", 1234567, "1,234,567 videos"),
        ("empty caption", 2, "2 empty captions"),
        ("epoch", 5, "5 epochs"),
        ("process", 2, "2 processes"),
        ("patch", 2, "2 patches"),
        ("query", 2, "2 queries"),
        ("day", 2, "2 days"),
    ],
)
def test_count_uses_the_plural(noun, number, text):
    assert count(noun, number) == text


@pytest.mark.parametrize("character", CONTROLS, ids=ascii)
def test_control_characters_are_escaped(character):
    shown = visible(f"a{character}b")
    assert shown.isprintable()
    assert character not in shown
    assert shown.startswith("a\\")
    document = in_json(json.dumps({"name": f"a{character}b"}, ensure_ascii=False))
    assert document.isprintable()
    assert json.loads(document) == {"name": f"a{character}b"}


@pytest.mark.parametrize("text", ["a\nb\tc", "naïve 日本語 한글 עברית 👩‍👩‍👧 e\u0301", "[red]", "\\x1b"])
def test_other_text_is_unchanged(text):
    assert visible(text) == text


def test_escapes_show_the_character_code():
    assert visible("\x1b[31m\x9b\u202e\udce9") == "\\x1b[31m\\x9b\\u202e\\xe9"
    assert on_one_line("a\nb\tc") == "a\\nb\\tc"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1 prompt", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_spreadsheet_formulas_are_quoted(text):
    assert in_spreadsheet(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, -0.5, None, "vop-f+p", "", True])
def test_numbers_and_names_are_unchanged_in_spreadsheets(value):
    assert in_spreadsheet(value) is value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("vop-f+p", "vop-f+p"),
        ("vop < vop-p", "vop < vop-p"),
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("a\r\nb", "a\\\\x0d b"),
        ("`x`", "\\`x\\`"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[a](javascript:b)", "\\[a\\](javascript:b)"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("AT&T", "AT&T"),
        ("**bold**", "\\*\\*bold\\*\\*"),
    ],
)
def test_markdown_syntax_is_escaped(text, written):
    assert in_markdown(text) == written


def test_a_code_block_may_contain_backticks():
    block = markdown_block("vop train --data '```\n# x'", "sh").splitlines()
    assert (block[0], block[-1], block[1:-1]) == ("````sh", "````", ["vop train --data '```", "# x'"])


def test_signed_numbers():
    assert [signed(number) for number in (1.25, -3, 0.04, -0.04)] == ["+1.2", "-3.0", "0.0", "0.0"]


def test_long_lists_are_shortened():
    lines = [f"line {n}\n" for n in range(1_000)]
    assert first_few(lines[:5]) == [f"  line {n}\\n" for n in range(5)]
    assert first_few(lines, most=2, indent="- ") == ["- line 0\\n", "- line 1\\n", "- and 998 more"]
