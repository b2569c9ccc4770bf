"""Count the files that a reader opens to follow four journeys through `vop`, by tracing the functions that run.

    python tools/paths.py [--package SRC] [--list]

    caption to loss   tuning `vop-f+p` on cached frames: from a caption and its video to the loss
    file to row       indexing one video: from the found file to its rows in the library
    query to moment   one search: from a sentence to the found moments
    run to report     one evaluation: from a run and cached frames to the report

Each journey belongs to some folders. The first number counts the files to open: files of these folders in which a
function runs, and files of other folders whose functions these call directly. The second number counts all files in
which a function runs. Neither includes `vop.cli`, `vop.utils`, `vop.config` and `vop.errors`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXCLUDED = {"cli", "utils", "config", "errors", "version", "__main__", "__init__"}
# Earlier checkouts have these modules at the top of the package, or under another name.
EXCLUDED |= {"threads", "device", "progress", "files", "registry"}

# Python runs this file in every process, including the decoding ones.
WATCHER = """
import os, re, sys, threading
folder, out = os.environ["VOP_PACKAGE"], os.environ["VOP_TRACE"]
first, last = os.environ["VOP_FIRST"], os.environ["VOP_LAST"]
seen, under_way = set(), not first
def watch(frame, event, argument):
    global first, under_way
    code = frame.f_code
    if not code.co_flags & 1 or not code.co_filename.startswith(folder):  # 1: a function, not a module or a class
        return
    name = f"{code.co_filename}:{code.co_name}"
    if event == "call" and not under_way and re.search(first, name):
        under_way, os.environ["VOP_FIRST"] = True, ""  # also in processes that this one starts
    if last and under_way and event == "return" and re.search(last, name):
        first, under_way, os.environ["VOP_FIRST"] = "nothing", False, "nothing"
    if not under_way or event != "call":
        return
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(folder):
        caller = caller.f_back
    if caller is not None and not caller.f_code.co_flags & 1:
        return  # while a module is imported
    pair = (caller.f_code.co_filename if caller is not None else "", code.co_filename)
    if pair not in seen:
        seen.add(pair)
        with open(f"{out}/{os.getpid()}", "a") as file:
            print(*pair, sep="\\t", file=file)
threading.setprofile(watch)
sys.setprofile(watch)
"""


@dataclass(frozen=True)
class Journey:
    """A command whose functions are traced.

    Attributes:
        folders: the folders of the journey.
        words: the arguments of `vop`.
        first, last: regular expressions for FILE:FUNCTION. The journey begins with a call of the first function and
            ends when the last one returns. By default it is the whole command.
    """

    name: str
    folders: frozenset[str]
    words: Sequence[str]
    first: str = ""
    last: str = ""


def journeys(work: Path) -> list[Journey]:
    run, cache, library = str(work / "run"), str(work / "cache"), str(work / "library")
    data = ["--data", str(work / "data" / "captions.csv")]
    tuning = ["--method", "vop-f+p", "--backbone", "mini", "--epochs", "1", "--validation", "0", "--workers", "0"]
    return [
        Journey(
            "caption to loss",
            frozenset({"training", "models", "model.py", "methods", "heads", "backbones", "backbone"}),
            ["train", *data, *tuning, "--out", str(work / "again"), "--cache", cache],
            first="model.py:tokenize$",
            last="training/loss.py",
        ),
        Journey(
            "file to row",
            frozenset({"search"}),
            ["index", library, str(work / "more"), "--workers", "1"],
            first="reader.py:read_video$|reading.py:decode$",
            last="search/(store|library).py:put$",
        ),
        Journey("query to moment", frozenset({"search"}), ["search", library, "a red car"]),
        Journey("run to report", frozenset({"evaluation"}), ["evaluate", run, *data, "--cache", cache]),
    ]


def prepare(work: Path, environment: Mapping[str, str]) -> None:
    """Create captioned videos, a run tuned on them, their frames, and a library with one of the videos."""
    clips = [work / "data" / f"{number}.mp4" for number in range(8)] + [work / "more" / "new.mp4"]
    for number, clip in enumerate(clips):
        clip.parent.mkdir(parents=True, exist_ok=True)
        source = f"testsrc2=size=64x64:rate=10:duration={2 + number}"
        subprocess.run(["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", source, "-y", clip], check=True)
    rows = [f"{clip.name},clip {number}" for number, clip in enumerate(clips[:8])]
    (work / "data" / "captions.csv").write_text("\n".join(["video,caption", *rows]) + "\n")
    data, cache = ["--data", str(work / "data" / "captions.csv")], ["--cache", str(work / "cache")]
    once = ["--epochs", "1", "--validation", "0", "--workers", "0"]
    vop(
        ["train", *data, *cache, "--method", "vop-f+p", "--backbone", "mini", "--out", str(work / "run"), *once],
        environment,
    )
    vop(["index", str(work / "library"), str(clips[0]), "--model", "mini"], environment)


def vop(words: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "vop", *words], env=environment, check=True, stdout=subprocess.DEVNULL)


def follow(journey: Journey, work: Path, environment: Mapping[str, str], package: Path) -> tuple[set[str], set[str]]:
    """Return the files to open, and all files in which a function ran."""
    trace = work / "trace" / journey.name.replace(" ", "-")
    trace.mkdir(parents=True)
    watcher = work / "watcher"
    watcher.mkdir(exist_ok=True)
    (watcher / "sitecustomize.py").write_text(WATCHER)
    ends = {"VOP_FIRST": journey.first, "VOP_LAST": journey.last}
    path = os.pathsep.join([str(watcher), environment["PYTHONPATH"]])
    vop(
        journey.words, {**environment, "PYTHONPATH": path, **ends, "VOP_PACKAGE": str(package), "VOP_TRACE": str(trace)}
    )
    lines = [line.split("\t") for file in trace.iterdir() for line in file.read_text().splitlines()]
    pairs = [tuple(str(Path(end).relative_to(package)) if end else "" for end in line) for line in lines]
    own = {end for _, end in pairs if folder_of(end) in journey.folders}
    called = {end for start, end in pairs if start in own and folder_of(end) not in EXCLUDED}
    return own | called, {end for _, end in pairs if folder_of(end) not in EXCLUDED}


def folder_of(file: str) -> str:
    parts = Path(file).parts
    return parts[0] if len(parts) > 1 or parts[0] == "model.py" else Path(file).stem


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", type=Path, default=ROOT / "src", help="The `src` folder of another checkout.")
    parser.add_argument("--list", action="store_true", help="Print the names of the files.")
    arguments = parser.parse_args()
    source = arguments.package.resolve()
    environment = {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, environment)
        for journey in journeys(work):
            to_open, ran = follow(journey, work, environment, source / "vop")
            print(f"{journey.name:16} {len(to_open):3} to open, {len(ran):3} ran")
            if arguments.list:
                print(*(f"    {file}" for file in sorted(to_open)), sep="\n")


if __name__ == "__main__":
    main()
