from __future__ import annotations

from pathlib import Path

import pytest

from vop.datasets.splits import with_validation
from vop.datasets.types import Dataset, Split, Video
from vop.errors import DataError, UsageError


def dataset(count: int, *, names=("train", "test")) -> Dataset:
    def split(name):
        videos = tuple(Video(f"{name}{k}", Path(f"{k}.mp4")) for k in range(count))
        captions = tuple(f"{word} {k}" for k in range(count) for word in ("one", "two"))
        return Split(name, videos, captions, tuple(k // 2 for k in range(2 * count)))

    return Dataset("mine", {name: split(name) for name in names})


def ids(split):
    return {video.id for video in split.videos}


def test_whole_videos_are_held_out_of_train():
    before = dataset(40)
    after = with_validation(before, fraction=0.1, seed=3)
    train, val = after.split("train"), after.split("val")
    assert len(val.videos) == 4
    assert len(val.captions) == 8
    assert val.name == "val"
    assert not ids(train) & ids(val)
    assert ids(train) | ids(val) == ids(before.split("train"))
    assert after.split("test") == before.split("test")
    assert after.notes == ("4 videos held out of train for validation (seed 3)",)


def test_only_the_seed_determines_the_split():
    assert with_validation(dataset(40), seed=1) == with_validation(dataset(40), seed=1)
    chosen = {frozenset(ids(with_validation(dataset(40), seed=seed).split("val"))) for seed in range(5)}
    assert len(chosen) > 1


def test_fraction_and_maximum_set_the_size():
    assert len(with_validation(dataset(2)).split("val").videos) == 1
    assert len(with_validation(dataset(40), fraction=0.5, max_videos=7).split("val").videos) == 7
    assert len(with_validation(dataset(3), fraction=0.99).split("train").videos) == 1


def test_an_existing_validation_split_is_kept():
    given = dataset(4, names=("train", "val"))
    assert with_validation(given) is given


def test_impossible_splits_are_refused():
    with pytest.raises(DataError, match="held out of 1 training video"):
        with_validation(dataset(1))
    with pytest.raises(DataError, match="no 'train' split"):
        with_validation(dataset(4, names=("test",)))
    with pytest.raises(UsageError, match=r"fraction is 1\.5"):
        with_validation(dataset(4), fraction=1.5)
    with pytest.raises(UsageError, match="max_videos is 0"):
        with_validation(dataset(4), max_videos=0)
