from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from clips import grey_frames, numbers, write_clip
from vop.datasets.frames import FrameStore
from vop.datasets.loading import EpochSampler, FrameLoader, PairDataset, caption_groups, count_groups
from vop.datasets.types import Split, Video
from vop.errors import UsageError, VideoError
from vop.video.resizing import Resizing


def sampler(num_items=23, **changes) -> EpochSampler:
    return EpochSampler(num_items, **{"batch_size": 4, "seed": 1, "epoch": 0, **changes})


def test_an_epoch_is_a_permutation():
    assert sorted(index for batch in sampler(24) for index in batch) == list(range(24))
    batches = list(sampler(23))
    assert [len(batch) for batch in batches] == [4] * 5
    assert len(sampler(23)) == 5
    assert len({index for batch in batches for index in batch} & set(range(23))) == 20


def test_the_order_depends_on_seed_and_epoch():
    assert list(sampler()) == list(sampler())
    others = [list(sampler(epoch=1)), list(sampler(seed=2)), list(sampler(seed=0, epoch=1))]
    assert list(sampler()) not in others
    assert others[0] != others[1] != others[2]


def test_a_given_order_fills_the_batches():
    order = list(reversed(range(23)))
    assert list(sampler(order=order)) == [order[start : start + 4] for start in range(0, 20, 4)]
    assert list(sampler(order=order, rank=1, world_size=2, start_batch=4)) == [order[18:20]]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_global_batches(world_size):
    ranks = [list(sampler(rank=rank, world_size=world_size)) for rank in range(world_size)]
    together = [[index for share in shares for index in share] for shares in zip(*ranks, strict=True)]
    assert together == list(sampler())


@pytest.mark.parametrize("start", [0, 1, 4, 5, 9])
def test_an_epoch_resumes_at_any_batch(start):
    rest = sampler(start_batch=start)
    assert list(rest) == list(sampler())[start:]
    assert len(rest) == len(list(rest))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 5, "world_size": 2}, "batch_size is 5; it must divide evenly among 2"),
        ({"rank": 2, "world_size": 2}, "rank is 2; it must be from 0 to 1"),
        ({"batch_size": 24}, "batch_size is 24, but there are only 23 items"),
    ],
)
def test_invalid_sampler_arguments_are_refused(changes, message):
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
    store = FrameStore(2, Resizing(8))
    batches = EpochSampler(10, batch_size=4, seed=0, epoch=0)
    loaded = list(FrameLoader(PairDataset(split, store), batches=batches, workers=workers))
    assert len(loaded) == 2
    for batch, indices in zip(loaded, batches, strict=True):
        assert batch["frames"].shape == (4, 2, 3, 8, 8)
        assert batch["frames"].dtype == torch.uint8
        assert batch["video"].tolist() == [split.targets[index] for index in indices]
        assert batch["captions"] == [f"video {video}" for video in batch["video"].tolist()]
        assert batch["rows"].tolist() == [0, 1, 2, 3]
        for frames, video in zip(batch["frames"], batch["video"].tolist(), strict=True):
            assert numbers(frames) == [5 * video + 1, 5 * video + 3]


@pytest.fixture
def uneven() -> Split:
    """Videos with 7, 3 and 1 captions."""
    targets = [0] * 7 + [1] * 3 + [2]
    videos = tuple(Video(str(k), Path(f"{k}.mp4")) for k in range(3))
    return Split("train", videos, tuple(f"{target}, caption {row}" for row, target in enumerate(targets)), targets)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_groups_contain_every_caption_once(uneven, size):
    groups = caption_groups(uneven, size=size, seed=3, epoch=1)
    assert sorted(row for group in groups for row in group) == list(range(11))
    assert all(len({uneven.targets[row] for row in group}) == 1 for group in groups)
    assert max(map(len, groups)) == size
    assert len(groups) == count_groups(uneven, size=size) == sum(math.ceil(n / size) for n in (7, 3, 1))
    assert groups == caption_groups(uneven, size=size, seed=3, epoch=1)


def test_groups_change_with_the_epoch(uneven):
    assert caption_groups(uneven, size=3, seed=3, epoch=1) != caption_groups(uneven, size=3, seed=3, epoch=2)


def test_too_many_captions_per_video_are_refused(uneven):
    with pytest.raises(UsageError, match="captions_per_video is 8, .* 7 captions"):
        caption_groups(uneven, size=8, seed=0, epoch=0)


def test_a_group_has_one_video_for_all_its_captions(split):
    groups = caption_groups(split, size=2, seed=0, epoch=0)
    store = FrameStore(2, Resizing(8))
    pairs = PairDataset(split, store, groups)
    loaded = list(FrameLoader(pairs, batches=EpochSampler(5, batch_size=5, seed=0, epoch=0)))
    (batch,) = loaded
    assert batch["frames"].shape == (5, 2, 3, 8, 8)
    assert len(batch["captions"]) == len(batch["rows"]) == 10
    for caption, row in zip(batch["captions"], batch["rows"].tolist(), strict=True):
        assert caption == f"video {batch['video'][row]}"


def test_batches_from_the_cache_are_bit_identical(split, tmp_path):
    batches = EpochSampler(10, batch_size=5, seed=0, epoch=0)
    cached = FrameStore(3, Resizing(16), cache=tmp_path)
    runs = [
        list(FrameLoader(PairDataset(split, store), batches=batches))
        for store in (FrameStore(3, Resizing(16)), cached, cached)
    ]
    for batch, filling, reading in zip(*runs, strict=True):
        assert torch.equal(batch["frames"], filling["frames"])
        assert torch.equal(batch["frames"], reading["frames"])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_video_stops_the_loader(split, workers):
    broken = Split(
        "train", (*split.videos, Video("x", Path("missing.mp4"))), (*split.captions, "x"), (*split.targets, 5)
    )
    batches = EpochSampler(11, batch_size=11, seed=0, epoch=0)
    loader = FrameLoader(PairDataset(broken, FrameStore(1, Resizing(8))), batches=batches, workers=workers)
    with pytest.raises(VideoError) as caught:
        list(loader)
    assert (caught.value.path, caught.value.reason) == (Path("missing.mp4"), "the file does not exist")
