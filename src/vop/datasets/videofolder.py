"""Find files by name and videos by id, with any extension, in any sub-folder and in any Unicode form."""

from __future__ import annotations

import os
import re
from functools import cache, cached_property
from pathlib import Path

from vop.errors import DataError, UsageError
from vop.utils.names import existing_path, names_in, nfc
from vop.video.find import Walk
from vop.video.kinds import POSSIBLE_VIDEO_SUFFIXES

# LSMDC's ids end in milliseconds, such as 00.00.54.360, which is also the suffix of GoPro's panoramas.
_VIDEO_SUFFIXES = POSSIBLE_VIDEO_SUFFIXES - {".360"}


def needed_folder(name: str, root: Path | None) -> Path:
    """Return the folder of a benchmark's files; raise an error if it is not given or does not exist."""
    if root is None:
        raise UsageError(f"{name} needs the folder of its files: {name}:DIR")
    root = existing_path(root)
    if not root.is_dir():
        raise DataError(
            f"{name}: the folder {root} does not exist: put the benchmark's files there, or give {name}:DIR; "
            "the built-in emoji-motion needs no files"
        )
    return root


class FileTree:
    """The files below a folder. The folder is walked once, when a file is first not found at its top level."""

    def __init__(self, root: Path) -> None:
        self.root = existing_path(root)
        self._names: dict[str, str] | None = None

    def nearest(self, name: str) -> str | None:
        """Return the path of the file of this name nearest to the root; at equal depth, the first by path."""
        if self._names is None:
            path = os.path.join(self.root, name)
            if os.path.isfile(path):
                return path
        return self.names.get(nfc(name))

    @property
    def names(self) -> dict[str, str]:
        """Every file name, in NFC, with the path that `nearest` returns; the names nearest to the root come first."""
        if self._names is None:
            self._names = {}
            for folder, names in sorted(_walk(self.root), key=lambda found: (found[0].count(os.sep), found[0])):
                for name in sorted(names):
                    self._names.setdefault(nfc(name), os.path.join(folder, name))
        return self._names


class VideoFolder(FileTree):
    """The video files below a folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._names_in = cache(names_in)

    def find(self, video_id: str) -> Path:
        """Return the file of a video: at this path below the folder or, for a bare name, anywhere in it.

        The extension may differ from the one in the id. If the file does not exist, return the path where it is
        expected, so that it can be listed as missing.
        """
        stem, has_suffix = _stem(video_id)
        found: str | Path | None
        if os.path.basename(video_id) == video_id:
            found = self._named(video_id) or self._stems.get(nfc(video_id)) or self._stems.get(nfc(stem))
        else:
            path = self._existing(video_id)
            found = path if path.is_file() else self._beside.get(nfc(os.path.join(self.root, stem)))
        if not found and re.fullmatch(r"\d+\.0", video_id):  # pandas writes whole numbers so if one is missing
            return self.find(video_id.removesuffix(".0"))
        return Path(found) if found else self._existing(video_id if has_suffix else f"{video_id}.mp4")

    def _existing(self, path: str) -> Path:
        return existing_path(self.root / path, names_in=self._names_in)

    @cached_property
    def _beside(self) -> dict[str, str]:
        """Map every video's path without its extension, in NFC, to its path."""
        paths = [
            os.path.join(folder, name) for folder, names in _walk(self.root) for name in sorted(names, reverse=True)
        ]
        return {nfc(_stem(path)[0]): path for path in paths if _stem(path)[1]}

    def _named(self, name: str) -> str | None:
        """Return the file of exactly this name. Without a video's extension it must lie in the folder itself."""
        found = self.nearest(name)
        if found and (_stem(name)[1] or os.path.dirname(found) == str(self.root)):
            return found
        return None

    @cached_property
    def _stems(self) -> dict[str, str]:
        stems: dict[str, str] = {}
        for name, path in self.names.items():
            stem, has_suffix = _stem(name)
            if has_suffix:
                stems.setdefault(stem, path)
        return stems


def _stem(name: str) -> tuple[str, bool]:
    """Return a name without its video extension, and whether it had one. LSMDC's ids contain dots."""
    stem, suffix = os.path.splitext(name)
    return (stem, True) if suffix.lower() in _VIDEO_SUFFIXES else (name, False)


def _walk(root: Path) -> list[tuple[str, list[str]]]:
    """Return (folder, file names) for `root` and every folder below it."""
    walk, found = Walk(), []
    walk.enter(str(root))
    for folder, _, entries in walk:
        names = []
        for entry in entries or ():
            if entry.is_dir():
                walk.enter(entry.path, is_link=entry.is_symlink())
            else:
                names.append(entry.name)
        found.append((folder, names))
    return found
