from __future__ import annotations

import io
import re
import sys

import pytest

from vop.utils import progress


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock whose seconds the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_few_lines_are_printed(capsys, clock):
    with progress.show() as show:
        for done in range(1, 1001):
            clock[0] = 0.1 * done  # 100 seconds in all
            show("training", done, 1000, f"loss {done}")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training: 1/1000, loss 1",
        "training: 301/1000, 0:01:10 left, loss 301",
        "training: 601/1000, 0:00:40 left, loss 601",
        "training: 901/1000, 0:00:10 left, loss 901",
        "training: 1000/1000, loss 1000",
    ]


def test_a_restarted_stage_gets_a_new_estimate(capsys, clock):
    show = progress.Lines(interval_seconds=1.0)
    for seconds, done in ((0, 1), (1000, 2), (1001, 1), (1003, 2)):
        clock[0] = seconds
        show("process 1", done, 10)
    assert capsys.readouterr().err.splitlines()[-1] == "process 1: 2/10, 0:00:16 left"


def test_every_stage_prints_its_own_lines(capsys, clock):
    with progress.show() as show:
        show("decoding", 1, 9)
        show("decoding", 2, 9)
        show("training", 1, 9)
    assert capsys.readouterr().err == "decoding: 1/9\ntraining: 1/9\n"


def test_each_line_is_flushed(monkeypatch):
    flushed = []
    stream = Stream(terminal=False)
    monkeypatch.setattr(stream, "flush", lambda: flushed.append(stream.getvalue()))
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.show() as show:
        show("training", 1, 2)
        assert flushed[-1] == "training: 1/2\n"


@pytest.mark.parametrize("columns", [80, 140])
def test_a_terminal_shows_bars(monkeypatch, capsys, columns):
    stream = Stream(terminal=True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.show() as show:
        now = 0.0
        monkeypatch.setattr(show._bars, "get_time", lambda: now)
        show("decoding val", 3, 3)
        for step in range(1, 41):
            now = 40.0 * step
            show("training", 960 + step, 1095, "epoch 5/5, loss 1.234, 156 videos/s")
    assert capsys.readouterr().out == ""
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()).split("\n")[-2]  # without colours
    assert last.startswith("training ")
    assert "1000/1095 1:03:20 left epoch 5/5, loss 1.234, 156 videos/s" in last


def test_a_stage_without_a_message(capsys):
    with progress.show() as show:
        progress.stage(show, "rendering")(4, 4)
    assert capsys.readouterr().err == "rendering: 4/4\n"


def test_silent_progress_prints_nothing(capsys):
    progress.silent("training", 1, 2, "loss 1")
    assert capsys.readouterr() == ("", "")
