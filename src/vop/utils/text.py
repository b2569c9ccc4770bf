"""Format text for people: counts, and names that are safe for terminals, spreadsheets and pages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

# Control characters except the tab and the newline, invisible marks that change the direction of text, line separators
# that terminals do not know, and surrogates (bytes of a name that is not valid UTF-8).
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # also full width, which spreadsheets accept
_TAG = re.compile(r"<(?! )|>|&(?=#?\w+;)")  # a "<" before a space begins no tag
_MARKUP = re.compile(r"[\\`*_\[\]|~]")


def count(noun: str, number: int) -> str:
    """Return a number with its noun: `count("video", 1)` is "1 video", `count("video", 1200)` is "1,200 videos"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The regular plural of a noun: videos, processes, queries."""
    if re.search(r"(s|x|sh|[^o]ch)$", noun):
        return f"{noun}es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", noun) + "s"


def signed(number: float) -> str:
    """A number with one digit and its sign; one that rounds to nothing has none."""
    text = f"{number:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def first_few(lines: Iterable[str], *, most: int = 5, indent: str = "  ") -> list[str]:
    """Return the first lines, each on one line, and the number of further ones."""
    lines = list(lines)
    shown = [f"{indent}{on_one_line(line)}" for line in lines[:most]]
    return [*shown, f"{indent}and {len(lines) - most:,} more"] if len(lines) > most else shown


def visible(text: str) -> str:
    r"""Escape every control character for terminals, such as `\x1b`. Newlines stay."""
    return _COMMANDS.sub(_escaped, text)


def on_one_line(text: str) -> str:
    r"""Escape like `visible`, and also newlines and tabs, for a cell of a table or a line of a list."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as Python keeps it in a name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def in_json(text: str) -> str:
    """Escape control characters in a JSON document, which keeps its values."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_spreadsheet(value: object) -> object:
    """Return a cell of a CSV file. Text that a spreadsheet would read as a formula gets a leading quote (OWASP)."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def in_markdown(text: str) -> str:
    """Escape text for Markdown, on one line, so that no table, link, code or HTML begins or ends in it."""
    plain = _MARKUP.sub(r"\\\g<0>", on_one_line(text).replace("\\n", " ").replace("\\t", " "))
    return _TAG.sub(lambda found: escape(found[0]), plain)


def markdown_block(text: str, language: str) -> str:
    """A block of code, whose fence is longer than any in it."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"
