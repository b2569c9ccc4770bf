"""The qualitative page (Figure 7): sentences, and the clips that each arm puts first, as film strips."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from vop.errors import VideoError

Film = Callable[[str], str]  # a video's path -> its element of the page


def examples_page(document: Mapping, *, film: Film) -> str:
    """For each example its sentence, the right video, and every first clip with the arms that found it.

    Args:
        film: `film_image`, or one that remembers what it was asked.
    """
    if not document.get("examples"):
        return ""
    parts = "".join(_example(example, film) for example in document["examples"])
    return f"<h3>What is found first</h3>{parts}{_credit(document)}"


def _example(example: Mapping, film: Film) -> str:
    # Arms often agree. A clip is shown once, with all that put it first.
    arms: dict[tuple, list[str]] = {}
    for clip in example["found"]:
        arms.setdefault((clip["path"], clip["right"], clip["caption"]), []).append(clip["arm"])
    cards = [_card(film(example["path"]), mark="the right video")]
    for (path, right, caption), names in sorted(arms.items(), key=lambda item: not item[0][1]):
        mark = "✓ right" if right else "✗ wrong"
        cards.append(_card(film(path), mark=mark, names=names, caption=caption, right=right))
    return f'<h4>“{escape(example["sentence"])}”</h4><div class="cards">{"".join(cards)}</div>'


def _card(strip: str, *, mark: str, names: Sequence[str] = (), caption: str = "", right: bool = True) -> str:
    said = f": {escape(', '.join(names))}" if names else ""
    kind = "right" if right else "wrong"
    words = f"<q>{escape(caption)}</q>" if caption else ""
    return f'<div class="card {kind}">{strip}<p><strong>{mark}</strong>{said}</p>{words}</div>'


def film_image(path: str) -> str:
    """An image element with five frames of the video as a data URI, or a line that says why there is none."""
    from vop.evaluation.figures import film_strip
    from vop.video.frames import read_frames

    try:
        frames = read_frames(path, num_frames=5, size=96)
    except VideoError as error:
        return f'<p class="unread">{escape(Path(path).name)}: {escape(error.reason)}</p>'
    target = BytesIO()
    film_strip(frames).save(target, format="WEBP", quality=75)
    code = b64encode(target.getvalue()).decode("ascii")
    return f'<img src="data:image/webp;base64,{code}" alt="five frames of {escape(Path(path).name)}" loading="lazy">'


def _credit(document: Mapping) -> str:
    if not str(document["data"]).startswith("emoji-motion"):
        return ""
    from vop.benchmarks.demo import CREDIT

    return f"<footer>{escape(CREDIT)}</footer>"
