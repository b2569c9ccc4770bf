"""Example sentences that were found, and until when they hold."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from vop.server.schemas import Examples

_SECONDS, _SECONDS_OF_NONE = 600.0, 30.0  # a library without examples may be growing


@dataclass(frozen=True)
class KeptExamples:
    """The examples of a view, and the fingerprint of the model that found them."""

    examples: Examples
    model: str
    at: float = field(default_factory=time.monotonic)

    def holds(self, model: str) -> bool:
        seconds = _SECONDS if self.examples.seen or self.examples.said else _SECONDS_OF_NONE
        return self.model == model and time.monotonic() - self.at < seconds
