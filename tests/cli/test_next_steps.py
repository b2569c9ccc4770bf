"""Suggested commands run as printed."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import sys

import pytest

from search.owners_videos import write_video
from tiny_data import CAPTIONS, write_videos
from vop.cli import build_parser
from vop.cli.common import command_line


@pytest.fixture
def place(tmp_path):
    """Tables in a folder with a space in its name, with an unusual column, and their videos in another folder."""
    folder = tmp_path / "my tables"
    folder.mkdir()
    videos = write_videos(tmp_path / "my videos")
    for name, rows in (("train", range(5)), ("test", range(5, 8))):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("clipname", "words"), *((videos[n].name, CAPTIONS[n]) for n in rows)])
    return folder


@pytest.fixture
def given(tmp_path):
    return ["--videos", tmp_path / "my videos", "--video-column", "clipname", "--caption-column", "words"]


def commands(text: str) -> list[list[str]]:
    """Every printed `vop` command, split into words, without `vop`."""
    return [shlex.split(found)[1:] for found in re.findall(r"(?:^|: +|^ +)(vop .*)$", text, re.MULTILINE)]


def test_training_suggests_evaluating_the_test_table(train, vop, place, given, tmp_path):
    status, _, err = train("--data", place / "train.csv", *given, "--out", tmp_path / "a run")
    assert status == 0
    (command,) = commands(err)
    assert command[:4] == ["evaluate", str(tmp_path / "a run"), "--data", str(place / "test.csv")]
    status, out, _ = vop(*command)
    assert (status, "gallery of 3 videos" in out) == (0, True)


@pytest.mark.parametrize(("name", "other"), [("clips-train.csv", "clips-test.csv"), ("mine.csv", "test.csv")])
def test_test_tables_are_found_by_name(train, place, given, name, other):
    (place / "train.csv").rename(place / name)
    (place / "test.csv").rename(place / other)
    err = train("--data", place / name, *given, "--epochs", 1)[2]
    assert commands(err)[0][3] == str(place / other)


def test_a_missing_test_table_is_a_placeholder(train, place, given):
    (place / "test.csv").unlink()
    err = train("--data", place / "train.csv", *given, "--epochs", 1)[2]
    assert "not trained on" in err
    assert commands(err)[0][2:4] == ["--data", "TEST.csv"]
    assert str(place / "train.csv") not in err


def test_training_suggests_the_same_data_with_a_test_split(train, vop, table, tmp_path):
    (command,) = commands(train("--cache", tmp_path / "a cache")[2])
    assert command == ["evaluate", str(tmp_path / "run"), "--data", str(table), "--cache", str(tmp_path / "a cache")]
    assert vop(*command)[0] == 0


def test_training_suggests_the_same_folder_of_tables(train, vop, place, given):
    (command,) = commands(train("--data", place, *given)[2])
    assert command[3] == str(place)
    assert vop(*command)[0] == 0


def test_indexing_suggests_commands_that_run(vop, tiny_folder, tmp_path):
    folder, library = tmp_path / "my videos", tmp_path / "my library"
    for seed in (1, 2):
        write_video(folder / f"{seed}.mp4", seed=seed)
    shutil.copy(folder / "1.mp4", folder / "copy.mp4")
    (folder / "empty.mp4").touch()
    words = ["index", library, folder, "--model", tiny_folder, "--num-frames", 2]
    failures, search, serve = commands(vop(*words)[1])
    assert "empty.mp4" in vop(*failures)[1]
    assert vop(*search)[1].count(".mp4") == 2
    assert build_parser().parse_args(serve).libraries == [library]
    (folder / "2.mp4").unlink()
    prune = commands(vop(*words)[1])[0]
    assert prune[-1] == "--prune"
    status, out, _ = vop(*prune)
    assert (status, "1 removed" in out) == (0, True)


def test_empty_libraries_suggest_indexing(vop, tiny_folder, tmp_path):
    (tmp_path / "none").mkdir()
    vop("index", tmp_path / "a library", tmp_path / "none", "--model", tiny_folder)
    (command,) = commands(vop("search", tmp_path / "a library", "a dog")[1])
    assert command == ["index", str(tmp_path / "a library"), "FOLDER_OF_VIDEOS"]


@pytest.mark.parametrize(
    ("started", "on_path", "words"),
    [
        ("/home/me/.venv/bin/vop", "/home/me/.venv/bin/vop", ["vop"]),
        (".venv/bin/vop", None, [".venv/bin/vop"]),
        ("/other/bin/vop", "/home/me/.venv/bin/vop", ["/other/bin/vop"]),
        ("/lib/vop/__main__.py", None, [sys.executable, "-m", "vop"]),
        ("a script.py", None, ["vop"]),
    ],
)
def test_suggested_commands_call_the_program_the_same_way(monkeypatch, started, on_path, words):
    monkeypatch.setattr(sys, "argv", [started, "train"])
    monkeypatch.setattr(shutil, "which", lambda name: on_path)
    assert shlex.split(command_line("search", "my library", "it's")) == [*words, "search", "my library", "it's"]
