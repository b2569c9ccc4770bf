"""A folder of videos, and a library of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.owners_videos import write_folder
from vop.search.sync import index
from vop.video.isolated import DecodingProcesses


@pytest.fixture
def videos(tmp_path) -> dict[str, Path]:
    return write_folder(tmp_path / "videos")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "library"


@pytest.fixture
def index_videos(folder, videos, tiny_folder, tmp_path):
    """Indexes the folder of videos."""

    def run(*paths, **settings):
        given = {"model": str(tiny_folder), "num_frames": 2, "precision": "fp32", "workers": 2, "batch_size": 3}
        return index(folder, paths or [tmp_path / "videos"], **given | settings)

    return run


@pytest.fixture(autouse=True)
def _quick(captions_embedded_once):
    """Most tests index a few small videos."""


@pytest.fixture
def no_decoding(monkeypatch):
    """Fails the test if a video is decoded after the fixture is called."""

    def refuse(*_, **__):
        raise AssertionError("a video was decoded")

    return lambda: monkeypatch.setattr(DecodingProcesses, "iterate", refuse)
