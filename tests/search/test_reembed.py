"""Moving a library to another model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vop
import vop.models.pretrained
from search.owners_videos import write_folder
from vop.errors import UsageError, VopError
from vop.search.models import open_models
from vop.search.store import Store
from vop.search.sync import index, reembed
from vop.search.sync import reembedding as moving
from vop.video.clip import DECODER_VERSION
from vop.video.resizing import Resizing


@pytest.fixture
def videos(tmp_path) -> dict[str, Path]:
    return write_folder(tmp_path / "videos", count=3)


@pytest.fixture
def make(tmp_path, videos, tiny_folder):
    """Creates a library of the videos."""

    def run(name: str = "library", **settings) -> Path:
        given = {"model": str(tiny_folder), "num_frames": 2, "precision": "fp32", "batch_size": 2}
        index(tmp_path / name, [tmp_path / "videos"], **given | settings)
        return tmp_path / name

    return run


@pytest.fixture
def tuned(tmp_path, tiny_folder) -> str:
    return save(tmp_path / "run", tiny_folder)


def save(out: Path, tiny_folder: Path, *, num_frames: int = 2) -> str:
    vop.models.pretrained.create("vop-f+p", str(tiny_folder), num_frames=num_frames, device="cpu").save_pretrained(out)
    return str(out)


def contents(folder: Path, column: str = "embedding_1") -> dict[str, np.ndarray]:
    rows = Store.open(folder).table.to_arrow().to_pylist()
    return {row["segment"]: np.array(row[column], np.float32) for row in rows}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.allclose(one[key], other[key], atol=1e-6) for key in one)


@pytest.mark.usefixtures("real_processes")
def test_reembedding_equals_indexing(make, tuned):
    library, fresh = make(), make("fresh", model=tuned, num_frames=None)
    assert not same(contents(library), contents(fresh))
    report = reembed(library, tuned, precision="fp32")
    assert (report.videos, report.segments, report.resumed, report.dropped) == (3, 5, 0, [])
    assert same(contents(library, Store.open(library).models[0].column), contents(fresh))
    assert [model.name for model in Store.open(library).models] == [tuned]


def test_kept_frames_replace_missing_files(make, tuned, videos):
    library = make(keep_frames=True)
    expected = make("fresh", model=tuned, num_frames=None)
    for path in videos.values():
        path.unlink()
    reembed(library, tuned, precision="fp32")
    assert same(contents(library, Store.open(library).models[0].column), contents(expected))


def test_a_model_can_be_added(make, tuned, videos):
    library = make()
    before = contents(library)
    reembed(library, tuned, keep=True, precision="fp32")
    opened = Store.open(library)
    new, old = opened.models
    assert (new.name, old.column) == (tuned, "embedding_1")
    assert same(contents(library), before)
    assert not same(contents(library, new.column), before)
    models = open_models(opened.manifest, folder=library, precision="fp32")
    assert models[0].clip is models[1].clip
    vector = contents(library, new.column)[next(iter(before))]
    assert opened.search(vector, k=1, model=0)[0].score == pytest.approx(1, abs=1e-5)
    assert opened.search(vector, k=1, model=1)[0].score < 0.999


def test_one_of_two_models_can_be_kept_alone(make, tuned, tiny_folder):
    library = make()
    before = contents(library)
    reembed(library, tuned, keep=True, precision="fp32")
    with pytest.raises(UsageError, match="has this model already"):
        reembed(library, str(tiny_folder), keep=True, precision="fp32")
    reembed(library, str(tiny_folder), precision="fp32")
    (model,) = Store.open(library).models
    assert same(contents(library, model.column), before)


def test_new_videos_are_embedded_by_every_model(make, tuned, videos):
    from search.owners_videos import write_video

    library = make()
    reembed(library, tuned, keep=True, precision="fp32")
    write_video(videos["a"].with_name("new.mp4"), seed=33)
    assert index(library, [videos["a"].parent]).added == 1
    fresh = make("fresh", model=tuned, num_frames=None)
    assert same(contents(library, Store.open(library).models[0].column), contents(fresh))


def test_searches_use_the_old_model_until_the_new_one_is_complete(make, tuned, monkeypatch):
    library = make()
    opened, before = Store.open(library), contents(library)
    vector = next(iter(before.values()))
    seen = []
    real = moving.Move.take

    def take(self, finished):
        seen.append(opened.search(vector, k=1)[0].score)
        real(self, finished)

    monkeypatch.setattr(moving.Move, "take", take)
    reembed(library, tuned, precision="fp32")
    assert seen == pytest.approx([1, 1, 1], abs=1e-5)
    assert opened.search(vector, k=1)[0].score < 0.999  # an open library switches to the new table
    assert opened.models[0].name == tuned


def test_unreadable_videos_leave_the_library_unchanged(make, tuned, videos):
    library = make()
    before = contents(library)
    content = videos["b"].read_bytes()
    videos["b"].unlink()
    with pytest.raises(VopError, match=r"b\.mp4.*deleted or has changed"):
        reembed(library, tuned, precision="fp32")
    assert same(contents(library), before)
    videos["b"].write_bytes(content)
    with pytest.raises(VopError, match="index"):  # its modification time differs
        reembed(library, tuned, precision="fp32")
    index(library, [videos["b"].parent])
    report = reembed(library, tuned, precision="fp32")
    assert (report.videos, report.resumed) == (3, 2)  # the other two were embedded before the error


def test_reembedding_resumes(make, tuned, videos, tmp_path, monkeypatch):
    library = make()
    real = moving.Move.take

    def take(self, finished):
        if len(self._rows) == 2:
            raise KeyboardInterrupt
        real(self, finished)

    with monkeypatch.context() as patch:
        patch.setattr(moving.Move, "take", take)
        with pytest.raises(KeyboardInterrupt):
            reembed(library, tuned, precision="fp32", workers=1, batch_size=1)
    (tmp_path / "about.csv").write_text("path,author\na.mp4,Bob\n")
    index(library, [videos["a"].parent], metadata=tmp_path / "about.csv")  # a column that the staged table lacks
    report = reembed(library, tuned, precision="fp32")
    assert report.videos == 3
    assert report.resumed in (1, 2)  # a.mp4, whose metadata changed, may be one of the two
    assert Store.open(library).columns == ["author"]


def test_a_query_of_a_replaced_model_is_refused(make, tuned):
    library = make()
    opened = Store.open(library)
    vector, (old,) = next(iter(contents(library).values())), opened.models
    reembed(library, tuned, keep=True, precision="fp32")
    assert opened.search(vector, k=1, model=old)[0].score == pytest.approx(1, abs=1e-5)  # found in its new column
    other = make("other", model=tuned, num_frames=None)
    with pytest.raises(VopError, match="has moved to other models"):
        Store.open(other).search(vector, k=1, model=old)


def test_each_model_keeps_its_precision(make, tuned, videos):
    from search.owners_videos import write_video

    library = make()
    reembed(library, tuned, keep=True, precision="bf16")
    assert [model.precision for model in Store.open(library).models] == ["bf16", "fp32"]
    write_video(videos["a"].with_name("new.mp4"), seed=33)
    index(library, [videos["a"].parent])
    fresh = make("fresh")
    assert same(contents(library), contents(fresh))


def test_unreadable_videos_can_be_dropped(make, tuned, videos):
    library = make()
    videos["b"].unlink()
    report = reembed(library, tuned, drop_unreadable=True, precision="fp32")
    assert report.videos == 2
    assert [failure.path for failure in report.dropped] == [str(videos["b"])]
    assert report.to_dict()["dropped"] == [[failure.path, failure.reason] for failure in report.dropped]


def test_invalid_calls_are_refused(make, tuned, tmp_path, tiny_folder):
    library = make()
    with pytest.raises(UsageError, match="has this model already"):
        reembed(library, str(tiny_folder), precision="fp32")
    three = save(tmp_path / "three", tiny_folder, num_frames=3)
    with pytest.raises(UsageError, match="--num-frames 2"):
        reembed(library, three, keep=True, precision="fp32")
    reembed(library, three, keep=True, num_frames=2, precision="fp32")
    with pytest.raises(UsageError, match="workers -1"):
        reembed(library, str(tiny_folder), workers=-1)
    with pytest.raises(UsageError, match="batch_size is 0"):
        reembed(library, str(tiny_folder), batch_size=0)
    with pytest.raises(UsageError, match="nothing: no library"):
        reembed(tmp_path / "nothing", tuned)
    assert not (tmp_path / "nothing").exists()


def test_the_number_of_frames_may_change(make, tmp_path, tiny_folder):
    library = make(keep_frames=True)
    three = save(tmp_path / "three", tiny_folder, num_frames=3)
    reembed(library, three, precision="fp32")
    assert Store.open(library).manifest.num_frames == 3
    again = make("fresh", model=three, num_frames=None)
    assert same(contents(library, Store.open(library).models[0].column), contents(again))


def test_the_resizing_may_change(make, videos, squashing_folder):
    """Kept frames that were cropped do not serve a model that squashes."""
    library, squashing = make(keep_frames=True), str(squashing_folder)
    with pytest.raises(UsageError, match="squash"):
        reembed(library, squashing, keep=True, precision="fp32")
    reembed(library, squashing, precision="fp32")
    assert Store.open(library).manifest.resizing == Resizing(32, "squash", "bilinear")
    fresh = contents(make("fresh", model=squashing))
    moved = contents(library, Store.open(library).models[0].column)
    assert same(moved, fresh)
    assert not same(moved, contents(make("cropped")))
    assert {path.name for path in (library / "frames").iterdir() if any(path.rglob("*.safetensors"))} == {
        f"2x32-{DECODER_VERSION}-squash-bilinear"
    }
    (found,) = vop.Library.open(library).search(videos["a"], k=1)
    assert found.path == str(videos["a"])
