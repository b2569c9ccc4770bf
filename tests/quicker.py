"""Fixtures that take the time out of indexing and training on a few small videos, and change no result."""

from __future__ import annotations

from typing import Any

import pytest

_CAPTIONS: dict[tuple[Any, ...], Any] = {}


@pytest.fixture
def real_processes() -> None:
    """Makes a test decode in separate processes."""


@pytest.fixture
def decode_in_this_process(request, monkeypatch) -> None:
    """Starting processes takes most of the time in which small videos are read."""
    from vop.video.isolated import DecodingProcesses

    def call(self, function, *args, **settings):
        return function(*args, **settings)

    if "real_processes" not in request.fixturenames:
        monkeypatch.setattr(DecodingProcesses, "warm", lambda *_: None)
        monkeypatch.setattr(DecodingProcesses, "iterate", call)
        monkeypatch.setattr(DecodingProcesses, "call", call)


@pytest.fixture
def captions_embedded_once(monkeypatch) -> None:
    """Embed the captions of `vop.search.confidence` once per model: a quarter of the time of a small indexing."""
    from vop.search.sync import calibrating

    embed = calibrating._embedded

    def remembered(library, model, opened):
        if not opened:
            return embed(library, model, opened)
        key = (model.fingerprint, model.precision, model.embedding, calibrating.unlikely_captions())
        if key not in _CAPTIONS:
            _CAPTIONS[key] = embed(library, model, opened)
        return _CAPTIONS[key]

    monkeypatch.setattr(calibrating, "_embedded", remembered)
