"""Libraries whose videos an earlier version of the decoder read."""

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
    """Turns the library into one of the previous version."""

    def run() -> None:
        table = Store.open(folder).table
        of_models = " ".join(made_with(Store.open(folder).models).split(" ")[:-1])
        table.update(values={"made_with": of_models})
        table.drop_columns(["date_source"])

    return run


def test_rows_hold_the_version_of_the_decoder(index_videos, folder):
    index_videos()
    values = Store.open(folder).table.to_arrow().column("made_with").to_pylist()
    assert {decoder_version(text) for text in values} == {DECODER_VERSION}
    assert decoder_version("0123456789abcdef") == 2


def test_new_videos_are_not_mixed_with_outdated_ones(index_videos, folder, videos, outdate):
    index_videos()
    outdate()
    before = rows(folder)
    write_video(videos["a"].with_name("new.mp4"), seed=70)
    with pytest.raises(VopError, match=r"4 of its videos .*--redo"):
        index_videos()
    assert rows(folder) == before
    library = Store.open(folder)
    assert library.status().outdated == 4
    assert len(library.search(_any_vector(library), k=9)) == 4  # searches still work


def test_redo_decodes_outdated_videos_again(index_videos, folder, videos, outdate):
    index_videos()
    outdate()
    segments = set(rows(folder))
    report = index_videos(redo=True)
    assert (report.changed, report.added, report.unchanged, report.outdated) == (4, 0, 0, 0)
    assert set(rows(folder)) == segments
    library = Store.open(folder)
    assert library.status().outdated == 0
    assert set(library.table.to_arrow().column("date_source").to_pylist()) <= {"file", "creation_time", "date", "name"}
    again = index_videos()
    assert (again.unchanged, again.changed) == (4, 0)


def test_redo_resumes(index_videos, folder, videos, outdate):
    index_videos()
    outdate()
    report = index_videos(videos["a"], redo=True)
    assert (report.changed, report.outdated) == (1, 3)
    report = index_videos(redo=True)
    assert (report.changed, report.unchanged, report.outdated) == (3, 1, 0)


def test_redo_decodes_moved_videos_again(index_videos, folder, videos, outdate):
    index_videos()
    outdate()
    videos["a"].rename(videos["a"].with_name("moved.mp4"))
    report = index_videos(redo=True, prune=True)
    assert (report.outdated, report.deleted, report.removed) == (0, 0, 0)
    assert {name for name, _ in rows(folder)} == {"moved.mp4", "b.mp4", "c.mp4", "d.mp4"}


def _any_vector(library: Store) -> np.ndarray:
    return matrix(library.table.to_arrow().column(library.models[0].column))[0]
