"""Example sentences that find something."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, results, search
from server.library_data import make_library
from vop.search import confidence
from vop.search.confidence import Calibration
from vop.search.examples import everyday_captions


def examples_of(client, view: str) -> dict:
    response = client.get(f"/api/views/{view}/examples")
    assert response.status_code == 200, response.text
    return response.json()


def test_spoken_words_are_an_example(spoken):
    with TestClient(app_of(spoken)) as client:
        found = examples_of(client, "spoken")
        assert found == {"seen": [], "said": ['"Good morning, walrus"']}
        (moment,) = results(search(client, found["said"][0], view="spoken"))
        assert moment["matched"] == ["heard"]


@pytest.mark.parametrize("evidence", [-1.0, 2.0])
def test_captions_that_match_are_examples(clips, run, tmp_path, evidence):
    """Better than every unlikely caption, whose evidence is this."""
    library = make_library(tmp_path / "shown", [run], clips)
    width = library.models[0].embed_dim
    calibration = Calibration(
        mean=np.zeros(width, np.float32),
        evidence=np.full(3, evidence, np.float32),
        captions=np.zeros((3, width), np.float32),
        segments=7,
    )
    confidence.write({library.models[0].fingerprint: calibration}, library.path)
    with TestClient(app_of(library)) as client:
        seen = examples_of(client, "shown")["seen"]
        assert examples_of(client, "shown")["seen"] == seen  # kept
        best = {caption: results(search(client, caption, view="shown", k=1))[0] for caption in everyday_captions()}
    certain = [caption for caption, moment in best.items() if moment["confidence"] == 1.0]
    first_of_video: dict[str, str] = {}
    for caption in sorted(certain, key=lambda caption: -best[caption]["score"]):
        first_of_video.setdefault(best[caption]["video"], caption)
    assert seen == list(first_of_video.values())[:3]
    assert bool(seen) == (evidence < 0)


def test_an_unknown_view_has_none(client):
    assert client.get("/api/views/nothing/examples").status_code == 404
