"""Calibrating a library at the end of an indexing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vop
from search.owners_videos import write_video
from vop.errors import UsageError
from vop.search import confidence
from vop.search.confidence import Calibration, unlikely_captions
from vop.search.schema import matrix
from vop.search.store import Store
from vop.search.sync import calibrating, reembed


def test_an_indexed_library_judges_sentences(index_videos, folder, videos, tiny_folder):
    index_videos()
    model = vop.load(tiny_folder, num_frames=2)
    segments = matrix(Store.open(folder).table.to_arrow().column("embedding_1"))
    wanted = Calibration.of(model.encode_text(unlikely_captions()).numpy(), [segments])
    library = vop.Library.open(folder)
    found = library.search("a dog runs", k=3)
    vector = model.encode_text(["a dog runs"]).numpy()[0]
    assert [moment.confidence for moment in found] == wanted.confidence(vector, [moment.score for moment in found])
    assert library.moments("a dog runs", video=found[0]).moments[0].confidence == found[0].confidence
    assert {moment.confidence for moment in library.search(videos["a"])} == {None}
    assert {moment.confidence for moment in library.search(found[0])} == {None}

    least = found[0].confidence
    assert library.search("a dog runs", min_confidence=least)[0] == found[0]
    warnings: list[str] = []
    assert len(library.search(videos["a"], min_confidence=1, warn=warnings.append)) == 4
    assert ["only for sentences" in warning for warning in warnings] == [True]
    with pytest.raises(UsageError, match="min_confidence is 2"):
        library.search("a dog runs", min_confidence=2)


def test_an_older_library_is_calibrated_by_the_next_indexing(index_videos, folder, tmp_path, monkeypatch):
    index_videos()
    file = folder / confidence.FILE
    file.unlink()
    library = vop.Library.open(folder)
    assert {moment.confidence for moment in library.search("a dog")} == {None}
    index_videos()
    written = file.read_bytes()
    assert None not in {moment.confidence for moment in library.search("a dog")}

    monkeypatch.setattr(calibrating, "_CHANGED", 0.5)
    write_video(tmp_path / "videos" / "new.mp4", seed=9)
    index_videos()
    assert file.read_bytes() == written  # the library has hardly changed
    monkeypatch.setattr(calibrating, "_CHANGED", 0.05)
    monkeypatch.setattr(calibrating, "unlikely_captions", lambda: pytest.fail("the captions were embedded again"))
    index_videos()
    (calibration,) = confidence.read(folder).values()
    assert calibration.segments == Store.open(folder).table.count_rows() == 7


def test_every_model_has_its_own_calibration(index_videos, folder, tiny_folder, tmp_path):
    index_videos()
    before = confidence.read(folder)
    run: Path = tmp_path / "run"
    vop.models.pretrained.create("vop-f+p", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(run)
    reembed(folder, str(run), keep=True, precision="fp32", workers=1)
    library = vop.Library.open(folder)
    after = confidence.read(folder)
    assert after.keys() == {model.fingerprint for model in library.models}
    (old,) = before
    np.testing.assert_array_equal(after[old].evidence, before[old].evidence)
    for number in (0, 1):
        assert None not in {moment.confidence for moment in library.search("a dog", model=number)}


def test_a_model_that_is_missing_has_no_calibration(index_videos, folder, tiny_folder, monkeypatch):
    index_videos()
    (folder / confidence.FILE).unlink()

    def missing(*_: object, **__: object) -> None:
        raise UsageError("the model does not exist")

    monkeypatch.setattr(calibrating, "open_models", missing)
    calibrating.calibrate(Store.open(folder))
    assert not (folder / confidence.FILE).exists()
