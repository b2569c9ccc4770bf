"""An owner who indexes a folder of videos."""

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
def bring(folder, videos, tiny_folder, tmp_path):
    """Indexes the folder of videos."""

    def run(*paths, **settings):
        given = {"model": str(tiny_folder), "num_frames": 2, "precision": "fp32", "workers": 2, "batch_size": 3}
        return index(folder, paths or [tmp_path / "videos"], **given | settings)

    return run


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nothing was to be decoded")

    return lambda: monkeypatch.setattr(DecodingProcesses, "iterate", refuse)
