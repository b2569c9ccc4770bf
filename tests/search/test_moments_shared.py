"""Several processes share the films of `vop evaluate --moments`: the report is that of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vop
from clips import write_clip
from forked import Ended, run_ranks
from vop.cli import main
from vop.search.manifest import SegmentationConfig

pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
pytestmark = pytest.mark.xdist_group("ranks")

# Every rank tells which films it has read. The command ends the job.
JOB = """
import json, os, sys
from pathlib import Path
import vop
from vop.cli import main
from vop.errors import VopError
from vop.search.manifest import SegmentationConfig
from vop.search.sharding.work import Worker

given, words, out = json.loads(sys.argv[1])
read, work = [], Worker.work

def noted(self, number, **how):
    read.extend(file.location for file in self._plan.files(number))
    work(self, number, **how)

def failing(self, number, **how):
    raise VopError("no space left on this device")

Worker.work = noted
given["segmentation"] = SegmentationConfig(**given["segmentation"])
report = vop.evaluate_moments(**given, shared=True)
Path(out, f"rank-{os.environ['RANK']}.json").write_text(json.dumps({"read": read, "report": report.to_dict()}))
if os.environ["RANK"] == "1" and not words:
    Worker.work = failing
sys.exit(main(words or ["evaluate", given["model"], "--data", given["data"], "--moments", "--num-frames", "2"]))
"""
COLOURS = ((200, 20, 20), (20, 160, 40), (20, 40, 200), (200, 200, 20), (20, 200, 200))


@pytest.fixture
def table(tmp_path) -> Path:
    """Five films of two to six colours, two seconds each, and a file that is not a video."""
    rows = []
    for number in range(5):
        colours = [COLOURS[(number + place) % 5] for place in range(2 + number)]
        frames = [np.full((32, 32, 3), colour, np.uint8) for colour in colours for _ in range(20)]
        write_clip(tmp_path / f"film{number}.mp4", frames, rate=10)
        rows += [f"film{number}.mp4,colour {n} of {number},{2 * n},{2 * n + 2}" for n in range(len(colours))]
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    table = tmp_path / "moments.csv"
    table.write_text("video,caption,start,end\n" + "\n".join([*rows, "broken.mp4,nothing,0,1"]) + "\n")
    return table


def launch(tmp_path: Path, given: dict, words: list[str], *, ranks: int) -> list[Ended]:
    return run_ranks(JOB, [json.dumps([given, words, str(tmp_path)])], ranks=ranks)


def settings(model: Path, table: Path, library: Path) -> dict:
    cutting = {"window_seconds": 3, "overlap_seconds": 1}
    common = {"model": str(model), "data": str(table), "library": str(library), "num_frames": 6, "precision": "fp32"}
    return {**common, "segmentation": cutting, "refine": True, "workers": 1}


def timeless(document: dict) -> dict:
    """A report without the times at which failures were seen."""
    return document | {"skipped": [failure | {"seen_at": ""} for failure in document["skipped"]]}


def test_three_processes_report_like_one(table, tiny_folder, tmp_path, capsys):
    words = ["evaluate", str(tiny_folder), "--data", str(table), "--moments", "--num-frames", "2", "--window", "2"]
    words += ["--overlap", "0", "--workers", "1", "--precision", "fp32", "--json"]
    done = launch(tmp_path, settings(tiny_folder, table, tmp_path / "kept"), words, ranks=3)
    assert [rank.returncode for rank in done] == [0, 0, 0], [rank.stderr[-3000:] for rank in done]
    assert [rank.stdout for rank in done[1:]] == ["", ""]
    assert main(words) == 0
    assert timeless(json.loads(done[0].stdout)) == timeless(json.loads(capsys.readouterr().out))

    given = settings(tiny_folder, table, tmp_path / "alone")
    alone = vop.evaluate_moments(**given | {"segmentation": SegmentationConfig(**given["segmentation"])})
    wanted = timeless(json.loads(json.dumps(alone.to_dict())))
    assert (wanted["videos"], wanted["queries"], len(wanted["skipped"])) == (5, 20, 1)
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(3)]
    assert [timeless(known["report"]) for known in found] == [wanted] * 3
    assert all(known["read"] for known in found)
    films = [path for known in found for path in known["read"]]
    assert len(films) == len(set(films)) == 6  # each once
    assert not (tmp_path / "kept" / "shards").exists()


def test_a_rank_that_fails_ends_the_job(table, tiny_folder, tmp_path):
    done = launch(tmp_path, settings(tiny_folder, table, tmp_path / "kept"), [], ranks=2)
    assert all(rank.returncode for rank in done)
    assert "no space left on this device" in done[1].stderr
    assert "rank 1 of 2" in done[0].stderr
    assert "no space left on this device" in done[0].stderr
