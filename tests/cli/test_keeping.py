"""`vop search --export`, `--open`, `--strips` and `vop library export`."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
from pathlib import Path

import opentimelineio as otio
import pytest

import vop
from search.owners_videos import write_folder
from vop.cli import main, players
from vop.cli.players import open_moment
from vop.errors import UsageError, VideoError, VopError


@pytest.fixture(scope="module")
def library(tiny_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keeping")
    videos = write_folder(folder / "videos")
    words = ["index", folder / "library", videos["a"].parent, "--model", tiny_folder, "--num-frames", "2"]
    assert main([*map(str, words), "--precision", "fp32"]) == 0
    return folder / "library"


@pytest.fixture
def player(tmp_path, monkeypatch):
    """Makes a program on PATH that writes its arguments to a file; returns (make, read)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str) -> Path:
        program, out = folder / name, tmp_path / f"{name}.txt"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{out}"\n')
        program.chmod(0o755)
        return out

    return make


class TestExport:
    def test_search_writes_clips(self, vop, library, tmp_path):
        status, out, err = vop("search", library, "red", "-k", 2, "--export", tmp_path / "clips", "--exact")
        assert status == 0
        assert "wrote 2 files" in out
        assert "2/2" in err
        assert [path.name[:4] for path in sorted((tmp_path / "clips").iterdir())] == ["001 ", "002 "]
        status, _, err = vop("search", library, "red", "-k", 2, "--export", tmp_path / "clips", "--exact")
        assert status == 2
        assert "exists already" in err

    def test_json_of_a_search_is_exported_later(self, vop, library, tmp_path):
        _, out, _ = vop("search", library, "red", "-k", 3, "--json")
        results, table = tmp_path / "results.json", tmp_path / "red.csv"
        results.write_text(out)
        found = json.loads(out)["results"]
        status, out, _ = vop("library", "export", library, results, "--out", table)
        assert (status, "3 moments" in out) == (0, True)
        assert [row["path"] for row in csv.DictReader(table.open())] == [result["path"] for result in found]
        status, out, _ = vop("library", "export", library, results, "--out", tmp_path / "red.otio", "--json")
        report = json.loads(out)
        assert (status, report["format"], report["files"][0]["moments"]) == (0, "otio", 3)
        timeline = otio.adapters.read_from_file(str(tmp_path / "red.otio"))
        assert len(timeline.tracks[0]) == 3

    def test_what_cannot_be_exported_is_refused_at_once(self, vop, library, tmp_path):
        broken = tmp_path / "broken.json"
        for text in ("[]", "{", '{"results": [{"path": "a"}]}'):
            broken.write_text(text)
            status, _, err = vop("library", "export", library, broken, "--out", tmp_path / "a.csv")
            assert (status, "vop search --json" in err) == (1, True)
        status, _, err = vop("search", library, "red", "--export", tmp_path / "a.mp4")
        assert (status, "folder" in err) == (2, True)

    def test_missing_and_changed_files_are_listed_and_the_others_written(self, tiny_folder, tmp_path):
        videos = write_folder(tmp_path / "videos")
        library = vop.Library.create(tmp_path / "library", model=str(tiny_folder), num_frames=2, precision="fp32")
        library.index(tmp_path / "videos")
        moments = library.search("red", k=10)
        gone, changed = Path(moments[0].path), Path(moments[1].path)
        gone.unlink()
        os.utime(changed, (5, 5))
        report = library.export(moments, tmp_path / "clips")
        assert {Path(failure.path).name for failure in report.skipped} == {gone.name, changed.name}
        assert len(report.files) == len(moments) - 2 == len(list((tmp_path / "clips").iterdir()))
        report = library.export(moments, tmp_path / "list.edl")
        assert (len(report.skipped), report.files[0].moments) == (2, len(moments) - 2)
        with pytest.raises(UsageError, match="no moments"):
            library.export([], tmp_path / "none.csv")
        assert videos


class TestOpen:
    @pytest.mark.parametrize(("name", "option"), [("mpv", "--start=12.500"), ("vlc", "--start-time=12.500")])
    def test_players_begin_at_the_moment(self, player, tmp_path, name, option):
        out, video = player(name), tmp_path / "my video.mp4"
        player("xdg-open")
        video.write_text("")
        opened = open_moment(str(video), 12.5)
        opened.process.wait(10)
        assert (opened.name, opened.at_time) == (name, True)
        assert out.read_text().splitlines() == [option, *(["--"] if name == "mpv" else []), str(video)]

    def test_else_the_default_program(self, player, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "platform", "linux")
        video = tmp_path / "a.mp4"
        video.write_text("")
        with pytest.raises(VopError, match="mpv or vlc"):
            open_moment(str(video), 1.0)
        out = player("xdg-open")
        opened = open_moment(str(video), 1.0)
        opened.process.wait(10)
        assert (opened.at_time, out.read_text()) == (False, f"{video}\n")
        with pytest.raises(VideoError, match="does not exist"):
            open_moment(str(tmp_path / "b.mp4"), 1.0)
        with pytest.raises(UsageError, match="object storage"):
            open_moment("s3://bucket/a.mp4", 1.0)

    def test_search_opens_the_moment_that_was_asked_for(self, vop, library, monkeypatch):
        started = []
        monkeypatch.setattr(players, "_start", lambda command: started.append(command))
        monkeypatch.setattr(players.shutil, "which", lambda name: f"/bin/{name}")
        _, out, _ = vop("search", library, "red", "--json")
        paths = [result["path"] for result in json.loads(out)["results"]]
        status, _, err = vop("search", library, "red", "--open")
        assert (status, "mpv at 0:" in err) == (0, True)
        vop("search", library, "red", "--open-number", 2)
        assert [command[-1] for command in started] == paths[:2]
        assert vop("search", library, "red", "--open-number", 99)[0] == 2


SHOW = """
import io
from PIL import Image
from vop.cli.strips import strip_printer
strip = io.BytesIO()
Image.new("RGB", (160, 40), (250, 20, 20)).save(strip, "JPEG")
show = strip_printer()
print("none" if show is None else "shows", flush=True)
if show:
    show(strip.getvalue())
"""
KITTY = b"\x1b[?62c\x1b_Gi=1;OK\x1b\\"  # it has kitty's pictures
TERMINALS = [  # what it answers when it is asked what it is, variables, and what its strip is made of
    (b"\x1b[?62;4c", {}, b"\x1bP"),  # it has Sixel
    (KITTY, {}, chr(0x10EEEE).encode()),
    (b"\x1b[?62;22c", {}, "▀".encode()),
    (KITTY, {"NO_COLOR": "1"}, b"none"),
    (KITTY, {"TERM": "dumb"}, b"none"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "variables", "made_of"), TERMINALS, ids=["sixel", "kitty", "blocks", "no colour", "dumb"]
)
def test_strips_are_shown_as_the_terminal_can(answer, variables, made_of):
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"} | variables
    if "NO_COLOR" not in variables:
        environment.pop("NO_COLOR", None)
    process, terminal = pty.fork()
    if not process:
        os.execve(sys.executable, [sys.executable, "-c", SHOW], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 800, 480))
    os.write(terminal, answer)  # before the question: it waits for a tenth of a second only
    seen = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the program has ended
            break
    os.waitpid(process, 0)
    os.close(terminal)
    assert made_of in seen
    assert (b"shows" in seen) == (made_of != b"none")


def test_strips_need_a_terminal(vop, library):
    plain = vop("search", library, "red")
    assert vop("search", library, "red", "--strips") == plain
