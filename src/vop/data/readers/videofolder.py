"""Find videos by id, whatever their extension and sub-folder."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from vop.errors import DataError, UsageError

_VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
)


def needed_folder(name: str, root: Path | None) -> Path:
    """The folder of a benchmark's files, which has to be given and to exist."""
    if root is None:
        raise UsageError(f"{name} needs the folder of its files: {name}:DIR")
    if not root.is_dir():
        raise DataError(f"{name}: there is no folder {root}")
    return root


class VideoFolder:
    """The video files below a folder, which is walked once, when a file is not where its id says."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def find(self, video_id: str) -> Path:
        """The file of a video: at this path below the folder or, for a bare name, anywhere in it.

        The extension may be another one than the id has. A file that is not there gets the path where it is
        expected, so that it can be listed as missing.
        """
        expected = self.root / video_id
        if expected.is_file():
            return expected
        has_suffix = expected.suffix.lower() in _VIDEO_SUFFIXES
        if expected.name == video_id:
            stem = expected.stem if has_suffix else video_id
            found = self._by_name.get(video_id) or self._by_stem.get(stem)
            if found is not None:
                return found
        return expected if has_suffix else expected.with_name(f"{expected.name}.mp4")

    @cached_property
    def _files(self) -> list[Path]:
        found = []
        for folder, _, names in os.walk(self.root, followlinks=True):
            found += [Path(folder, name) for name in names if Path(name).suffix.lower() in _VIDEO_SUFFIXES]
        # Of several files for one id the one nearest to the root is taken, then the first by name.
        return sorted(found, key=lambda path: (len(path.parts), str(path)), reverse=True)

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        return {path.name: path for path in self._files}

    @cached_property
    def _by_stem(self) -> dict[str, Path]:
        return {path.stem: path for path in self._files}
