"""`--debug` shows the traceback and the log, before or after the command. Without it, an error is one line."""

from __future__ import annotations

import logging

import pytest

from vop.cli import configure_logging, main


@pytest.mark.parametrize(
    "words",
    [
        ["--debug", "search", "nowhere", "a dog"],
        ["search", "--debug", "nowhere", "a dog"],
        ["search", "nowhere", "a dog", "--debug"],
        ["library", "info", "nowhere", "--debug"],
    ],
)
def test_debug_shows_the_traceback_of_an_error(words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "MissingLibrary" in err
    assert err.splitlines()[-1].startswith("vop: ")
    assert "nowhere" in err.splitlines()[-1]


def test_errors_are_one_line_without_debug(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["search", "nowhere", "a dog", "--debug"]) == 2
    capsys.readouterr()
    assert main(["search", "nowhere", "a dog"]) == 2  # the handler of the call before was removed
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_log_escapes_control_characters(capsys):
    configure_logging(debug=False)
    logging.getLogger("vop.search").warning("skipped %s", "a\x1b[2Jb.mp4")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "a\\x1b[2Jb.mp4" in err


def test_details_are_logged_only_with_debug(capsys):
    for debug in (False, True):
        configure_logging(debug=debug)
        logging.getLogger("vop.search").info("details")
        logging.getLogger("vop.search").warning("attention")
        err = capsys.readouterr().err
        assert (err.count("attention"), "details" in err) == (1, debug)
    configure_logging(debug=False)
