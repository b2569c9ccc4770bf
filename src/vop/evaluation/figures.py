"""A contact sheet: typed sentences and the clips retrieved for them, as thumbnail strips, in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vop.errors import UsageError
from vop.utils.files import atomic_write
from vop.utils.text import count

# All lengths in pixels.
_MARGIN = 36
_COLUMN_GAP = 28
_ROW_GAP = 26
_FRAME_HEIGHT = 104
_FRAME_GAP = 4
_BAND = 13  # above and below the frames, with the sprocket holes
_BORDER = 5
_LEAST_COLUMN = 280

_IN_DEFAULT_FONT = str.maketrans(dict.fromkeys("“”‘’·…©", ""))  # beyond ASCII
_PAPER = (250, 250, 248)
_INK = (28, 30, 34)
_QUIET = (106, 110, 118)
_LINE = (222, 222, 218)
_FILM = (34, 36, 40)
_HOLE = (214, 214, 208)
_RIGHT = (22, 148, 76)


@dataclass(frozen=True)
class Clip:
    """A retrieved clip.

    Attributes:
        frames: uint8 (frames, 3, height, width), a tensor on the CPU or an array.
        score: its similarity to the sentence.
        right: whether it is a right answer; None if unknown.
        caption: a caption of the clip, printed below it.
        place: its place among the retrieved clips, counted from 1; by default its place in the row.
        label: printed before the place, such as the model that retrieved it.
    """

    frames: Any
    score: float
    right: bool | None = None
    caption: str = ""
    place: int | None = None
    label: str = ""


@dataclass(frozen=True)
class SheetRow:
    """A typed sentence and what was retrieved for it, best first."""

    sentence: str
    clips: Sequence[Clip]


def contact_sheet(
    rows: Sequence[SheetRow], path: str | Path, *, title: str = "", footer: str = "", max_frames: int = 5
) -> Path:
    """Draw the sheet and write it atomically as a PNG.

    Args:
        rows: at least one, from top to bottom; each with at least one clip.
        path: the PNG file.
        title: text above the rows (model, gallery).
        footer: text below the rows (credits).
        max_frames: the number of frames shown per clip, spread evenly over it.

    Returns:
        The path.

    Raises:
        UsageError: there are no rows, a row has no clips, or frames have another shape or type.
    """
    if not rows or not all(row.clips for row in rows):
        empty = sum(not row.clips for row in rows)
        raise UsageError(
            f"{count('row', len(rows))}, {empty} of them without clips: give at least one row, and at least "
            "one clip in each row"
        )
    strips = [[film_strip(clip.frames, max_frames=max_frames) for clip in row.clips] for row in rows]
    column = max(_LEAST_COLUMN, *(strip.width for line in strips for strip in line)) + 2 * _BORDER
    columns = max(len(line) for line in strips)
    inner = columns * column + (columns - 1) * _COLUMN_GAP
    parts = [_text(title, size=30, width=inner)] if title else []
    parts += [_row(row, line, column=column, width=inner) for row, line in zip(rows, strips, strict=True)]
    parts += [_text(footer, size=15, width=inner, fill=_QUIET)] if footer else []
    path = Path(path)
    with atomic_write(path) as temporary:
        _page(parts, inner).save(temporary, format="PNG")
    return path


def film_strip(frames: Any, *, max_frames: int = 5) -> Image.Image:
    """Draw a clip as a thumbnail strip, 130 pixels high.

    Args:
        frames: uint8 (frames, 3, height, width), a tensor on the CPU or an array.
        max_frames: the number of frames shown, spread evenly, including the first and the last.

    Raises:
        UsageError: frames have another shape or type.
    """
    thumbnails = _thumbnails(frames, max_frames)
    width = sum(frame.width for frame in thumbnails) + (len(thumbnails) + 1) * _FRAME_GAP
    strip = Image.new("RGB", (width, _FRAME_HEIGHT + 2 * _BAND), _FILM)
    draw = ImageDraw.Draw(strip)
    for left in range(6, width - 8, 18):
        for top in (3, strip.height - _BAND + 3):
            draw.rounded_rectangle((left, top, left + 8, top + 6), radius=2, fill=_HOLE)
    left = _FRAME_GAP
    for frame in thumbnails:
        strip.paste(frame, (left, _BAND))
        left += frame.width + _FRAME_GAP
    return strip


def _page(parts: Sequence[Image.Image], width: int) -> Image.Image:
    """Stack the parts vertically, with a thin line between them."""
    height = 2 * _MARGIN + sum(part.height for part in parts) + (len(parts) - 1) * 2 * _ROW_GAP
    page = Image.new("RGB", (width + 2 * _MARGIN, height), _PAPER)
    draw = ImageDraw.Draw(page)
    top = _MARGIN
    for n, part in enumerate(parts):
        if n:
            draw.line((_MARGIN, top - _ROW_GAP, _MARGIN + width, top - _ROW_GAP), fill=_LINE, width=2)
        page.paste(part, (_MARGIN, top))
        top += part.height + 2 * _ROW_GAP
    return page


def _row(row: SheetRow, strips: Sequence[Image.Image], *, column: int, width: int) -> Image.Image:
    head = _text(f"“{row.sentence}”", size=26, width=width)
    pairs = zip(row.clips, strips, strict=True)
    cells = [_cell(clip.place or n, clip, strip, column) for n, (clip, strip) in enumerate(pairs, start=1)]
    image = Image.new("RGB", (width, head.height + 14 + max(cell.height for cell in cells)), _PAPER)
    image.paste(head, (0, 0))
    for n, cell in enumerate(cells):
        image.paste(cell, (n * (column + _COLUMN_GAP), head.height + 14))
    return image


def _cell(place: int, clip: Clip, strip: Image.Image, width: int) -> Image.Image:
    """Draw a thumbnail strip with a border; below it the rank, the score, a check mark if right, and the caption."""
    label = f"{f'{clip.label}  ' if clip.label else ''}{place}.  score {clip.score:.3f}"
    facts = _text(label, size=18, width=width, fill=_RIGHT if clip.right else _QUIET)
    caption = _text(clip.caption, size=17, width=width) if clip.caption else Image.new("RGB", (1, 0))
    top = strip.height + 2 * _BORDER + 8
    image = Image.new("RGB", (width, top + facts.height + 4 + caption.height), _PAPER)
    draw = ImageDraw.Draw(image)
    box = (0, 0, strip.width + 2 * _BORDER - 1, strip.height + 2 * _BORDER - 1)
    draw.rounded_rectangle(box, radius=8, fill=_RIGHT if clip.right else _LINE)
    image.paste(strip, (_BORDER, _BORDER))
    image.paste(facts, (0, top))
    image.paste(caption, (0, top + facts.height + 4))
    if clip.right:
        _check_mark(draw, left=int(_font(18).getlength(label)) + 12, top=top + 2)
    return image


def _check_mark(draw: ImageDraw.ImageDraw, *, left: int, top: int) -> None:
    """Draw a white tick in a green disc, which the default font lacks."""
    draw.ellipse((left, top, left + 20, top + 20), fill=_RIGHT)
    points = [(left + 5, top + 10), (left + 9, top + 14), (left + 15, top + 6)]
    draw.line(points, fill="white", width=3, joint="curve")


def _thumbnails(frames: Any, most: int) -> list[Image.Image]:
    """Return at most `most` frames, spread evenly from the first to the last, `_FRAME_HEIGHT` high."""
    pixels = np.asarray(frames)
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise UsageError(f"frames are {pixels.dtype} of shape {pixels.shape}: give uint8 frames x 3 x height x width")
    shown = np.unique(np.linspace(0, len(pixels) - 1, max(1, most)).round().astype(int))
    height, width = pixels.shape[2:]
    # Clamp the aspect ratio, so that very wide or very narrow videos still give a readable strip.
    ratio = min(3.0, max(1 / 3, width / height))
    size = (max(1, round(_FRAME_HEIGHT * ratio)), _FRAME_HEIGHT)
    images = (Image.fromarray(np.ascontiguousarray(pixels[n].transpose(1, 2, 0))) for n in shown)
    return [image.resize(size, Image.Resampling.LANCZOS) for image in images]


def _text(text: str, *, size: int, width: int, fill: tuple[int, int, int] = _INK) -> Image.Image:
    """Draw the text, wrapped to this width."""
    font = _font(size, text)
    lines = _wrap(text, font, width)
    height = round(size * 1.35)
    image = Image.new("RGB", (width, height * len(lines)), _PAPER)
    draw = ImageDraw.Draw(image)
    for n, line in enumerate(lines):
        draw.text((0, n * height), line, font=font, fill=fill)
    return image


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Return lines that fit `width`; a word longer than a line is broken."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _font(size: int, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's default font, or a common system font if the text has characters that it lacks."""
    if not text.translate(_IN_DEFAULT_FONT).isascii():
        for name in ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf"):
            with suppress(OSError):
                return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
