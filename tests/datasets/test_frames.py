from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file

import vop
from clips import grey_frames, numbers, write_clip
from vop.datasets import frames as module
from vop.datasets.frames import FrameStore
from vop.datasets.types import Video
from vop.errors import UsageError, VideoError
from vop.video.clip import ASPECTS, DECODER_VERSION
from vop.video.resizing import INTERPOLATIONS, MODES, Resizing


@pytest.fixture
def video(tmp_path):
    return Video("one", write_clip(tmp_path / "one.mp4", grey_frames(12)))


@pytest.fixture
def store(tmp_path):
    return FrameStore(4, Resizing(16), cache=tmp_path / "cache")


def forbid_decoding(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "decode_frames", refuse)


def test_cached_frames_are_bit_identical(video, store, monkeypatch):
    direct = FrameStore(4, Resizing(16)).load(video)
    assert torch.equal(store.load(video), direct)
    assert store.is_cached(video)
    forbid_decoding(monkeypatch)
    assert torch.equal(store.load(video), direct)


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _without_checksum(path):
    save_file({"frames": torch.zeros((4, 3, 16, 16), dtype=torch.uint8)}, path)


def _of_another_shape(path):
    save_file({"frames": torch.zeros((4, 3, 8, 8), dtype=torch.uint8)}, path)


def _of_another_name(path):
    save_file({"pictures": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        _without_checksum,
        _of_another_shape,
        _of_another_name,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a tensor file"),
    ],
)
def test_a_damaged_cache_file_is_replaced(video, store, damage):
    direct = store.load(video)
    damage(store.cache_path(video))
    assert not store.is_cached(video)
    assert torch.equal(store.load(video), direct)
    assert store.is_cached(video)


def test_a_changed_video_is_decoded_again(video, store):
    before = store.load(video)
    write_clip(video.path, grey_frames(24)[12:])
    os.utime(video.path, ns=(1, 1))
    after = store.load(video)
    assert numbers(before) == [1, 4, 7, 10]
    assert numbers(after) == [13, 16, 19, 22]


def test_different_settings_have_different_cache_files(video, store, tmp_path):
    paths = {
        FrameStore(frames, Resizing(size, mode, interpolation), cache=store.cache, aspect=aspect).cache_path(video)
        for frames in (4, 5)
        for size in (16, 17)
        for mode in MODES
        for interpolation in INTERPOLATIONS
        for aspect in ASPECTS
    }
    assert len(paths) == 2 * 2 * len(MODES) * len(INTERPOLATIONS) * len(ASPECTS) == 48


@pytest.mark.parametrize("aspect", ASPECTS)
def test_names_of_cache_files_do_not_change(video, store, aspect):
    """Caches of all versions contain frames that are resized as for CLIP."""
    state = video.path.stat()
    identity = [str(video.path.resolve()), state.st_size, state.st_mtime_ns, 4, 16, DECODER_VERSION]
    key = hashlib.sha256(json.dumps(identity if aspect == "display" else [*identity, "stored"]).encode()).hexdigest()
    path = FrameStore(4, Resizing(16), cache=store.cache, aspect=aspect).cache_path(video)
    assert path == store.cache / key[:2] / f"{key[2:40]}.safetensors"


def test_squashed_frames_are_cached(video, store):
    squashing = FrameStore(4, Resizing(16, "squash", "bilinear"), cache=store.cache)
    cropped = store.load(video)
    expected = vop.read_frames(video.path, num_frames=4, size=16, resize="squash", interpolation="bilinear")
    for _ in range(2):
        assert torch.equal(squashing.load(video), expected)
    assert torch.equal(store.load(video), cropped)
    assert squashing.is_cached(video)


def test_frames_of_another_decoder_version_are_decoded_again(video, store, monkeypatch):
    store.load(video)
    monkeypatch.setattr(module, "DECODER_VERSION", module.DECODER_VERSION + 1)
    assert not store.is_cached(video)


def test_what_a_killed_process_left_in_the_cache_is_deleted(video, store):
    store.load(video)
    cached = store.cache_path(video)
    old, new = cached.with_name(f".tmp-01234567-{cached.name}"), cached.with_name(f".tmp-89abcdef-{cached.name}")
    for file in (old, new):
        file.write_bytes(b"unfinished")
    os.utime(old, (1, 1))
    with store.isolated() as isolated:
        assert isolated.is_cached(video)
    assert sorted(cached.parent.iterdir()) == sorted([cached, new])  # another process may be writing the new one


def test_unreadable_videos_are_not_cached(tmp_path, store):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4: the file is empty"):
        store.load(Video("empty", tmp_path / "empty.mp4"))
    with pytest.raises(VideoError, match=r"missing\.mp4: the file does not exist"):
        store.load(Video("missing", tmp_path / "missing.mp4"))
    assert not store.cache.exists()


@pytest.mark.parametrize(
    ("num_frames", "size", "says"),
    [
        (10**9, 224, "num_frames is 1000000000; at most 4096 are read"),
        (12, 10**9, r"size is 1,000,000,000; .* from 1 to 4,096"),
        (4096, 4096, "206,158,430,208 bytes per video; at most 2,147,483,648"),
        (0, 224, "num_frames is 0"),
    ],
)
def test_frames_that_need_too_much_memory_are_refused(num_frames, size, says):
    with pytest.raises(UsageError, match=says):
        FrameStore(num_frames, Resizing(size))
    with pytest.raises(UsageError, match=says):
        vop.read_frames("a.mp4", num_frames=num_frames, size=size)


def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="this is a pipe or a device, not a file"):
        vop.read_frames(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="this is a pipe or a device, not a file"):
        vop.probe("/dev/zero")
