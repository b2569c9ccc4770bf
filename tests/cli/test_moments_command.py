"""`vop evaluate --moments`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clips import write_clip
from tiny_clip import make_clip_folder

COLOURS = {"red": (200, 20, 20), "green": (20, 160, 40), "blue": (20, 40, 200)}


@pytest.fixture
def moments(tmp_path):
    """A film of three colours, two seconds each, and a table of the times."""
    frames = [np.full((32, 32, 3), colour, np.uint8) for colour in COLOURS.values() for _ in range(20)]
    write_clip(tmp_path / "film.mp4", frames, rate=10)
    rows = [f"film.mp4,a {name} film,{2 * place},{2 * place + 2}" for place, name in enumerate(COLOURS)]
    path = tmp_path / "moments.csv"
    path.write_text("video,caption,start,end\n" + "\n".join(rows) + "\n")
    return path


def test_moments_are_evaluated(vop, moments, tiny_folder, tmp_path):
    words = ["evaluate", tiny_folder, "--data", moments, "--moments", "--num-frames", 2, "--workers", 1]
    status, out, _ = vop(*words, "--window", 2, "--overlap", 0, "--json", tmp_path / "report.json")
    assert status == 0
    assert "3 queries, 1 video, 3 segments" in " ".join(out.split())
    assert json.loads((tmp_path / "report.json").read_text())["one_video"]["recall"]["5"]["0.5"] == 100.0


def test_errors_name_the_option_that_is_missing(vop, moments, tiny_folder):
    words = ["evaluate", tiny_folder, "--data"]
    status, _, err = vop(*words, moments, "--moments", "--window", 2)
    assert (status, "--window 2" in err, "add --overlap" in err, "less than 2" in err) == (2, True, True, True)
    for name in ("emoji-moments", "charades-sta:folder"):
        status, _, err = vop(*words, name)
        assert (status, name.partition(":")[0] in err, "--moments" in err) == (2, True, True)


def test_embedding_settings_of_moments(vop, moments, tmp_path):
    folder = make_clip_folder(tmp_path / "clip", vision={"image_size": 64, "patch_size": 16})
    words = ["evaluate", folder, "--data", moments, "--moments", "--num-frames", 2, "--workers", 1]
    status, out, _ = vop(*words, "--merge-tokens", 0.5, "--json", tmp_path / "report.json")
    assert (status, "token merging 0.5" in " ".join(out.split())) == (0, True)
    assert json.loads((tmp_path / "report.json").read_text())["merge_tokens"] == 0.5
    status, _, err = vop(*words, "--dimensions", 5)
    assert (status, "dimensions is 5" in err) == (2, True)


def test_refined_ends(vop, moments, tiny_folder, tmp_path):
    words = ["evaluate", tiny_folder, "--data", moments, "--moments", "--num-frames", 6, "--workers", 1, "--window", 3]
    status, out, _ = vop(*words, "--overlap", 1, "--refine", "--json", tmp_path / "report.json")
    assert (status, "refined" in out) == (0, True)
    assert json.loads((tmp_path / "report.json").read_text())["refined"] is True

    library, given = tmp_path / "library", ["--model", tiny_folder, "--num-frames", 6, "--workers", 1]
    assert vop("index", library, tmp_path / "film.mp4", *given, "--window", 3, "--overlap", 1, "--refine")[0] == 0
    assert "refined ends" in vop("library", "info", library)[1]
    _, out, _ = vop("search", library, "a red film", "--json")
    (found,) = json.loads(out)["results"]
    segment_ends = [int(number) / 1000 for number in found["segment"].split("-")[1:]]
    assert 0 <= found["start_seconds"] < found["end_seconds"] <= found["duration_seconds"]
    assert [found["start_seconds"], found["end_seconds"]] != segment_ends


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--moments", "--bank", 0], "--bank"),
        (["--moments", "--cache", "cache"], "--cache"),
        (["--window", 2], "--moments"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(vop, moments, tiny_folder, words, named):
    status, _, err = vop("evaluate", tiny_folder, "--data", moments, *words)
    assert status == 2
    assert named in err
