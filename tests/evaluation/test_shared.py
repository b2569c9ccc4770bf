"""Several processes share decoding and evaluation: the results are those of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import vop
from forked import run_ranks
from tiny_data import write_videos
from vop.cli import main
from vop.datasets.frames import FrameStore
from vop.datasets.readers import load
from vop.datasets.validation import readable_part
from vop.models.pretrained import create
from vop.video.resizing import Resizing

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ranks")]

# Three processes, so that parts are uneven. The command ends the job.
JOB = """
import json, sys
from pathlib import Path
import vop
from vop.cli import main
from vop.datasets.frames import FrameStore
from vop.datasets.readers import load
from vop.datasets.validation import readable_part
from vop.utils.ranks import join
from vop.video.resizing import Resizing

table, out, whole, pairs, training = json.loads(sys.argv[1])
ranks = join()
assert ranks.size == 3
decoded = []
decode = FrameStore._decode
FrameStore._decode = lambda self, video: (decoded.append(video.id), decode(self, video))[1]
store = FrameStore(2, Resizing(8), cache=Path(out) / "cache")
kept, skipped = readable_part(load(table).split("test"), store, ranks=ranks)
known = {"kept": [video.id for video in kept.videos], "skipped": [(one.id, one.reason) for one in skipped]}
known["decoded"] = list(decoded)
trained = vop.train(table, out=Path(out, "run"), **training)
known |= {"untuned": trained.result.untuned, "left out": [one.id for one in trained.skipped]}
embedded = []
embed = vop.TextVideoModel.embed_frames
vop.TextVideoModel.embed_frames = lambda self, pixels: (embedded.append(len(pixels)), embed(self, pixels))[1]
report = vop.evaluate(**whole, shared=True)
known |= {"embedded": embedded, "report": report.to_dict()}
Path(out, f"rank-{ranks.rank}.json").write_text(json.dumps(known))
assert main(pairs) == 0
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Eight test videos, of which two are damaged and one is missing, with two captions each."""
    folder = tmp_path_factory.mktemp("videos")
    videos = write_videos(folder)
    for damaged in videos[1], videos[6]:
        damaged.write_bytes(damaged.read_bytes()[:200])
    rows = [(path.name, f"clip {n}") for n, path in enumerate(videos)] + [("gone.mp4", "nothing")]
    rows += [(path.name, f"another caption {n % 3}") for n, path in enumerate(videos)]
    lines = [f"{name},{caption},{split}" for split in ("train", "test") for name, caption in rows]
    (folder / "test.csv").write_text("\n".join(["video,caption,split", *lines]) + "\n")
    return folder / "test.csv"


def evaluations(tiny_folder: Path, table: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    """The arguments of an evaluation of embeddings, and the command line of one with a head that scores pairs."""
    out.mkdir()
    torch.manual_seed(0)  # of the head
    create("vop-f+p", str(tiny_folder), num_frames=3, head="x-pool").save_pretrained(out / "pairs")
    whole = {"model": str(tiny_folder), "data": str(table), "batch_size": 2, "precision": "fp32", "num_frames": 3}
    common = ["--data", str(table), "--batch-size", "2", "--precision", "fp32", "--against", str(tiny_folder)]
    pairs = ["evaluate", str(out / "pairs"), *common, "--num-frames", "3", "--json", str(out / "pairs.json")]
    return {**whole, "save_embeddings": str(out / "e.safetensors")}, pairs


def training(tiny_folder: Path) -> dict[str, Any]:
    """The arguments of a training of one step, with two videos for validation."""
    (tiny_folder.parent / "short.yaml").write_text("epochs: 1\nbatch_size: 3\nvalidation: 0.34\nprecision: fp32\n")
    return {"method": "vop", "backbone": str(tiny_folder), "recipe": str(tiny_folder.parent / "short.yaml")}


@pytest.fixture(scope="module")
def by_three(tiny_folder, table, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("three")
    given = [str(table), str(out), *evaluations(tiny_folder, table, out / "results"), training(tiny_folder)]
    done = run_ranks(JOB, [json.dumps(given)], ranks=3)
    assert [rank.returncode for rank in done] == [0, 0, 0], [rank.stderr[-3000:] for rank in done]
    (out / "stdout").write_text("".join(rank.stdout for rank in done))
    return out


def test_every_video_is_decoded_once(table, by_three, tmp_path):
    split = load(str(table)).split("test")
    store = FrameStore(2, Resizing(8), cache=tmp_path)
    kept, skipped = readable_part(split, store)
    found = [json.loads((by_three / f"rank-{rank}.json").read_text()) for rank in range(3)]
    for known in found:
        assert known["kept"] == [video.id for video in kept.videos]
        assert known["skipped"] == [[one.id, one.reason] for one in skipped]
        assert known["decoded"]
    decoded = sorted(id for known in found for id in known["decoded"])
    assert decoded == sorted(video.id for video in split.videos if video.path.exists())
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*/*.safetensors")}
    assert len(files) == 6
    assert files == {path.name: path.read_bytes() for path in (by_three / "cache").glob("*/*.safetensors")}


def test_evaluations_equal_those_of_one_process(tiny_folder, table, by_three, tmp_path):
    """Damaged videos move the others into other batches; the embeddings have the same bits nevertheless."""
    whole, pairs = evaluations(tiny_folder, table, tmp_path / "one")
    report = vop.evaluate(**whole)
    assert main(pairs) == 0
    assert report.gallery_size == 6
    for rank in range(3):
        known = json.loads((by_three / f"rank-{rank}.json").read_text())
        assert known["report"] == report.to_dict()
        assert 0 < sum(known["embedded"]) < 12  # six of each split
    one, other = (load_file(folder / "e.safetensors") for folder in (tmp_path / "one", by_three / "results"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    one, other = (
        json.loads((folder / "pairs.json").read_text()) for folder in (tmp_path / "one", by_three / "results")
    )
    assert one == other
    assert one["against"]["source"] == str(tiny_folder)
    assert (by_three / "stdout").read_text().count("gallery of 6") == 1  # the first process alone prints


def test_trainings_validate_like_one_process(tiny_folder, table, by_three, tmp_path):
    trained = vop.train(str(table), out=tmp_path / "run", **training(tiny_folder))
    for rank in range(3):
        known = json.loads((by_three / f"rank-{rank}.json").read_text())
        assert known["untuned"] == trained.result.untuned
        assert known["left out"] == [one.id for one in trained.skipped]
        assert len(known["left out"]) == 3
    assert not (by_three / "run/training/frames").exists()
