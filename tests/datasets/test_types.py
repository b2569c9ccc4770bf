from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from vop.datasets.types import Dataset, Split, Video
from vop.errors import DataError

VIDEOS = tuple(Video(name, Path(f"{name}.mp4")) for name in "abc")


def split(**changes) -> Split:
    fields = {
        "name": "train",
        "videos": VIDEOS,
        "captions": ("a0", "b0", "a1", "c0"),
        "targets": (0, 1, 0, 2),
    }
    return Split(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "dev"}, "'dev'"),
        ({"videos": (*VIDEOS, VIDEOS[1])}, "'b' is listed more than once"),
        ({"captions": ("a0", "b0")}, "2 captions, but 4 targets"),
        ({"captions": ("a0", " ", "a1", "c0")}, "caption 1 is empty"),
        ({"targets": (0, 1, 0, 3)}, "the target of caption 3 is 3; give 0 to 2"),
        ({"targets": (0, 1, 0, -1)}, "the target of caption 3 is -1"),
        ({"targets": (0, 0, 0, 2)}, "'b' has no caption"),
    ],
)
def test_invalid_splits_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        split(**changes)


def test_keep_selects_videos_and_their_captions():
    kept = split().keep({"c", "a", "unknown"})
    assert [video.id for video in kept.videos] == ["a", "c"]
    assert kept.captions == ("a0", "a1", "c0")
    assert kept.targets == (0, 0, 1)
    assert split().keep({"a", "b", "c"}) == split()


def test_captions_are_grouped_by_video():
    assert split().captions_of == ((0, 2), (1,), (3,))


def test_reprs_show_counts():
    dataset = Dataset("mine", {"test": split(name="test"), "train": split()})
    assert repr(split()) == "Split('train', 3 videos, 4 captions)"
    assert repr(dataset) == (
        "Dataset('mine', Split('train', 3 videos, 4 captions), Split('test', 3 videos, 4 captions))"
    )


def test_splits_are_found_by_name():
    other = split(name="test", videos=(VIDEOS[0], *(Video(x, Path(f"{x}.mp4")) for x in "de")))
    dataset = Dataset("mine", {"train": split(), "test": other}, notes=["note"])
    assert list(dataset.splits) == ["train", "test"]
    assert [video.id for video in dataset.videos] == ["a", "b", "c", "d", "e"]
    assert dataset.split("test") is other
    with pytest.raises(DataError, match="mine has no 'val' split; it has: train, test"):
        dataset.split("val")
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.name, dict(copy.splits), copy.notes) == ("mine", dict(dataset.splits), ("note",))


def test_invalid_datasets_are_refused():
    with pytest.raises(DataError, match="dev"):
        Dataset("mine", {"dev": split()})
    with pytest.raises(DataError, match="'train' has the key 'test'"):
        Dataset("mine", {"test": split()})
