"""What a server remembers of clips to keep."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vop.server import saved_clips
from vop.server.clip_cache import ClipCache
from vop.server.saved_clips import SavedClips
from vop.video.clip_export import SavedClip


def test_threads_do_not_lose_each_others_times(tmp_path, monkeypatch):
    """Many threads save clips while those of evicted ones are forgotten."""
    monkeypatch.setattr(saved_clips, "_MOST", 8)
    exists = Path.exists

    def on_a_slow_disk(path: Path) -> bool:
        time.sleep(1e-4)  # so that other threads go on
        return exists(path)

    monkeypatch.setattr(Path, "exists", on_a_slow_disk)
    video = tmp_path / "video.avi"
    video.write_bytes(b"a video")

    def save(path, out, *, start_seconds, **_):
        out.write_bytes(b"a clip")
        return SavedClip(start_seconds=start_seconds, lead_seconds=0.0, copied=True)

    clips = SavedClips(ClipCache(tmp_path / "clips", max_bytes=10**6), save)

    def saved(number: int) -> float | None:
        found = clips.get(video, exact=False, start_seconds=number, end_seconds=number + 1)[1]
        return found and found.start_seconds

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(saved, range(40))) == list(range(40))
    assert [saved(number) for number in range(40)] == list(range(40))
