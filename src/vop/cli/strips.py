"""Shows thumbnail strips in the terminal: by Sixel or kitty's protocol where it can, else as half blocks."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable

from vop.errors import UsageError

_MOST_COLUMNS = 100


def strip_printer() -> Callable[[bytes], None] | None:
    """Returns a function that prints a JPEG; None if the output is not a terminal, or colours are not wanted.

    The terminal is asked for what it can show, so its input must be a terminal, too.

    Raises:
        UsageError: textual-image is not installed.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb"):
        return None
    terminal = sys.__stdout__
    if terminal is None or sys.stdout is not terminal or not (terminal.isatty() and sys.stdin.isatty()):
        return None
    if not os.get_terminal_size(terminal.fileno()).columns:  # it does not know its size
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)  # it warns if the terminal does not answer
    try:
        from textual_image.renderable import Image  # asks the terminal, in up to 0.2 s
    except ImportError:
        raise UsageError("--strips needs the library textual-image: pip install 'vop[strips]'") from None

    from PIL import Image as Pillow
    from rich.console import Console

    console = Console()

    def show(strip: bytes) -> None:
        with Pillow.open(io.BytesIO(strip)) as picture:
            console.print(Image(picture.convert("RGB"), width=min(console.width, _MOST_COLUMNS), height="auto"))

    return show
