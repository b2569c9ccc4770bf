"""Helpers for the readers of benchmarks: published files, lists of ids, and splits of (video id, caption) pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vop.datasets.text import expect, read_json, read_text
from vop.datasets.types import Dataset, Split, Video
from vop.datasets.videofolder import FileTree, VideoFolder, needed_folder
from vop.errors import DataError
from vop.utils.text import count

Pair = tuple[str, str]  # video id, caption
_ADJECTIVES = {"train": "training", "val": "validation", "test": "test"}


def read_ids(path: Path) -> list[str]:
    """Return the ids in a list file: one per line or, in a `.json` file, a list of strings.

    Raises:
        DataError: an id is listed twice, or the list is empty.
    """
    if path.suffix == ".json":
        ids = expect(read_json(path), list, path)
        return unique(path, [(f"entry {n}", expect(name, str, f"{path}: entry {n}")) for n, name in enumerate(ids, 1)])
    lines = enumerate(read_text(path).split("\n"), start=1)
    return unique(path, [(f"line {n}", line.strip()) for n, line in lines if line.strip()])


def unique(path: Path, ids: Sequence[tuple[str, str]]) -> list[str]:
    """Return the ids of (place, id) pairs. Raises a DataError if there are none, or if one is listed twice."""
    first: dict[str, str] = {}
    for place, video_id in ids:
        if not video_id.strip():
            raise DataError(f"{path}: {place}: the id is {video_id!r}")
        if video_id in first:
            raise DataError(f"{path}: {place}: {video_id!r} is listed twice, first at {first[video_id]}")
        first[video_id] = place
    if not first:
        raise DataError(f"{path}: the file contains no ids")
    return list(first)


class Benchmark:
    """Builder of a benchmark's data set from the files that its authors published.

    Args:
        name: the data set's name.
        root: the folder of the files, which may be in sub-folders.
        videos: the folder of the videos, if it differs from `root`.

    Attributes:
        notes: remarks on the data for the user.
    """

    def __init__(self, name: str, root: Path | None, *, videos: Path | None = None) -> None:
        self.name = name
        self.root = needed_folder(name, root)
        self.notes: list[str] = []
        self._splits: dict[str, Split] = {}
        self._files: FileTree = VideoFolder(self.root)
        self._videos = self._files if videos is None else VideoFolder(videos)  # one walk finds both kinds of files

    def find(self, file: str, *, beside: Path | None = None) -> Path | None:
        """Return the file of this name beside another file, else the one nearest to the root, or None."""
        if beside is not None and (beside.parent / file).is_file():
            return beside.parent / file
        found = self._files.nearest(file)
        return None if found is None else Path(found)

    def need(self, file: str) -> Path:
        """Like `find`, but raises a DataError if the file does not exist."""
        found = self.find(file)
        if found is None:
            raise DataError(f"{self.root}: no {file} in this folder or below it")
        return found

    def video_path(self, video_id: str) -> Path:
        """Return the file of a video. It may not exist."""
        return self._videos.find(video_id)

    def each(self, files: Mapping[str, str], *, beside: Path | None = None) -> Iterator[tuple[str, Path]]:
        """Return (split, path) of the existing files, given {split: name}. A note names each missing file.

        Raises:
            DataError: all of them are missing.
        """
        found = {split: self.find(file, beside=beside) for split, file in files.items()}
        if not any(found.values()):
            raise DataError(f"{self.root}: no {', no '.join(files.values())} in this folder or below it")
        for split, path in found.items():
            if path is None:
                self.notes.append(f"no {split} split: {files[split]} does not exist")
            else:
                yield split, path

    def add(
        self,
        split: str,
        pairs: Sequence[Pair],
        *,
        source: Path,
        listing: Path | None = None,
        read: Callable[[Path], list[str]] = read_ids,
    ) -> None:
        """Add a split. Empty captions and listed videos without a caption are left out; notes count them.

        Args:
            source: the file of `pairs`, for messages.
            listing: the file of the split's ids; its order is that of the videos. Captions of other videos belong to
                other splits. Without it the split has all videos, in the order of their captions.
            read: the function that reads the ids in `listing`.

        Raises:
            DataError: the split would be empty.
        """
        listed = dict.fromkeys(read(listing) if listing else (video_id for video_id, _ in pairs))
        wanted = [pair for pair in pairs if pair[0] in listed]
        filled = [pair for pair in wanted if pair[1].strip()]
        captioned = {video_id for video_id, _ in filled}
        ids = [video_id for video_id in listed if video_id in captioned]
        if not ids:
            raise _empty_split_error(source, listing, list(listed))
        if len(filled) < len(wanted):
            self.notes.append(f"{count('empty caption', len(wanted) - len(filled))} left out of {split}")
        if len(ids) < len(listed):
            without = f"{len(listed) - len(ids):,} of {count(f'{_ADJECTIVES[split]} video', len(listed))}"
            self.notes.append(f"{without} have no captions in {source.name}")
        self._splits[split] = self._make(split, ids, filled)

    def _make(self, split: str, ids: Sequence[str], pairs: Sequence[Pair]) -> Split:
        place = {video_id: index for index, video_id in enumerate(ids)}
        return Split(
            name=split,
            videos=tuple(Video(video_id, self._videos.find(video_id)) for video_id in ids),
            captions=tuple(caption for _, caption in pairs),
            targets=tuple(place[video_id] for video_id, _ in pairs),
        )

    def dataset(self) -> Dataset:
        """Return the data set with the added splits and the notes."""
        return Dataset(self.name, self._splits, notes=(*self.notes, *overlaps(self._splits)))


def _empty_split_error(source: Path, listing: Path | None, listed: list[str]) -> DataError:
    if listing is None:
        return DataError(f"{source}: the file contains no captions")
    return DataError(
        f"{listing}: none of its {count('video', len(listed))} has a caption in {source}, for example {listed[0]!r}; "
        "do the two files belong together?"
    )


def overlaps(splits: Mapping[str, Split]) -> Iterator[str]:
    """Return notes on videos that are both in train and in another split."""
    ids = {name: {video.id for video in split.videos} for name, split in splits.items()}
    trained = ids.pop("train", set())
    for name, held_out in ids.items():
        if common := held_out & trained:
            are = "is" if len(common) == 1 else "are"
            yield f"{count('video', len(common))} {are} in both train and {name}, for example {min(common)}"
