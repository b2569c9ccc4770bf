"""Errors for users. Each message names the wrong value, the allowed values, and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class VopError(Exception):
    """The work failed for a reason that the user can act on; the command line exits with status 1."""


class UsageError(VopError, ValueError):
    """An argument is wrong (a name, a value, a column); the command line exits with status 2."""


class TrainingError(VopError):
    """A training ended early.

    Attributes:
        what: what happened, and what the run's folder holds.
        advice: the next step for a user of `vop train`. An experiment has other options.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what, advice)
        self.what, self.advice = what, advice

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}" if self.advice else self.what


class DivergenceError(TrainingError):
    """The loss of a training, or its gradient, is no longer finite. A lower learning rate may help."""


class MemoryRanOutError(TrainingError):
    """A step of a training does not fit into memory."""


class DataError(VopError):
    """A data set cannot be read."""


class VideoError(VopError):
    """A video file cannot be read.

    Attributes:
        path: the file.
        reason: why, in a few words, without the path.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[Path, str]]:  # pickle passes both arguments
        return type(self), (self.path, self.reason)


@dataclass(frozen=True, kw_only=True)
class FileFailure:
    """A file that a job skipped completely or in part.

    Attributes:
        path: the file.
        reason: why, in a few words, without the path.
        kind: "missing": the file does not exist. "unreadable": none of its frames can be decoded. "partial": some of
            its segments are damaged. "duplicate": another file has the same content.
        id: the video's id in its data set, if any.
    """

    path: str
    reason: str
    kind: Literal["missing", "unreadable", "partial", "duplicate"] = "unreadable"
    id: str = ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not among `known`. It suggests the nearest names."""
    known = list(known)
    return UsageError(f"unknown {kind} {name!r}: {_suggestion(name, known)}known: {', '.join(known)}")


def unknown_setting(owner: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a setting that `owner` ("the method vop") does not have. It suggests the nearest names."""
    known = list(known)
    has = f"it has {', '.join(known)}" if known else "it has no settings"
    return UsageError(f"{owner} has no setting {name!r}: {_suggestion(name, known)}{has}")


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}? " if near else ""
