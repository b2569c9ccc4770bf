"""Ctrl-C and SIGTERM: a clean end, an exit status for each, and the command that resumes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from search.owners_videos import write_video
from vop.cli import build_parser, stopping

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
SMALL = ["--num-frames", "2", "--workers", "0", "--batch-size", "2", "--precision", "fp32", "--threads", "1"]
SOURCES = str(Path(stopping.__file__).parents[2])


def stop_while(words: list, *, at: str, by: signal.Signals) -> tuple[int, str]:
    """Run `vop`, send the signal after a line with `at`, and return the exit status and standard error."""
    environment = os.environ | {"PYTHONPATH": SOURCES, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "vop", *map(str, words)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    )
    said = ""
    for line in process.stderr:
        said += line
        if at in line:
            break
    process.send_signal(by)  # not to its process group, as `kill` does
    said += process.stderr.read()  # until its child processes have closed it
    return process.wait(timeout=60), said


def command_of(said: str) -> list[str]:
    """The command in the last line."""
    return shlex.split(said.strip().splitlines()[-1])


@pytest.mark.parametrize("by", STATUS)
def test_stopped_trainings_print_the_command_that_resumes(table, tiny_folder, tmp_path, by):
    given = ["--data", table, "--method", "vop", "--backbone", tiny_folder, "--validation", 0, *SMALL]
    words = ["train", "--out", tmp_path / "a run", "--epochs", 4000, *given]
    status, said = stop_while(words, at="training: ", by=by)
    assert (status, "Traceback" in said) == (STATUS[by], False)
    assert "Resume with:\n" in said
    command = command_of(said)
    assert command == [sys.executable, "-m", "vop", *map(str, words), "--resume"]


def test_resumed_trainings_print_the_same_command(vop, monkeypatch, tmp_path):
    monkeypatch.setattr("vop.training.job.train", stopped)
    words = ["train", "--out", tmp_path / "run", "--data", "x.csv", "--resume"]
    status, _, err = vop(*words)
    assert (status, command_of(err)) == (130, ["vop", *map(str, words)])


def test_stopped_comparisons_end_their_processes(table, tiny_folder, tmp_path):
    given = ["--data", table, "--backbone", tiny_folder, "--validation", 0.2, *SMALL]
    words = ["compare", "--methods", "vop,bias", "--seeds", 0, "--learning-rates", 1e-2, "--epochs", 4000, *given]
    status, said = stop_while([*words, "--out", tmp_path / "study", "--jobs", 2], at="process 1", by=signal.SIGTERM)
    assert (status, "Traceback" in said) == (143, False)
    assert command_of(said)[3:] == [*map(str, words), "--out", str(tmp_path / "study"), "--jobs", "2"]


def test_killed_comparisons_leave_no_process(table, tiny_folder, tmp_path):
    given = ["--data", table, "--backbone", tiny_folder, "--validation", 0.2, *SMALL, "--out", tmp_path / "study"]
    words = ["compare", "--methods", "vop", "--seeds", 0, "--learning-rates", 1e-2, "--epochs", 4000, *given]
    environment = os.environ | {"PYTHONPATH": SOURCES, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "vop", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        next(line for line in process.stderr if "process 1" in line)
        process.kill()
        process.communicate(timeout=60)  # until its child processes have closed their standard error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def stopped(*_, **__):
    raise KeyboardInterrupt


def terminated(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)  # the signal interrupts it
    pytest.fail("the signal was not seen")


@pytest.mark.parametrize(("how", "status"), [(stopped, 130), (terminated, 143)])
@pytest.mark.parametrize(
    ("words", "function"),
    [
        (["index", "my library", "videos"], "vop.search.sync.commands.index"),
        (["library", "reembed", "my library", "--model", "mini"], "vop.search.library.Library.open"),
        (["data", "cache", "my table.csv", "--out", "cache"], "vop.cli.data.load_data"),
    ],
)
def test_other_commands_resume_with_the_same_command(vop, monkeypatch, words, function, how, status):
    monkeypatch.setattr(function, how)
    before = signal.getsignal(signal.SIGTERM)
    got, _, err = vop(*words)
    assert (got, command_of(err)) == (status, ["vop", *words])
    assert "Resume with:" in err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("words", [["evaluate", "run", "--data", "x.csv"], ["data", "check", "x.csv"]])
def test_commands_without_resume_print_only_stopped(vop, monkeypatch, words):
    for module in ("evaluate", "data"):
        monkeypatch.setattr(f"vop.cli.{module}.load_data", stopped)
    monkeypatch.setattr("vop.models.pretrained.load", stopped)
    assert vop(*words) == (130, "", "vop: stopped\n")


def test_launched_trainings_suggest_only_resume(vop, monkeypatch):
    monkeypatch.setattr("vop.training.job.train", stopped)
    words = ["train", "--out", "run", "--data", "x.csv"]
    monkeypatch.setenv("RANK", "0")
    assert "the same command and --resume" in vop(*words)[2]
    monkeypatch.setenv("RANK", "1")
    assert vop(*words)[2] == "vop: stopped\n"


def test_foreign_signal_handlers_are_kept():
    arguments = build_parser().parse_args(["params"])
    serving = build_parser().parse_args(["serve", "library"])
    with stopping.sigterm_stops(serving):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stopping.sigterm_stops(arguments):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    failed = []

    def elsewhere() -> None:
        try:
            with stopping.sigterm_stops(arguments):
                failed.append(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
        except ValueError:
            failed.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert failed == [False]


def test_following_a_folder_ends_cleanly(a_run, vop, tmp_path):
    pytest.importorskip("watchfiles")
    library, videos = tmp_path / "library", tmp_path / "videos"
    write_video(videos / "a.mp4", seed=0)
    environment = os.environ | {"PYTHONPATH": SOURCES, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "vop", "index", library, videos, "--model", a_run, "--workers", "1", "--watch"]
    process = subprocess.Popen(map(str, command), stdout=subprocess.PIPE, text=True, env=environment)
    try:
        said = until_said(process, "Following 1 folder")
        if f"{library}: 1 added" not in said:  # on a fast machine: the file has just been written
            until_said(process, f"{library}: 1 added")
        write_video(tmp_path / "b.mp4", seed=1).rename(videos / "b.mp4")
        until_said(process, f"{library}: 1 added")
        assert "2 videos" in vop("library", "info", library)[1]
        process.send_signal(signal.SIGTERM)
        assert "stopped" in process.stdout.read()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()


def until_said(process: subprocess.Popen, part: str) -> str:
    """Return what a process prints up to the line with `part`."""
    said = ""
    for line in process.stdout:
        said += line
        if part in line:
            return said
    pytest.fail(f"it ended without {part!r}: {said}")


@pytest.mark.parametrize("option", ["--json", "--dry-run", "--shard=1/2"])
def test_what_does_not_go_with_following_is_refused(vop, tmp_path, option):
    status, _, err = vop("index", tmp_path / "library", tmp_path, "--watch", option)
    assert (status, option.partition("=")[0] in err) == (2, True)
