"""Figures as SVG: as a document of its own, and as a part of a page whose colour scheme it follows."""

from __future__ import annotations

import re
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

from vop.experiments.drawing import INK, LINE, PAPER, QUIET

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {INK: "--ink", QUIET: "--quiet", LINE: "--line", PAPER: "--paper"}  # what the rest of a page uses too
# On a dark page: the colours that would vanish there.
ON_DARK = {
    INK: "#e8eaed",
    QUIET: "#a0a8b2",
    LINE: "#363c44",
    PAPER: "#15181c",
    "#17375e": "#c3dcf5",
    "#57697e": "#8094ab",
    "#2f5f73": "#5f9db5",
    "#3f76a6": "#4f8fc4",
    "#c8402c": "#ef6350",
    "#96203f": "#d6456e",
    "#7a4a1f": "#b98a5c",
}


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document whose letters are letters; the same figure gives the same text."""
    import matplotlib

    target = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vop"}):  # savefig has no such options
        figure.savefig(target, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return target.getvalue()


def inline_svg(figure: Figure, *, prefix: str, label: str) -> str:
    """The figure as an element of an HTML page, in the colours of `theme`.

    Args:
        prefix: of its ids; another for each figure of the page.
        label: what a screen reader says.
    """
    svg = svg_text(figure)
    head, body = svg[svg.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)[0]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would hold for the whole page
    body = body.replace(' id="', f' id="{prefix}').replace("url(#", f"url(#{prefix}")
    body = body.replace('xlink:href="#', f'href="#{prefix}')
    for colour in ON_DARK:
        body = body.replace(colour, f"var({_variable(colour)})")
    return f'<svg {box} role="img" aria-label="{escape(label)}">{body}'


def theme() -> str:
    """The CSS of the colours that `inline_svg` names, light and dark."""
    light = "".join(f"{_variable(colour)}:{colour};" for colour in ON_DARK)
    dark = "".join(f"{_variable(colour)}:{other};" for colour, other in ON_DARK.items())
    return f":root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}"


def _variable(colour: str) -> str:
    return _NAMES.get(colour) or f"--on-{colour[1:]}"
