"""Format text for people: counts, plurals, and names escaped for terminals, spreadsheets and pages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

# Control characters except tab and newline, invisible marks that change the direction of text, line separators that
# terminals do not know, and surrogates (bytes of a name that is not valid UTF-8).
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # spreadsheets also accept full-width characters
_TAG = re.compile(r"<(?! )|>|&(?=#?\w+;)")  # a "<" before a space does not begin a tag
_MARKUP = re.compile(r"[\\`*_\[\]|~]")


def count(noun: str, number: int) -> str:
    """Return a number with its noun: `count("video", 1)` is "1 video", `count("video", 1200)` is "1,200 videos"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the regular plural of a noun: videos, processes, queries."""
    if re.search(r"(s|x|sh|[^o]ch)$", noun):
        return f"{noun}es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", noun) + "s"


def as_tokenized(caption: str) -> str:
    """Return a caption in lower case and with single spaces: CLIP's tokenizer reads equal results as equal captions."""
    return " ".join(caption.lower().split())


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8: not if it holds halves of characters, as JSON and shells can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def signed(number: float) -> str:
    """Return a number with its sign and one decimal; without a sign if it rounds to 0.0."""
    text = f"{number:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def first_few(lines: Iterable[str], *, most: int = 5, indent: str = "  ") -> list[str]:
    """Return the first lines, with line breaks escaped, and the number of further lines."""
    lines = list(lines)
    shown = [f"{indent}{on_one_line(line)}" for line in lines[:most]]
    return [*shown, f"{indent}and {len(lines) - most:,} more"] if len(lines) > most else shown


def visible(text: str) -> str:
    r"""Escape every control character for terminals, such as `\x1b`. Newlines stay."""
    return _COMMANDS.sub(_escaped, text)


def on_one_line(text: str) -> str:
    r"""Escape control characters, newlines and tabs, for a cell of a table or a line of a list."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not valid UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def in_json(text: str) -> str:
    """Escape control characters in a JSON document. Its values stay the same."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_spreadsheet(value: object) -> object:
    """Return a cell for a CSV file. Text that a spreadsheet would read as a formula gets a leading quote (OWASP)."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def in_markdown(text: str) -> str:
    """Escape text for Markdown, on one line, so that it cannot begin or end a table, a link, code or HTML."""
    plain = _MARKUP.sub(r"\\\g<0>", on_one_line(text).replace("\\n", " ").replace("\\t", " "))
    return _TAG.sub(lambda found: escape(found[0]), plain)


def markdown_block(text: str, language: str) -> str:
    """Return a block of code with a fence that is longer than any fence inside it."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"
