"""Which words a library indexes: a small file, which only a library with choices of its own has."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from vop.storage.address import Location
from vop.storage.small_files import child, read_bytes, write_bytes

FILE = "words.json"
NO_SPEECH = "none"  # what a user gives to stop recognizing speech


@dataclass(frozen=True)
class WordsChoices:
    """What later indexings read, too.

    Attributes:
        subtitles: whether to read subtitles.
        speech: the model that recognizes speech; None for no speech.
    """

    subtitles: bool = True
    speech: str | None = None

    def changed(self, *, subtitles: bool | None, speech: str | None) -> WordsChoices:
        """Return these choices with those that are given."""
        return WordsChoices(
            self.subtitles if subtitles is None else subtitles,
            self.speech if speech is None else None if speech == NO_SPEECH else speech,
        )


def read_choices(library: Location) -> WordsChoices:
    """Return the choices of a library. A damaged file counts as none."""
    try:
        document = json.loads(read_bytes(child(library, FILE)))
        speech = document.get("speech")
        return WordsChoices(bool(document.get("subtitles", True)), None if speech is None else str(speech))
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return WordsChoices()


def write_choices(choices: WordsChoices, library: Location) -> None:
    """Keep choices for later indexings, if they differ from the library's."""
    if choices != read_choices(library):
        write_bytes(child(library, FILE), (json.dumps(asdict(choices), indent=2) + "\n").encode())
