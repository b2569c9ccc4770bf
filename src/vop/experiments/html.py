"""The report of comparisons as one HTML file that needs no other: style, script, figures and clips are inside."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import UsageError
from vop.experiments.figures import NOTES, TITLES, figures_of
from vop.experiments.html_clips import Film, examples_page, film_image
from vop.experiments.html_style import SCRIPT, style
from vop.experiments.html_tables import more_tables, results
from vop.experiments.reading import heading, stems
from vop.experiments.svg import inline_svg
from vop.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A browser then loads nothing and runs no script but ours, even if a caption found a way into the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{contents}
<script>{script}</script>
</body>
</html>
"""


def write_html(documents: Sequence[Mapping], path: str | Path) -> Path:
    """Writes the page, whole or not at all: the figures of all documents, then a section for each.

    A video that cannot be read has its reason in the place of its frames. Every video is decoded once.

    Args:
        documents: as read from `results.json`, at least one.
        path: of the HTML file.

    Returns:
        the path.

    Raises:
        UsageError: there is no document.
        VopError: the file cannot be written.
    """
    if not documents:
        raise UsageError("0 documents to report: give at least one results.json")
    path, page = Path(path), _page(documents)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # names may hold halves of letters
    return path


def _page(documents: Sequence[Mapping]) -> str:
    film = cache(film_image)
    named = list(zip(stems(documents), documents, strict=True))
    links = "".join(f'<a href="#{stem}">{escape(heading(document))}</a>' for stem, document in named)
    figures = figures_of(documents)
    if len(named) == 1:
        ((stem, document),) = named
        parts = [_section(document, stem, figures[""] | figures[stem], film)]
    else:
        parts = [f"<nav>{links}</nav>", *_figures(figures[""], prefix="all")]
        parts += [_section(document, stem, figures[stem], film) for stem, document in named]
    script_hash = b64encode(sha256(SCRIPT.encode()).digest()).decode("ascii")
    return _PAGE.format(
        policy=_POLICY.format(hash=script_hash),
        title=escape(_title(documents)),
        style=style(),
        contents="\n".join(parts),
        script=SCRIPT,
    )


def _title(documents: Sequence[Mapping]) -> str:
    kinds = " and ".join(dict.fromkeys(f"vop {document['kind']}" for document in documents))
    return f"{kinds}: {', '.join(dict.fromkeys(str(document['data']) for document in documents))}"


def _section(document: Mapping, stem: str, figures: Mapping[str, Callable[[], Figure]], film: Film) -> str:
    parts = [
        f'<section id="{stem}"><h2>{escape(heading(document))}</h2>',
        results(document),
        *_figures(figures, prefix=stem),
        examples_page(document, film=film),
        more_tables(document),
        "</section>",
    ]
    return "\n".join(parts)


def _figures(figures: Mapping[str, Callable[[], Figure]], *, prefix: str) -> list[str]:
    parts = []
    for name, draw in figures.items():
        svg = inline_svg(draw(), prefix=f"{prefix}-{name}-", label=TITLES[name])
        parts.append(f"<figure><div>{svg}</div><figcaption>{escape(NOTES[name])}</figcaption></figure>")
    return parts
