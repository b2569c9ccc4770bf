from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from clips import grey_frames, numbers, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from vop.data.frames import FrameStore
from vop.data.loading import EpochSampler, PairDataset, VideoDataset, frame_loader
from vop.data.types import Split, Video
from vop.errors import UsageError, VideoError


def sampler(num_items=23, **changes) -> EpochSampler:
    return EpochSampler(num_items, **{"batch_size": 4, "seed": 1, "epoch": 0, **changes})


def test_an_epoch_is_a_permutation():
    batches = list(sampler(drop_last=False))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert sorted(index for batch in batches for index in batch) == list(range(23))
    assert len(sampler(drop_last=False)) == 6
    assert [len(batch) for batch in sampler()] == [4] * 5
    assert len(sampler()) == 5


def test_seed_and_epoch_decide():
    assert list(sampler()) == list(sampler())
    others = [list(sampler(epoch=1)), list(sampler(seed=2)), list(sampler(seed=0, epoch=1))]
    assert list(sampler()) not in others
    assert others[0] != others[1] != others[2]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_global_batches(world_size):
    ranks = [list(sampler(rank=rank, world_size=world_size)) for rank in range(world_size)]
    together = [[index for share in shares for index in share] for shares in zip(*ranks, strict=True)]
    assert together == list(sampler())


@pytest.mark.parametrize("start", [0, 1, 4, 5, 9])
def test_an_epoch_goes_on_where_it_stopped(start):
    rest = sampler(start_batch=start)
    assert list(rest) == list(sampler())[start:]
    assert len(rest) == len(list(rest))


@settings(deadline=None)
@given(st.data())
def test_groups_stay_together(data):
    size = data.draw(st.integers(2, 9))
    sizes = data.draw(st.lists(st.integers(1, min(size, 4)), min_size=1, max_size=40))
    groups, count = [], 0
    for length in sizes:
        groups.append(list(range(count, count + length)))
        count += length
    batches = list(EpochSampler(count, batch_size=size, seed=0, epoch=0, drop_last=False, groups=groups))
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    where = {index: number for number, batch in enumerate(batches) for index in batch}
    cut = sum(len({where[index] for index in group}) > 1 for group in groups)
    assert cut <= len(batches) - 1
    if all(size % length == 0 for length in sizes) and len(set(sizes)) == 1:
        assert cut == 0


def test_pairs_and_singles_are_never_cut():
    groups = [(2 * k, 2 * k + 1) for k in range(30)]
    batches = list(sampler(90, batch_size=7, groups=groups))
    where = {index: number for number, batch in enumerate(batches) for index in batch}
    placed = [(where[a], where[b]) for a, b in groups if a in where and b in where]
    assert len(placed) >= 25
    assert all(one == other for one, other in placed)


def test_groups_are_spread_over_the_epoch():
    groups = [(2 * k, 2 * k + 1) for k in range(20)]
    batches = list(sampler(200, batch_size=10, groups=groups))
    counts = Counter(number for number, batch in enumerate(batches) for index in batch if index < 40)
    assert max(counts.values()) <= 10
    assert len(counts) >= 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 5, "world_size": 2}, "batch_size is 5; it must divide evenly among 2"),
        ({"rank": 2, "world_size": 2}, "rank is 2; it must be from 0 to 1"),
        ({"world_size": 2, "drop_last": False}, "drop_last is False"),
        ({"batch_size": 24}, "batch_size is 24, but there are only 23 captions"),
        ({"groups": [(0, 1), (1, 2)]}, "groups share an index"),
        ({"groups": [(0, 1, 2, 3, 4)]}, "a group is larger than a batch of 4"),
    ],
)
def test_sampler_arguments(changes, message):
    with pytest.raises(UsageError, match=message):
        sampler(**changes)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    folder = tmp_path_factory.mktemp("clips")
    frames = grey_frames(25)
    videos = tuple(Video(str(k), write_clip(folder / f"{k}.mp4", frames[5 * k : 5 * k + 5])) for k in range(5))
    return Split("train", videos, tuple(f"video {k % 5}" for k in range(10)), tuple(k % 5 for k in range(10)))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_match_captions_to_frames(split, workers):
    store = FrameStore(num_frames=2, size=8)
    batches = EpochSampler(10, batch_size=4, seed=0, epoch=0)
    loaded = list(frame_loader(PairDataset(split, store), batches=batches, workers=workers))
    assert len(loaded) == 2
    for batch, indices in zip(loaded, batches, strict=True):
        assert batch["frames"].shape == (4, 2, 3, 8, 8)
        assert batch["frames"].dtype == torch.uint8
        assert batch["video"].tolist() == [split.targets[index] for index in indices]
        assert batch["caption"] == [f"video {video}" for video in batch["video"].tolist()]
        for frames, video in zip(batch["frames"], batch["video"].tolist(), strict=True):
            assert numbers(frames) == [5 * video + 1, 5 * video + 3]


def test_batches_from_the_cache_are_bit_identical(split, tmp_path):
    batches = EpochSampler(10, batch_size=5, seed=0, epoch=0)
    cached = FrameStore(num_frames=3, size=16, cache=tmp_path)
    runs = [
        list(frame_loader(PairDataset(split, store), batches=batches))
        for store in (FrameStore(num_frames=3, size=16), cached, cached)
    ]
    for batch, filling, reading in zip(*runs, strict=True):
        assert torch.equal(batch["frames"], filling["frames"])
        assert torch.equal(batch["frames"], reading["frames"])


def test_videos_in_order_for_evaluation(split):
    loaded = list(frame_loader(VideoDataset(split, FrameStore(num_frames=1, size=8)), batch_size=2))
    assert [batch["video"].tolist() for batch in loaded] == [[0, 1], [2, 3], [4]]
    assert "caption" not in loaded[0]
    assert [numbers(frames)[0] for batch in loaded for frames in batch["frames"]] == [2, 7, 12, 17, 22]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_breaks_later_stops_the_loader_with_its_name(split, workers):
    broken = Split("train", (*split.videos, Video("x", Path("gone.mp4"))), (*split.captions, "x"), (*split.targets, 5))
    loader = frame_loader(PairDataset(broken, FrameStore(num_frames=1, size=8)), batch_size=11, workers=workers)
    with pytest.raises(VideoError) as caught:
        list(loader)
    assert (caught.value.path, caught.value.reason) == (Path("gone.mp4"), "there is no such file")


def test_loader_arguments(split):
    with pytest.raises(UsageError, match="either batches or batch_size"):
        frame_loader(PairDataset(split, FrameStore(num_frames=1, size=8)))
