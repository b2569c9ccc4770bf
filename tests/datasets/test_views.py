"""Random views of training videos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clips import grey_frames, numbers, write_clip
from vop.datasets.augmentation import AUGMENTATIONS, Augmentation
from vop.datasets.frames import FrameStore
from vop.datasets.loading import PairDataset
from vop.datasets.types import Split, Video
from vop.datasets.views import ASPECTS, CANDIDATES, RandomViews, candidates, mentions_side, random_box
from vop.errors import UsageError
from vop.video.resizing import Resizing

RELEASE = AUGMENTATIONS["release"]
STORE = FrameStore(4, Resizing(16))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Video:
    """24 frames of 64 x 32 pixels, each brighter than the one before, and brighter from left to right."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None] * 2, (32, 64, 3))
    frames = [ramp + np.uint8(5 * number) for number in range(24)]
    return Video("one", write_clip(tmp_path_factory.mktemp("views") / "one.mp4", frames))


def views(store=STORE, *, seed=0, **settings) -> RandomViews:
    return RandomViews(store, Augmentation(**settings), seed)


def load(loader, video, *, captions=("a dog runs",), key=(0, 0)):
    return loader.load(video, captions=captions, key=key)


def test_without_augmentation_the_frames_are_the_usual_ones(video):
    assert candidates(STORE, Augmentation()) == STORE
    assert not Augmentation()
    assert torch.equal(load(views(), video), STORE.load(video))


def test_the_middle_candidates_are_the_usual_frames(video):
    found = candidates(STORE, Augmentation(frame_sampling="random")).load(video)
    assert torch.equal(found[CANDIDATES // 2 :: CANDIDATES], STORE.load(video))


def test_frames_are_random_within_their_intervals(tmp_path):
    """24 numbered frames in 4 intervals of 6: the candidates are frames 1, 3 and 5 of each."""
    video = Video("numbered", write_clip(tmp_path / "numbered.mp4", grey_frames(24)))
    seen = [numbers(load(views(frame_sampling="random"), video, key=(epoch, 3))) for epoch in range(20)]
    for position in range(4):
        assert {frames[position] - 6 * position for frames in seen} == {1, 3, 5}


@pytest.mark.parametrize("mode", ["crop", "squash"])
def test_crops_see_the_whole_frame_and_have_the_backbones_size(video, mode):
    store = FrameStore(4, Resizing(16, mode))
    whole = candidates(store, Augmentation(crop_area=0.5)).load(video)
    assert whole.shape == {"crop": (4, 3, 19, 38), "squash": (4, 3, 19, 19)}[mode]
    rows = whole.float().mean(dim=(0, 1, 2))
    assert rows[-1] - rows[0] > 50  # from the left edge to the right one
    found = [load(views(store, crop_area=0.2), video, key=(0, item)) for item in range(8)]
    assert {frames.shape for frames in found} == {(4, 3, 16, 16)}
    assert len({frames.float().mean().item() for frames in found}) == 8


def test_a_crop_is_the_same_for_all_frames(tmp_path):
    frames = np.broadcast_to(np.random.default_rng(0).integers(0, 255, (1, 32, 64, 3), dtype=np.uint8), (8, 32, 64, 3))
    still = Video("still", write_clip(tmp_path / "still.mkv", frames, codec="ffv1", pix_fmt="bgr0"))
    found = load(views(crop_area=0.5, flip=0.5), still)
    assert all(torch.equal(frame, found[0]) for frame in found)


def test_a_mirrored_video(video):
    usual = STORE.load(video)
    assert torch.equal(load(views(flip=1.0), video), usual.flip(-1))
    assert torch.equal(load(views(flip=1.0), video, captions=["a dog", "it runs to the Left"]), usual)
    mirrored = [not torch.equal(load(views(flip=0.5), video, key=(0, item)), usual) for item in range(40)]
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize(
    ("caption", "mentions"),
    [
        ("turn left.", True),
        ("RIGHT-hand side", True),
        ("leftmost car", True),
        ("moves rightwards", True),
        ("a bright leftover", False),
        ("copyright", False),
        ("hält links", False),
    ],
)
def test_sides_in_captions(caption, mentions):
    assert mentions_side(["a dog", caption]) == mentions


def test_a_view_depends_on_seed_and_key_only(video):
    first = load(views(**vars(RELEASE)), video, key=(2, 7))
    assert torch.equal(load(views(**vars(RELEASE)), video, key=(2, 7)), first)
    for other in (
        load(views(seed=1, **vars(RELEASE)), video, key=(2, 7)),
        load(views(**vars(RELEASE)), video, key=(3, 7)),
        load(views(**vars(RELEASE)), video, key=(2, 8)),
    ):
        assert not torch.equal(other, first)


def test_views_from_the_cache_have_the_same_bits(video, tmp_path):
    cached = FrameStore(4, Resizing(16), cache=tmp_path)
    direct = load(views(**vars(RELEASE)), video)
    for _ in ("filling", "reading"):
        assert torch.equal(load(views(cached, **vars(RELEASE)), video), direct)
    assert candidates(cached, RELEASE).is_cached(video)
    assert not cached.is_cached(video)


def test_pairs_have_another_view_in_each_epoch(video):
    split = Split("train", (video,), ("a dog runs", "it turns right"), (0, 0))
    items = [
        PairDataset(split, STORE, views=views(crop_area=0.2, flip=1.0), epoch=epoch)[row]["frames"]
        for epoch in (0, 1)
        for row in (0, 1)
    ]
    assert len({item.float().mean().item() for item in items}) == 4
    assert all(item[..., -1].float().mean() > item[..., 0].float().mean() for item in items)  # not mirrored


@pytest.mark.parametrize("smallest", [0.08, 0.5, 1.0])
@pytest.mark.parametrize(("width", "height"), [(320, 180), (180, 320), (100, 100)])
def test_boxes_lie_in_the_frame_and_keep_to_their_limits(smallest, width, height):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        left, top, right, bottom = random_box(width, height, smallest=smallest, rng=rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        aspect = (right - left) / (bottom - top)
        assert ASPECTS[0] * 0.97 < aspect < ASPECTS[1] * 1.03
        shares.append((right - left) * (bottom - top) / (width * height))
    largest = min(1.0, min(width / height, height / width) * ASPECTS[1])
    assert max(shares) <= largest * 1.02
    assert min(shares) >= min(smallest, largest) * 0.95


def test_a_very_long_frame_is_cropped_in_its_middle():
    assert random_box(1000, 10, smallest=0.5, rng=np.random.default_rng(0)) == (493, 0, 506, 10)
    assert random_box(10, 1000, smallest=0.5, rng=np.random.default_rng(0)) == (0, 493, 10, 506)


@pytest.mark.parametrize("values", [{"frame_sampling": "last"}, {"crop_area": 0.0}, {"crop_area": 1.1}, {"flip": -0.1}])
def test_wrong_values(values):
    ((name, value),) = values.items()
    with pytest.raises(UsageError, match=f"{name}.*{value}"):
        Augmentation(**values)
