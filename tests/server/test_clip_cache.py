"""The cache of clips."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clips import grey_frames, write_clip
from video.exported import shown
from vop.errors import VideoError, VopError
from vop.server.clip_cache import ClipCache
from vop.server.errors import StorageFull


class FakeExport:
    """Writes clips of 100 bytes, and records them."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.seconds, self.written = seconds, []
        self.error: Exception | None = None

    def __call__(self, path: Path, out: Path, *, start_seconds: float, end_seconds: float, **_: object) -> None:
        self.written.append((start_seconds, end_seconds))
        time.sleep(self.seconds)
        if self.error:
            out.with_name(f".tmp-0123-{out.name}").write_bytes(b"unfinished")
            raise self.error
        out.write_bytes(str(start_seconds).encode().ljust(100))


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "video.avi"
    path.write_bytes(b"a video")
    return path


def test_cache_exports_a_clip_once(tmp_path, video):
    export = FakeExport()
    cache = ClipCache(tmp_path / "clips", max_bytes=10_000, write=export)
    first = cache.get(video, start_seconds=1, end_seconds=2)
    assert cache.get(str(video), start_seconds=1, end_seconds=2) == first
    assert cache.get(video, start_seconds=1, end_seconds=3) != first
    assert cache.get(video, start_seconds=1.0, end_seconds=2.0) == first
    assert export.written == [(1, 2), (1, 3)]
    first.unlink()
    assert cache.get(video, start_seconds=1, end_seconds=2).exists()
    video.write_bytes(b"another video")
    assert cache.get(video, start_seconds=1, end_seconds=2) != first


def test_cache_removes_the_least_recently_used_clip(tmp_path, video):
    cache = ClipCache(tmp_path / "clips", max_bytes=350, write=FakeExport())
    files = [cache.get(video, start_seconds=start, end_seconds=9) for start in range(3)]
    with files[1].open("rb") as sending:
        cache.get(video, start_seconds=0, end_seconds=9)
        cache.get(video, start_seconds=3, end_seconds=9)
        assert [file.exists() for file in files] == [True, False, True]
        assert sending.read().strip() == b"1"  # a clip that is being sent stays readable


def test_cache_keeps_one_clip_larger_than_its_limit(tmp_path, video):
    cache = ClipCache(tmp_path / "clips", max_bytes=10, write=FakeExport())
    first = cache.get(video, start_seconds=0, end_seconds=9)
    assert first.exists()
    assert cache.get(video, start_seconds=1, end_seconds=9).exists()
    assert not first.exists()


def test_cache_exports_once_for_simultaneous_requests(tmp_path, video):
    export = FakeExport(seconds=0.3)
    cache = ClipCache(tmp_path / "clips", max_bytes=10_000, write=export)
    start = threading.Barrier(8)

    def ask(_: int) -> Path:
        start.wait()
        return cache.get(video, start_seconds=1, end_seconds=2)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1
    assert export.written == [(1, 2)]


def test_cache_recovers_from_errors(tmp_path, video):
    export = FakeExport()
    cache = ClipCache(tmp_path / "clips", max_bytes=10_000, write=export)
    export.error = VideoError(video, "decoding crashed")
    with pytest.raises(VideoError, match="crashed"):
        cache.get(video, start_seconds=1, end_seconds=2)
    assert not list((tmp_path / "clips").iterdir())  # no unfinished file either
    export.error = None
    assert cache.get(video, start_seconds=1, end_seconds=2).exists()
    with pytest.raises(VideoError) as caught:
        cache.get(tmp_path / "gone.avi", start_seconds=1, end_seconds=2)
    assert caught.value.path == tmp_path / "gone.avi"


def test_cache_makes_room_on_a_full_disk(tmp_path, video):
    """Other programs may have filled it since the server started."""
    folder, export = tmp_path / "clips", FakeExport()

    def write(path: Path, out: Path, **clip: float) -> None:
        if len(list(folder.iterdir())) >= disk["holds"]:
            raise VopError(f"{out}: no space left")
        export(path, out, **clip)

    disk = {"holds": 4}
    cache = ClipCache(folder, max_bytes=10_000, write=write)
    files = [cache.get(video, start_seconds=start, end_seconds=9) for start in range(5)]
    assert [file.exists() for file in files] == [False, False, True, True, True]
    disk["holds"] = 0
    with pytest.raises(StorageFull):
        cache.get(video, start_seconds=5, end_seconds=9)
    with pytest.raises(StorageFull):
        cache.get(video, start_seconds=6, end_seconds=9)
    assert [file.exists() for file in files] == [False, False, False, False, True]


def test_cache_reuses_clips_of_an_earlier_server(tmp_path, video):
    folder = tmp_path / "clips"
    earlier = ClipCache(folder, max_bytes=10_000, write=FakeExport())
    files = [earlier.get(video, start_seconds=start, end_seconds=9) for start in range(3)]
    (folder / f".tmp-0123-{files[0].name}").write_bytes(b"unfinished")
    export = FakeExport()
    cache = ClipCache(folder, max_bytes=250, write=export)
    assert sorted(folder.iterdir()) == sorted(files[1:])
    assert cache.get(video, start_seconds=2, end_seconds=9) == files[2]
    assert not export.written


def test_cache_exports_real_clips(tmp_path):
    path = write_clip(tmp_path / "clip.avi", grey_frames(24), codec="mpeg4")
    cache = ClipCache(tmp_path / "clips", max_bytes=10**6)
    assert shown(cache.get(path, start_seconds=0.4, end_seconds=0.8), 5) == [11, 13, 15, 17, 19]
