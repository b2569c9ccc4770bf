"""Clips to keep, in the cache of clips, with what is known about how they were cut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vop.server.clip_cache import ClipCache, Remote
from vop.video.clip_export import SAVED_VERSION, SavedClip

_MOST = 1000  # entries until those of evicted clips are forgotten


class SavedClips:
    """Writes clips to keep, each once as long as the cache has it.

    Args:
        save: writes a clip, as `vop.video.clip_export.save_clip` does.
    """

    def __init__(self, cache: ClipCache, save: Callable[..., SavedClip]) -> None:
        self._cache, self._save = cache, save
        self._saved: dict[Path, SavedClip] = {}
        self._lock = threading.Lock()

    def get(self, path: str | Path | Remote, *, exact: bool, **settings: Any) -> tuple[Path, SavedClip | None]:
        """Return the file with a clip of a video, and its times in the video.

        Args:
            settings: times and `check`, as in `ClipCache.get`.
        """
        kind = f"{'exact' if exact else 'copied'}-{SAVED_VERSION}"
        file = self._cache.get(path, write=partial(self._write, exact=exact), kind=kind, **settings)
        return file, self._saved.get(file)

    def _write(self, path: str | Path, out: str | Path, **settings: Any) -> None:
        saved = self._save(path, out, **settings)
        with self._lock:
            if len(self._saved) >= _MOST:
                self._saved = {file: kept for file, kept in self._saved.items() if file.exists()}
            self._saved[Path(out)] = saved
