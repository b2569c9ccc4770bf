"""Commands in the documentation are run as written, page by page, in order.

`/data` stands for `data/` in the working folder; OpenAI's CLIP is a tiny one in the hub's cache.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from converters.openai_files import make_release, make_release_se, make_state, write_vocabulary
from search.owners_videos import write_video
from test_docs import COMMANDS, ROOT, blocks
from tiny_clip import make_clip_folder
from tiny_data import CAPTIONS, write_videos
from vop.backbones.known import pinned_revision
from vop.backbones.source import DEFAULT_HUB_ID
from vop.benchmarks import emoji_moments
from vop.benchmarks.emoji_motion import Plan
from vop.cli import main
from vop.models.pretrained import create
from vop.training import schedule

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # old files are in that format

# Commands that cannot be run here, by what is in them. `test_docs.py` parses them and checks their arguments.
NOT_RUN = {
    r"^(compare|ablate) (?!.*--merge)": "hours of training; tests/experiments runs small ones",
    r"^backbones .*--measure": "minutes for towers of real size; tests/cli/test_backbones.py measures tiny ones",
    r"--watch": "follows folders until it is stopped; tests/cli/test_stopping.py",
    r"^mcp ": "serves until its client leaves; tests/mcp_server",
    r"^serve ": "serves until it is stopped; tests/cli/test_serve.py",
    r"emoji-motion": "renders thousands of videos; tests/benchmarks renders a few",
    r"\b(msrvtt|msvd|didemo|activitynet|lsmdc|vatex)": "needs the benchmark's files; tests/datasets has small ones",
    r"^import openai ": "takes OpenAI's files of 340 MB or more; tests/converters has small ones",
    r"^train .*google/siglip2": "needs a backbone that is not in the cache",
    r"^index .*--speech ": "needs a Whisper model; tests/search/test_words_indexed.py runs another recognizer",
    r"^index .*--ray ": "needs a Ray cluster; `make cluster-test`",
    r"^\S+ .*(\bfilms-library\b|s3://films)": "needs object storage; a test below runs them with a server",
    r"OWNER/NAME": "a placeholder, not a repository",
}
if find_spec("lance") is None:
    NOT_RUN[r"--jobs 2$|--shard |^library publish "] = "pylance is not installed: pip install 'vop[shards]'"
HUB = f"models--{DEFAULT_HUB_ID.replace('/', '--')}/snapshots/{pinned_revision(DEFAULT_HUB_ID)}"


def reason_not_to_run(words: list[str]) -> str | None:
    line = shlex.join(words)
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, line)), None)


def vop_commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words without `vop`) of every `vop` command, in order."""
    for page, command in COMMANDS:
        program, *words = shlex.split(command, comments=True)
        if Path(program).name == "vop":
            yield page, words


