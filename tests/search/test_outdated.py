"""Libraries that an earlier version of the decoder made."""

from __future__ import annotations

import numpy as np
import pytest

from search.owners_videos import rows, write_video
from vop.errors import VopError
from vop.search.schema import decoder_version, made_with, matrix
from vop.search.store import Store
from vop.video.clip import DECODER_VERSION


@pytest.fixture
def outdate(folder, monkeypatch):
    """Makes it as the version before would have left it: without what has come since."""

    def run() -> None:
        table = Store.open(folder).table
        of_models = " ".join(made_with(Store.open(folder).models).split(" ")[:-1])
        table.update(values={"made_with": of_models})
        table.drop_columns(["date_source"])

    return run


def test_rows_say_which_decoder_read_them(bring, folder):
    bring()
    said = Store.open(folder).table.to_arrow().column("made_with").to_pylist()
    assert {decoder_version(text) for text in said} == {DECODER_VERSION}
    assert decoder_version("0123456789abcdef") == 2


def test_nothing_is_mixed(bring, folder, videos, outdate):
    bring()
    outdate()
    before = rows(folder)
    write_video(videos["a"].with_name("new.mp4"), seed=70)
    with pytest.raises(VopError, match=r"4 of its videos .*--redo"):
        bring()
    assert rows(folder) == before
    library = Store.open(folder)
    assert library.status().outdated == 4
    assert len(library.search(_any_vector(library), k=9)) == 4  # searching goes on


def test_redo_decodes_them_again(bring, folder, videos, outdate):
    bring()
    outdate()
    segments = set(rows(folder))
    report = bring(redo=True)
    assert (report.changed, report.added, report.unchanged, report.outdated) == (4, 0, 0, 0)
    assert set(rows(folder)) == segments
    library = Store.open(folder)
    assert library.status().outdated == 0
    assert set(library.table.to_arrow().column("date_source").to_pylist()) <= {"file", "creation_time", "date", "name"}
    again = bring()
    assert (again.unchanged, again.changed) == (4, 0)


def test_a_redo_that_was_stopped_goes_on(bring, folder, videos, outdate):
    bring()
    outdate()
    report = bring(videos["a"], redo=True)
    assert (report.changed, report.outdated) == (1, 3)
    report = bring(redo=True)
    assert (report.changed, report.unchanged, report.outdated) == (3, 1, 0)


def test_videos_that_moved_meanwhile_are_decoded_again(bring, folder, videos, outdate):
    bring()
    outdate()
    videos["a"].rename(videos["a"].with_name("moved.mp4"))
    report = bring(redo=True, prune=True)
    assert (report.outdated, report.deleted, report.removed) == (0, 0, 0)
    assert {name for name, _ in rows(folder)} == {"moved.mp4", "b.mp4", "c.mp4", "d.mp4"}


def _any_vector(library: Store) -> np.ndarray:
    return matrix(library.table.to_arrow().column(library.models[0].column))[0]
