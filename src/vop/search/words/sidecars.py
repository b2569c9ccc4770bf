"""Find files of subtitles beside videos: `talk.srt`, `talk.en.srt` and the like belong to `talk.mp4`."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from vop.search.words.subtitles import MAX_BYTES, SUFFIXES, SubtitleError, SubtitleUnavailable
from vop.storage.address import Address, Location
from vop.storage.errors import StorageError
from vop.storage.objects import ObjectInfo, list_objects, read_range
from vop.utils.names import nfc

# After a video's name: nothing, or a language and a word such as `forced`.
_BETWEEN = re.compile(r"(?:\.[A-Za-z][\w -]{0,30}){0,2}")


@dataclass(frozen=True)
class Sidecar:
    """A file of subtitles, as it was when it was found."""

    place: Location
    size: int
    version: int
    info: ObjectInfo | None = None

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def state(self) -> str:
        """What changes when the file changes, but not when it is moved with its video."""
        return f"{self.name}/{self.size}/{self.version}"

    def read(self) -> bytes:
        """Return the content.

        Raises:
            SubtitleError: it is too large.
            SubtitleUnavailable: it cannot be opened.
        """
        if self.size > MAX_BYTES:
            raise SubtitleError(f"it is larger than {MAX_BYTES // 2**20} MB")
        try:
            if isinstance(self.place, Path):
                return self.place.read_bytes()
            assert self.info is not None
            return read_range(self.info, 0, self.info.size)
        except OSError as error:
            raise SubtitleUnavailable(f"it cannot be read: {error.strerror or error}") from error
        except StorageError as error:
            raise SubtitleUnavailable(f"it cannot be read: {error}") from error


def find_sidecars(videos: Sequence[Location], roots: Set[Location]) -> dict[Location, list[Sidecar]]:
    """Return the files of subtitles of videos, sorted by name. Each folder is listed once.

    Args:
        roots: the addresses that were indexed; below each, all objects are listed once more.
    """
    found = _in_folders({video.parent for video in videos if isinstance(video, Path)})
    addresses = {video for video in videos if isinstance(video, Address)}
    found |= _in_storage(addresses, [root for root in roots if isinstance(root, Address)])
    beside: dict[Location, list[Location]] = defaultdict(list)
    for video in videos:
        beside[video.parent].append(video)
    return {
        video: own
        for folder, sidecars in found.items()
        for video, own in _matched(beside[folder], sidecars).items()
        if own
    }


def _matched(videos: Iterable[Location], sidecars: Sequence[Sidecar]) -> Mapping[Location, list[Sidecar]]:
    """Give each file to the videos of its folder whose names are its beginning; the longest name counts."""
    by_stem: dict[str, list[Location]] = defaultdict(list)
    for video in videos:
        by_stem[_folded(video.name.rpartition(".")[0] or video.name)].append(video)
    matched: dict[Location, list[Sidecar]] = defaultdict(list)
    for sidecar in sorted(sidecars, key=lambda one: one.name):
        stem = _folded(sidecar.name.rpartition(".")[0])
        ends = [place for place, letter in enumerate(stem) if letter == "."]
        for end in (len(stem), *reversed(ends)):
            if stem[:end] in by_stem and _BETWEEN.fullmatch(stem[end:]):
                for video in by_stem[stem[:end]]:
                    matched[video].append(sidecar)
                break
    return matched


def _folded(name: str) -> str:
    return nfc(name).casefold()


def _is_sidecar(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _in_folders(folders: Iterable[Path]) -> dict[Location, list[Sidecar]]:
    found: dict[Location, list[Sidecar]] = {}
    for folder in folders:
        sidecars = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_sidecar(entry.name) and entry.is_file():
                        state = entry.stat()
                        sidecars.append(Sidecar(folder / entry.name, state.st_size, state.st_mtime_ns))
        except OSError:
            continue  # the videos were found, so this is an unplugged drive or the like
        found[folder] = sidecars
    return found


def _in_storage(videos: Set[Address], roots: Iterable[Address]) -> dict[Location, list[Sidecar]]:
    if not videos:
        return {}
    folders = {video.parent for video in videos}
    found: dict[Location, dict[Address, Sidecar]] = {folder: {} for folder in folders}
    for root in roots:
        for info in list_objects(root.parent if root in videos else root):
            address = info.address
            if _is_sidecar(address.name) and address.parent in folders:
                found[address.parent][address] = Sidecar(address, info.size, info.version, info)
    return {folder: list(sidecars.values()) for folder, sidecars in found.items()}
