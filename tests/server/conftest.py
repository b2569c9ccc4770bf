"""A library of small clips for the API, and one of drawn clips for the page."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of
from server.browser import browser, serving, tab  # noqa: F401
from server.drawn_clips import write_videos
from server.library_data import make_library, make_run, open_all, put_versions, put_words, write_clips
from vop.search.manifest import SegmentationConfig
from vop.search.sync import index, reembed
from vop.server.app import create_app


@pytest.fixture(autouse=True, scope="session")
def _one_worker():
    """Start one media process, because each imports PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vop.server.services.MEDIA_WORKERS", 1)
        yield


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def run(tiny_folder, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "prompts", tiny_folder)


@pytest.fixture(scope="session")
def library(clips, tiny_folder, run, tmp_path_factory):
    """A library with two models: a run, and its plain backbone."""
    return make_library(tmp_path_factory.mktemp("libraries") / "demo", [run, tiny_folder], clips)


@pytest.fixture(scope="session")
def versions(clips, run, tmp_path_factory):
    """A library with near-duplicates."""
    library = make_library(tmp_path_factory.mktemp("versions") / "versions", [run], clips)
    put_versions(library)
    return library


@pytest.fixture(scope="session")
def spoken(clips, run, tmp_path_factory):
    """A library with words."""
    library = make_library(tmp_path_factory.mktemp("words") / "spoken", [run], clips)
    put_words(library)
    return library


@pytest.fixture(scope="session")
def models(run, tiny_folder):
    """The models of the library, opened apart from the server."""
    return open_all([run, tiny_folder])


@pytest.fixture(scope="session")
def client(library):
    with TestClient(app_of(library)) as client:
        yield client


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory, tiny_folder):
    """A library with two models, metadata and two unreadable files.

    Some videos begin with their best moment and some do not, one has a format that browsers cannot play, and one has
    markup in its name.
    """
    folder = tmp_path_factory.mktemp("page")
    table = write_videos(folder)
    index(
        folder / "demo",
        [folder / "videos"],
        model=str(make_run(folder / "run", tiny_folder)),
        segmentation=SegmentationConfig(window_seconds=4.0, overlap_seconds=0.0),
        metadata=table,
        precision="fp32",
    )
    reembed(folder / "demo", model=str(tiny_folder), keep=True)
    return folder / "demo"


@pytest.fixture(scope="session")
def served(served_folder):
    """The URL of a server with `served_folder`."""
    with serving(create_app([served_folder], precision="fp32")) as address:
        yield address
