"""No command lets file names control the terminal, by escape sequences or Rich's markup."""

from __future__ import annotations

import ast
import json
import shutil
import tempfile
from pathlib import Path

import pytest

import vop.cli
from search.owners_videos import write_video
from tiny_data import write_table

EVIL = "\x1b[31m\x07\r\x9b\u202e"  # colour, bell, carriage return, C1 control, right-to-left override
SHOWN = "\\x1b[31m\\x07\\x0d\\x9b\\u202e"


@pytest.fixture(scope="session")
def folder():
    """Two valid videos and a broken one, with `[/]` in their paths, which are short enough for one line."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / f"[b]{EVIL}[" / "]"
        write_video(folder / f"[red]{EVIL}.mp4", seed=0)
        write_video(folder / f":ok:{EVIL}.mp4", seed=1)
        (folder / f"broken{EVIL}.mp4").write_bytes(b"")
        yield folder


@pytest.fixture(scope="session")
def library(folder, tiny_folder, tmp_path_factory) -> Path:
    from vop.search.sync import index

    index(tmp_path_factory.mktemp("evil") / "lib", [folder], model=str(tiny_folder), num_frames=2, precision="fp32")
    return tmp_path_factory.getbasetemp() / "evil0" / "lib"


@pytest.fixture(scope="session")
def captioned(folder) -> Path:
    names = [path.name for path in sorted(folder.iterdir()) if path.suffix == ".mp4"]
    rows = [{"video": name, "caption": f"[blink]{EVIL} {number}"} for number, name in enumerate(names)]
    table = folder / "test.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


def check(text: str) -> None:
    assert all(letter.isprintable() or letter == "\n" for letter in text), ascii(text)


def test_index_escapes_names(vop, folder, tiny_folder, tmp_path):
    words = ["index", tmp_path / "[i] [/]lib", folder, "--model", tiny_folder, "--num-frames", 2]
    status, out, err = vop(*words)
    check(out + err)
    assert (status, "[i] [/]lib" in out) == (0, True)


def test_search_escapes_names(vop, library, tmp_path):
    status, out, err = vop("search", library, "a dog")
    check(out + err)
    assert (status, f"[b]{SHOWN}[/]/[red]{SHOWN}.mp4" in out) == (0, True)
    assert f":ok:{SHOWN}" in out
    (tmp_path / "lines.txt").write_text("[b]a dog\x1b\x9b\u202e\na [/] cat\n")
    video = json.loads(vop("search", library, "a dog", "--json")[1])["results"][0]["path"]
    status, out, err = vop("search", library, "--video", video, "--captions", tmp_path / "lines.txt")
    check(out + err)
    assert (status, "[b]a dog\\x1b\\x9b\\u202e" in out, "a [/] cat" in out) == (0, True, True)


def test_json_keeps_names_unescaped(vop, library, folder):
    out = vop("search", library, "a dog", "--json")[1]
    check(out)
    assert {result["path"] for result in json.loads(out)["results"]} == {
        str(folder / f"[red]{EVIL}.mp4"),
        str(folder / f":ok:{EVIL}.mp4"),
    }


def test_failures_escape_names(vop, library):
    status, out, err = vop("library", "failures", library)
    check(out + err)
    assert (status, f"[/]/broken{SHOWN}.mp4" in out) == (0, True)


def test_forget_escapes_names(vop, library, folder, tmp_path):
    shutil.copytree(library, tmp_path / "copy")
    status, out, err = vop("library", "forget", tmp_path / "copy", folder / EVIL)
    check(out + err)
    assert (status, SHOWN in err) == (2, True)


@pytest.mark.parametrize("how", [[], ["--decode"], ["--json"]])
def test_data_check_escapes_names(vop, captioned, how):
    status, out, err = vop("data", "check", captioned, *how)
    check(out + err)
    assert (status, f"broken{SHOWN}.mp4: the file is empty" in err) == (1, True)


def test_evaluate_escapes_names(vop, a_run, captioned):
    status, out, err = vop("evaluate", a_run, "--data", captioned)
    check(out + err)
    assert (status, "broken\\x1b" in "".join(out.split()), f"broken{SHOWN}.mp4: " in err) == (0, True, True)
    status, out, err = vop("evaluate", a_run, "--data", captioned, "--on-bad-video", "fail")
    check(out + err)
    assert (status, f"broken{SHOWN}.mp4" in err) == (1, True)


def test_training_and_its_card_escape_names(vop, train, captioned, tmp_path):
    table = captioned.with_name(f"train{EVIL}.jsonl")
    table.write_text(captioned.read_text())
    status, out, err = train("--data", table, "--validation", 0, "--epochs", 1)
    check(out + err)
    assert (status, f"broken{SHOWN}.mp4: " in err) == (0, True)
    check((tmp_path / "run" / "README.md").read_text())


@pytest.mark.parametrize(
    "words",
    [
        ["params", "--backbone", EVIL],
        ["params", "--method", EVIL],
        ["params", "--set", EVIL],
        ["data", "check", EVIL],
        ["data", "check", f"msrvtt-9k:{EVIL}"],
        ["train", "--out", "x", "--data", EVIL],
        ["search", EVIL, "a dog"],
        ["library", "info", EVIL],
        ["compare", "--data", EVIL, "--backbone", "mini"],
        ["ablate", EVIL],
        ["import", "openai", EVIL, "--out", "x"],
        ["serve", "library", "--host", EVIL],
        ["evaluate", "run", "--data", EVIL],
        [EVIL],
        ["params", f"--{EVIL}"],
        ["search", "library", "a dog", "-k", EVIL],
        ["search", "library", "--video", "x", "--start", EVIL],
    ],
)
def test_errors_escape_names(vop, words):
    status, out, err = vop(*words)
    assert status != 0
    check(out + err)
    assert "\\x1b" in err


def test_table_columns_are_escaped(vop, tmp_path):
    write_table(tmp_path / "odd.csv", [])
    (tmp_path / "odd.csv").write_text("a\x1b[31m,b\x9b\n1,2\n")
    status, out, err = vop("data", "check", tmp_path / "odd.csv")
    check(out + err)
    assert (status, "a\\x1b[31m, b\\x9b" in err) == (1, True)


@pytest.mark.parametrize("file", sorted(Path(vop.cli.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_commands_print_only_through_escaping_functions(file):
    """Only `say`, `warn` and `print_json` call `print`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    border = {"say", "warn", "print_json"} if file.name == "common.py" else set()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in border]
    allowed = {id(inner) for node in functions for inner in ast.walk(node)}
    prints = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" and id(node) not in allowed
    ]
    assert not prints