PAGES: dict[str, list[list[str]]] = {}
for page, words in vop_commands():
    if reason_not_to_run(words) is None:
        PAGES.setdefault(page, []).append(words)


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """A cache of the hub with a tiny model as OpenAI's CLIP."""
    cache = tmp_path_factory.mktemp("hub")
    make_clip_folder(cache / HUB, text={"num_hidden_layers": 3})
    return cache


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Files that the pages expect: tables, videos, pictures, other tools' files."""
    place = tmp_path_factory.mktemp("prepared")
    videos = write_videos(place / "cooking")
    for name, rows in (("train", range(5)), ("test", range(5, 8))):
        with open(place / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            pairs = [(f"cooking/{videos[n].name}", CAPTIONS[n]) for n in rows]
            several = [(pairs[0][0], f"caption {n} of the first") for n in range(3)] if name == "train" else []
            csv.writer(file).writerows([("video", "caption"), *pairs, *several])
    shutil.copytree(place / "cooking", place / "data" / "videos")
    rows = [{"clip_id": video.stem, "description": CAPTIONS[n]} for n, video in enumerate(videos)]
    (place / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for seed, name in enumerate(["FOLDER/a.mp4", "holidays/lake.mp4", "holidays/private/b.mp4"]):
        write_video(place / name, seed=seed)
    talk = write_video(place / "talk.mp4", seed=9, seconds=75)
    (place / "clips").mkdir()
    talk.rename(place / "clips" / "talk.mkv")  # a container is known by its content
    Image.new("RGB", (64, 48), (240, 120, 30)).save(place / "sunset.jpg")
    (place / "captions.txt").write_text("a dog runs\nsomebody talks\n", encoding="utf-8")
    (place / "about.csv").write_text(
        next(text for text in blocks(ROOT / "docs" / "finding.md", "csv") if "stars" in text), encoding="utf-8"
    )
    write_vocabulary(place / "bpe_simple_vocab_16e6.txt.gz")
    (place / "cv_vit-b32_retrieval_vop").mkdir()
    make_release(place / "cv_vit-b32_retrieval_vop", make_state())
    (place / "cv_vit-b32_retrieval_vop_bias").mkdir()
    make_release_se(place / "cv_vit-b32_retrieval_vop_bias", make_state())
    write_embeddings(place)
    shutil.copytree(ROOT / "recipes", place / "recipes")
    return place


def write_embeddings(place: Path) -> None:
    """Embeddings of test.csv in another tool's format, and a gallery in the format of the authors' release."""
    with open(place / "test.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ids = [row["video"] for row in rows]
    texts = [row["caption"] for row in rows]
    vectors = np.random.default_rng(0).normal(size=(2, len(rows), 16))
    table = [
        {"kind": kind, "video_id": key, "text": text if kind == "text" else None, "embedding": vector.tolist()}
        for kind, part in zip(("text", "video"), vectors, strict=True)
        for key, text, vector in zip(ids, texts, part, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(table), place / "others.parquet")
    gallery = {"text_embeds": torch.tensor(vectors[0]), "vid_embeds": torch.tensor(vectors[1])}
    torch.save(gallery | {"vid_ids": ids, "texts": texts}, place / "Bias_msrvtt9k_features.pkl")


@pytest.fixture
def workplace(prepared, hub, tmp_path, monkeypatch) -> Path:
    """The working folder: a copy of `prepared`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))  # for the processes that a command starts
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(page: str) -> None:
    """Create what earlier pages have created."""
    if page == "evaluation.md":
        for method, run in (("vop-f+p", "cooking"), ("vop", "vop")):
            create(method, DEFAULT_HUB_ID).save_pretrained(Path("runs") / run)
    if page == "standing.md":
        folder = ROOT / "docs" / "standing"
        shutil.copy(folder / "standing.json", ".")
        Path("row.json").write_text(blocks(folder / page, "json")[0], encoding="utf-8")
    if page == "comparing.md":
        shutil.copytree(ROOT / "docs" / "results", Path("docs") / "results")
    if page == "search.md":
        for method, run in (("vop-p", "holidays"), ("vop", "beach")):
            create(method, DEFAULT_HUB_ID).save_pretrained(Path("runs") / run)
    if page == "finding.md":
        assert main(["index", "library", "holidays", "clips", "--metadata", "about.csv"]) == 0
    if page == "methods.md":
        source = next(block for block in blocks(ROOT / "docs" / page, "python") if "class FrameWeights" in block)
        Path("frame_weights.py").write_text(source, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("captions_embedded_once")
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(page, workplace, monkeypatch, capsys):
    prepare(page)
    monkeypatch.syspath_prepend(workplace)
    monkeypatch.setattr(schedule, "ENOUGH_STEPS", 2)
    # One film of two clips instead of 41 of twelve.
    few = partial(emoji_moments.films, workplace / "films", plan=Plan(train=0, val=0, test=2), parts=2)
    monkeypatch.setattr(emoji_moments, "films", lambda _, *, split: few(split=split))
    deleted, trash = workplace / "holidays" / "lake.mp4", workplace / "lake.mp4"
    for words in PAGES[page]:
        if "--prune" in words and deleted.exists():
            deleted.rename(trash)
        here = [re.sub(r"^/data\b", str(workplace / "data"), word) for word in words]
        status = main(here)
        out, err = capsys.readouterr()
        assert status == 0, f"vop {shlex.join(words)}\n{err}"
        assert out.strip(), f"vop {shlex.join(words)} says nothing"
        if "restore" in words:
            trash.rename(deleted)


@pytest.mark.slow
def test_commands_with_object_storage_run(object_server, workplace, capsys):
    object_server.make_bucket()
    for file in ("lake.mp4", "private/b.mp4"):
        object_server.put(f"s3://films/holidays/{file}", workplace / "holidays" / file)
    commands = [
        words for _, words in vop_commands() if "films" in shlex.join(words) and words[0] not in ("serve", "mcp")
    ]
    if find_spec("lance") is None:
        commands = [words for words in commands if "--shard" not in words and "publish" not in words]
    assert len(commands) >= 7
    for words in commands:
        assert main(words) == 0, shlex.join(words)
    out, _ = capsys.readouterr()
    assert "2 added" in out
    assert "s3://films/library: 2 added" in out
    assert f"new or unreadable before, would be read: 1 file\n  {workplace}/clips/talk.mkv" in out
    assert "s3://films/holidays/lake.mp4" in out
    assert "removed from films-library: 1 video" in out


@pytest.mark.slow
def test_quickstart_runs_as_shown(tmp_path, monkeypatch):
    """Each cell runs with fewer videos and epochs, and has outputs of the same kinds as the page shows."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    saved = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    assert (ROOT / "docs" / "quickstart.ipynb").stat().st_size < 200_000
    small = deepcopy(saved)
    for shown, fewer in (("train=240, val=0, test=40", "train=20, val=0, test=6"), ("epochs=20,", "epochs=2,")):
        (cell,) = (cell for cell in small.cells if cell.cell_type == "code" and shown in cell.source)
        cell.source = cell.source.replace(shown, fewer)
    resources = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(small, timeout=280, kernel_name="python3", resources=resources).execute()
    cells = [(shown, ran) for shown, ran in zip(saved.cells, done.cells, strict=True) if shown.cell_type == "code"]
    for shown, ran in cells:
        kinds = [output.output_type for output in ran.outputs if output.get("name") != "stderr"]
        assert kinds == [output.output_type for output in shown.outputs], shown.source
    assert sum(len(shown.outputs) for shown, _ in cells) >= 8


def test_excluded_commands_are_few_and_exist():
    lines = [shlex.join(words) for _, words in vop_commands()]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, line) for line in lines), f"{pattern}: no page has such a command"
    run = [words for page in PAGES.values() for words in page]
    assert len(run) >= 40
    groups = {"params", "data", "train", "evaluate", "index", "search", "library", "import"}
    assert {words[0] for words in run} >= groups
