from __future__ import annotations

import json
import threading

import pytest
import torch

from clips import grey_frames, write_clip
from vop.datasets.frames import FrameStore
from vop.datasets.types import Dataset, Split, Video
from vop.datasets.validation import cache_dataset, check_dataset, readable_part
from vop.errors import DataError, UsageError, VopError
from vop.utils.ranks import Ranks
from vop.video.resizing import Resizing

DAMAGED = ["empty", "missing"]


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("one", "two", "three"):
        write_clip(folder / f"{name}.mp4", grey_frames(6))
    (folder / "empty.mp4").touch()
    names = ("one", "empty", "two", "missing", "three")
    videos = tuple(Video(name, folder / f"{name}.mp4") for name in names)
    captions = tuple(f"{name} {k}" for k in range(2) for name in names)
    return Split("train", videos, captions, tuple(range(5)) * 2)


@pytest.fixture
def store(tmp_path) -> FrameStore:
    return FrameStore(2, Resizing(8), cache=tmp_path / "cache")


def seen(calls):
    return lambda done, total: calls.append((done, total, threading.current_thread()))


@pytest.mark.parametrize("cached", [True, False])
def test_skip_leaves_out_bad_videos_and_lists_them(split, store, cached):
    store = store if cached else FrameStore(2, Resizing(8))
    kept, skipped = readable_part(split, store, on_bad_video="skip")
    assert [video.id for video in kept.videos] == ["one", "two", "three"]
    assert kept.captions == ("one 0", "two 0", "three 0", "one 1", "two 1", "three 1")
    assert [bad.id for bad in skipped] == DAMAGED
    assert [bad.kind for bad in skipped] == ["unreadable", "missing"]
    assert skipped[0].reason == "the file is empty (0 bytes)"


def test_decoding_all_fills_the_cache(split, store):
    kept, _ = readable_part(split, store)
    assert all(store.is_cached(video) for video in kept.videos)


def test_fail_names_all_bad_videos(split, store):
    with pytest.raises(DataError, match="2 of 5 videos of the split 'train' cannot be read") as caught:
        readable_part(split, store, on_bad_video="fail")
    assert "empty.mp4: the file is empty" in str(caught.value)
    assert "missing.mp4: the file does not exist" in str(caught.value)


def test_a_split_without_readable_videos_is_refused(split, store):
    with pytest.raises(DataError, match="2 of 2 videos"):
        readable_part(split.keep(DAMAGED), store, on_bad_video="skip")


def test_a_readable_split_is_returned_unchanged(split, store):
    good = split.keep({"one", "two"})
    kept, skipped = readable_part(good, store, on_bad_video="fail")
    assert kept is good
    assert skipped == ()


def test_an_unknown_policy_for_bad_videos_is_refused(split, store):
    with pytest.raises(UsageError, match="'ignore': known: skip, fail"):
        readable_part(split, store, on_bad_video="ignore")


def test_cache_dataset_decodes_once(split, store):
    dataset = Dataset("mine", {"train": split, "test": Split("test", split.videos[:1], ("again",), (0,))})
    calls = []
    report = cache_dataset(dataset, store, workers=2, progress=seen(calls))
    assert (report.decoded, report.reused, [bad.id for bad in report.failed]) == (3, 0, DAMAGED)
    assert [done for done, _, _ in calls] == [1, 2, 3, 4, 5]
    assert {total for _, total, _ in calls} == {5}
    assert {thread for _, _, thread in calls} == {threading.main_thread()}
    report = cache_dataset(dataset, store)
    assert (report.decoded, report.reused) == (0, 3)
    direct = FrameStore(2, Resizing(8)).load(split.videos[0])
    assert torch.equal(store.load(split.videos[0]), direct)


def test_caching_without_a_cache_folder_is_refused(split):
    with pytest.raises(UsageError, match="no cache folder"):
        cache_dataset(Dataset("mine", {"train": split}), FrameStore(2, Resizing(8)))


def test_an_unwritable_cache_is_an_error(split, tmp_path):
    (tmp_path / "file").write_text("a file")
    store = FrameStore(2, Resizing(8), cache=tmp_path / "file")
    with pytest.raises(VopError, match="this folder cannot be created"):
        cache_dataset(Dataset("mine", {"train": split}), store)


@pytest.mark.parametrize("decode", [True, False])
def test_check_counts_videos_captions_and_failures(split, decode):
    test = Split("test", split.videos[:2], ("x", "y"), (0, 1))
    report = check_dataset(Dataset("mine", {"train": split, "test": test}, notes=("n",)), decode=decode)
    assert report.splits == {"train": {"videos": 5, "captions": 10}, "test": {"videos": 2, "captions": 2}}
    assert (report.videos, report.captions) == (5, 12)
    assert [bad.id for bad in report.missing] == ["missing"]
    assert [bad.id for bad in report.unreadable] == ["empty"]
    assert json.loads(json.dumps(report.to_dict()))["captions"] == 12
    assert report.notes == ("n",)


class Apart(Ranks):
    """The first of two processes, each on its own machine. The other one sees no file of this one."""

    def gather(self, value):
        return [value, False if value is True else value]


def test_machines_without_a_common_cache_decode_everything(split, store):
    kept, skipped = readable_part(split, store, ranks=Apart(rank=0, size=2))
    assert [video.id for video in kept.videos] == ["one", "two", "three"]
    assert [failure.id for failure in skipped] == DAMAGED
    assert all(store.is_cached(video) for video in kept.videos)
    assert not [path for path in store.cache.iterdir() if path.is_file()]
