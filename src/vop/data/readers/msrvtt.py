"""MSR-VTT (Xu et al., CVPR 2016) in its two usual training splits, tested on 1k-A (JSFusion, Yu et al., ECCV 2018).

Files, anywhere below the root: `MSRVTT_train.9k.csv` or `MSRVTT_train.7k.csv` (column `video_id`),
`MSRVTT_JSFUSION_test.csv` (columns `video_id`, `sentence`), `MSRVTT_data.json` (`sentences`: a list of `video_id` and
`caption`), and the videos, named by id. There is no published validation split for these; see `with_validation`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from vop.data.readers.text import read_json, read_text
from vop.data.readers.videofolder import VideoFolder, needed_folder
from vop.data.types import Dataset, Split, Video
from vop.errors import DataError

_TRAIN = {"msrvtt-9k": "MSRVTT_train.9k.csv", "msrvtt-7k": "MSRVTT_train.7k.csv"}
_TEST = "MSRVTT_JSFUSION_test.csv"
_CAPTIONS = "MSRVTT_data.json"


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """`msrvtt-9k` or `msrvtt-7k` from its published files.

    Raises:
        DataError: a file is missing or not in its published form.
    """
    root = needed_folder(name, root)
    folder = VideoFolder(videos or root)
    notes: list[str] = []
    train = _read_train(root, _TRAIN[name], folder, notes)
    test = _read_test(_find(root, _TEST), folder)
    return Dataset(name, {"train": train, "test": test}, notes=tuple(notes))


def _read_train(root: Path, listing: str, folder: VideoFolder, notes: list[str]) -> Split:
    listed = dict.fromkeys(row["video_id"] for row in _rows(_find(root, listing), ["video_id"]))
    sentences = _sentences(_find(root, _CAPTIONS), wanted=set(listed))
    filled = [(video_id, caption) for video_id, caption in sentences if caption.strip()]
    if len(filled) < len(sentences):
        notes.append(f"{len(sentences) - len(filled)} empty captions left out of train")
    captioned = {video_id for video_id, _ in filled}
    ids = [video_id for video_id in listed if video_id in captioned]
    if len(ids) < len(listed):
        notes.append(f"{len(listed) - len(ids)} of {len(listed)} training videos have no captions in {_CAPTIONS}")
    place = {video_id: index for index, video_id in enumerate(ids)}
    return Split(
        name="train",
        videos=tuple(Video(video_id, folder.find(video_id)) for video_id in ids),
        captions=tuple(caption for _, caption in filled),
        targets=tuple(place[video_id] for video_id, _ in filled),
    )


def _read_test(path: Path, folder: VideoFolder) -> Split:
    rows = _rows(path, ["video_id", "sentence"])
    return Split(
        name="test",
        videos=tuple(Video(row["video_id"], folder.find(row["video_id"])) for row in rows),
        captions=tuple(row["sentence"] for row in rows),
        targets=tuple(range(len(rows))),
    )


def _sentences(path: Path, *, wanted: set[str]) -> list[tuple[str, str]]:
    data = read_json(path)
    try:
        return [(row["video_id"], row["caption"]) for row in data["sentences"] if row["video_id"] in wanted]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the key 'sentences' with a list of 'video_id' and 'caption'; {error!r} went wrong"
        ) from error


def _rows(path: Path, columns: list[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    found = reader.fieldnames or []
    missing = [column for column in columns if column not in found]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; found: {', '.join(found) or 'nothing'}")
    rows = list(reader)
    for line, row in enumerate(rows, start=2):
        if any(not row[column] for column in columns):
            raise DataError(f"{path}: line {line}: a value is missing")
    return rows


def _find(root: Path, name: str) -> Path:
    """The annotation file of this name nearest to the root."""
    if (root / name).is_file():
        return root / name
    found = sorted(root.rglob(name), key=lambda path: (len(path.parts), str(path)))
    if not found:
        raise DataError(f"{root}: there is no {name} in this folder or below it")
    return found[0]
