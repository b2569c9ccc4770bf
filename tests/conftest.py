"""Shared by all tests: the tiny CLIP, one thread, no network."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests use no network

import pytest
import torch

from object_server import SETTINGS, ObjectServer, running, without_settings
from quicker import captions_embedded_once, decode_in_this_process, real_processes  # noqa: F401
from slow import SLOW_FILES
from tiny_clip import make_clip_folder

ABOUT_PROCESSES = {"datasets", "server", "utils", "video"}  # folders


def is_slow(path: Path) -> bool:
    return any(path.match(f"tests/{pattern}") for pattern in SLOW_FILES)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import slow files for `make test-fast`."""
    return True if config.option.markexpr == "not slow" and is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files. Groups and files with slow tests come first, so that workers end together."""
    for item in items:
        if is_slow(item.path):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.get_closest_marker("xdist_group") is None, item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """For `--dist loadgroup`: a file is a group, so that only one worker sets its fixtures up."""
    from xdist.scheduler import LoadGroupScheduling

    class LoadFilesAndGroups(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid).partition("::")[0]

    return LoadFilesAndGroups(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Handle Ctrl-C, which background jobs of a shell ignore, also in programs that tests start.

    The handler is set for each test, because some libraries restore the handler that they found when imported.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _few_processes(request):
    """Most tests decode in their own process. Programs that tests start, and fixtures of files, use real ones."""
    if request.path.parent.name not in ABOUT_PROCESSES:
        request.getfixturevalue("decode_in_this_process")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """More threads slow down tiny matrices and tests that run in parallel."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return make_clip_folder(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture(scope="session")
def squashing_folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny CLIP with other preprocessing: the whole frame resized to 32 pixels, bilinear."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("squashing-clip") / "clip")
    config = {"size": {"height": 32, "width": 32}, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    from vop.backbones import find_backbone

    return find_backbone(str(tiny_folder))


@pytest.fixture(scope="module")
def running_object_server() -> Iterator[ObjectServer]:
    with running() as server:
        yield server


@pytest.fixture
def object_server(running_object_server, monkeypatch, tmp_path) -> ObjectServer:
    """An empty S3-compatible server, with the credentials for it in the environment, its own scratch and cache."""
    without_settings(monkeypatch, tmp_path)
    for name, value in {**SETTINGS, "AWS_ENDPOINT_URL": running_object_server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VOP_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("VOP_CACHE", str(tmp_path / "cache"))
    running_object_server.empty()
    return running_object_server
