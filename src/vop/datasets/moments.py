"""Sentences with the times at which they happen in long videos, to measure how well a search finds moments.

Published files of four benchmarks, anywhere below the folder of the SPEC, and tables:

- `activitynet` (Krishna et al., ICCV 2017): `val_1.json`, the usual test split, and `train.json`.
- `charades-sta` (Gao et al., ICCV 2017): `charades_sta_test.txt` and `charades_sta_train.txt`.
- `didemo` (Hendricks et al., ICCV 2017): `test_data.json`, `val_data.json`, `train_data.json`. Their times are
  pieces of 5 seconds, from several annotators. As in Escorcia et al. (2019), a moment must match those of two of them.
- `qvhighlights` (Lei et al., NeurIPS 2021): `highlight_val_release.jsonl` and `highlight_train_release.jsonl`; the
  windows of the test split are not published. A sentence may happen several times; one of them is enough.
- a table (CSV, TSV, JSON, JSONL, Parquet) with columns for video, caption, start and end in seconds. The column `split`
  names the split of a row. Without it the file name does (`val.csv`); other files are the test split.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vop.datasets.benchmark import Benchmark
from vop.datasets.rows import TABLE_SUFFIXES, VIDEO_COLUMNS, read_table
from vop.datasets.table import CAPTION_COLUMNS, SPLIT_COLUMNS, guess_column, split_name, split_of_file
from vop.datasets.text import expect, member, one_line, read_json, read_text, texts
from vop.datasets.types import Video
from vop.datasets.videofolder import VideoFolder
from vop.errors import DataError, UsageError, unknown_name
from vop.utils.files import expand
from vop.utils.parsing import parse_json
from vop.utils.registry import Registry
from vop.utils.text import count
from vop.video.clip import Clip

START_COLUMNS = ("start_seconds", "start", "start_time", "begin", "from")
END_COLUMNS = ("end_seconds", "end", "end_time", "stop", "to")
_PIECE_SECONDS = 5  # DiDeMo's unit of time
_DIDEMO_AGREEING = 2


@dataclass(frozen=True)
class MomentQuery:
    """A sentence and where in a video it happens.

    Attributes:
        video: the video's index in the split.
        clips: where it happens: according to several annotators, or several times.
        agreeing: the number of clips that a found moment must match.
    """

    sentence: str
    video: int
    clips: tuple[Clip, ...]
    agreeing: int = 1


@dataclass(frozen=True, repr=False)
class MomentSplit:
    """Long videos, and sentences with the times at which they happen there."""

    name: str
    videos: tuple[Video, ...]
    queries: tuple[MomentQuery, ...]

    def __repr__(self) -> str:
        return f"MomentSplit({self.name!r}, {count('video', len(self.videos))}, {count('query', len(self.queries))})"


MomentReader = Callable[..., Mapping[str, MomentSplit]]

# Add a line here for a new benchmark. Its module is imported when its name is used.
READERS = {
    "activitynet": "vop.datasets.moments:read_activitynet",
    "charades-sta": "vop.datasets.moments:read_charades_sta",
    "didemo": "vop.datasets.moments:read_didemo",
    "emoji-moments": "vop.benchmarks.emoji_moments:read",
    "qvhighlights": "vop.datasets.moments:read_qvhighlights",
}
REGISTRY: Registry[MomentReader] = Registry("data set with moments", READERS, group="vop.moments")


def load_moments(spec: str, *, split: str | None = None, videos: str | Path | None = None) -> MomentSplit:
    """Read the sentences and times of one split.

    Args:
        spec: `NAME:DIR`, a benchmark and its folder, or a table.
        split: "test", "val" or "train". By default the only split, or the first of these that exists.
        videos: the folder of the videos, if it is not that of the annotations.

    Raises:
        UsageError: the data set or the split does not exist.
        DataError: its files are missing, or not in their published format.
    """
    videos = None if videos is None else Path(videos)
    path = expand(spec)
    found: Mapping[str, MomentSplit]
    if path.suffix.lower() in TABLE_SUFFIXES:
        name, found = str(path), _read_table(path, videos=videos)
    else:
        name, _, folder = spec.partition(":")
        if name not in REGISTRY.names():
            raise UsageError(f"{unknown_name('data set with moments', name, REGISTRY.names())}, or a table")
        found = REGISTRY.find(name)(name, expand(folder) if folder else None, videos=videos)
    if split is None:
        split = next(known for known in ("test", "val", "train") if known in found)
    if split not in found:
        raise DataError(f"{name} has no {split!r} split with moments; it has: {', '.join(found)}")
    return found[split]


@dataclass
class _Builder:
    """Collects the queries of a split, and its videos in the order of their first query."""

    name: str
    find: Callable[[str], Path]
    places: dict[str, int] = field(default_factory=dict)
    queries: list[MomentQuery] = field(default_factory=list)

    def add(self, video_id: str, sentence: str, clips: Sequence[Clip], *, agreeing: int = 1) -> None:
        video = self.places.setdefault(video_id, len(self.places))
        self.queries.append(MomentQuery(sentence, video, tuple(clips), min(agreeing, len(clips))))

    def split(self, source: Path) -> MomentSplit:
        if not self.queries:
            raise _no_sentences(source)
        return MomentSplit(self.name, tuple(Video(id, self.find(id)) for id in self.places), tuple(self.queries))


def _no_sentences(source: Path) -> DataError:
    return DataError(f"{source}: the file contains no sentences with times")


def _read(
    name: str,
    root: Path | None,
    videos: Path | None,
    files: Mapping[str, str],
    fill: Callable[[Path, _Builder], None],
) -> dict[str, MomentSplit]:
    benchmark = Benchmark(name, root, videos=videos)
    found = {}
    for split, path in benchmark.each(files):
        builder = _Builder(split, benchmark.video_path)
        fill(path, builder)
        found[split] = builder.split(path)
    return found


def read_activitynet(name: str, root: Path | None, *, videos: Path | None = None) -> dict[str, MomentSplit]:
    """Read the sentences of ActivityNet Captions, each with its times."""
    return _read(name, root, videos, {"test": "val_1.json", "train": "train.json"}, _fill_activitynet)


def _fill_activitynet(path: Path, split: _Builder) -> None:
    for video_id, row in expect(read_json(path), dict, path).items():
        place = f"{path}: {video_id}"
        sentences = texts(member(row, "sentences", list, place), f"{place}: sentences")
        times = member(row, "timestamps", list, place)
        if len(times) != len(sentences):
            raise DataError(f"{place}: {count('sentence', len(sentences))}, but {count('timestamp', len(times))}")
        for sentence, pair in zip(sentences, times, strict=True):
            clip = _clip(sorted(_pair(pair, place)), place)  # some are in reverse order
            if sentence and clip is not None:
                split.add(_video_id(video_id, place), sentence, [clip])


def read_charades_sta(name: str, root: Path | None, *, videos: Path | None = None) -> dict[str, MomentSplit]:
    """Read Charades-STA."""
    files = {"test": "charades_sta_test.txt", "train": "charades_sta_train.txt"}
    return _read(name, root, videos, files, _fill_charades_sta)


_CHARADES_LINE = re.compile(r"(?P<video>\S+) (?P<start>[\d.]+) (?P<end>[\d.]+)##(?P<sentence>.+)")


def _fill_charades_sta(path: Path, split: _Builder) -> None:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        found = _CHARADES_LINE.fullmatch(line.strip())
        if found is None:
            raise DataError(f"{path}: line {number}: expected VIDEO START END##SENTENCE, got {line[:80]!r}")
        place = f"{path}: line {number}"
        clip = _clip(sorted(_pair([_number(found["start"]), _number(found["end"])], place)), place)
        if clip is not None:
            split.add(found["video"], one_line(found["sentence"]), [clip])


def read_didemo(name: str, root: Path | None, *, videos: Path | None = None) -> dict[str, MomentSplit]:
    """Read the single descriptions of DiDeMo."""
    files = {split: f"{split}_data.json" for split in ("test", "val", "train")}
    return _read(name, root, videos, files, _fill_didemo)


def _fill_didemo(path: Path, split: _Builder) -> None:
    for number, row in enumerate(expect(read_json(path), list, path), start=1):
        place = f"{path}: entry {number}"
        video_id = _video_id(member(row, "video", str, place), place)
        sentence = one_line(member(row, "description", str, place))
        pieces = [_pieces(pair, place) for pair in member(row, "times", list, place)]
        clips = [Clip(first * _PIECE_SECONDS, (last + 1) * _PIECE_SECONDS) for first, last in pieces]
        if sentence and clips:
            split.add(video_id, sentence, clips, agreeing=_DIDEMO_AGREEING)


def read_qvhighlights(name: str, root: Path | None, *, videos: Path | None = None) -> dict[str, MomentSplit]:
    """Read QVHighlights."""
    files = {"val": "highlight_val_release.jsonl", "train": "highlight_train_release.jsonl"}
    return _read(name, root, videos, files, _fill_qvhighlights)


def _fill_qvhighlights(path: Path, split: _Builder) -> None:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}: line {number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{place}: {error}") from error
        windows = member(row, "relevant_windows", list, place)
        clips = [clip for pair in windows if (clip := _clip(pair, place)) is not None]
        video_id = _video_id(member(row, "vid", str, place), place)
        sentence = one_line(member(row, "query", str, place))
        if sentence and clips:
            split.add(video_id, sentence, clips)


def _read_table(path: Path, *, videos: Path | None) -> dict[str, MomentSplit]:
    """Read a table; rows of the same split, video and caption are several times at which it happens."""
    roles = {"video": VIDEO_COLUMNS, "caption": CAPTION_COLUMNS, "start": START_COLUMNS, "end": END_COLUMNS}
    table = read_table(path, known={name for usual in (*roles.values(), SPLIT_COLUMNS) for name in usual})
    own = {role: _column(path, role, usual, table.columns) for role, usual in roles.items()}
    split_column = guess_column(SPLIT_COLUMNS, table.columns)
    default_split = split_of_file(path) or "test"
    clips: dict[tuple[str, str, str], list[Clip]] = {}
    for line, row in table.rows([*own.values(), *([split_column] if split_column else [])]):
        place = f"{path}: {line}"
        split = default_split if split_column is None else split_name(row.get(split_column), place, split_column)
        video, caption = (one_line(str(row.get(own[role]) or "")) for role in ("video", "caption"))
        times = [_number(row.get(own[role])) for role in ("start", "end")]
        clip = _clip(times, place)
        if clip is None:
            raise DataError(f"{place}: the end is the start, {times[0]:g}; write a later end, or remove the row")
        if video and caption:
            clips.setdefault((split, video, caption), []).append(clip)
    if not clips:
        raise _no_sentences(path)
    find = VideoFolder(videos or path.parent).find
    builders: dict[str, _Builder] = {}
    for (split, video, caption), found in clips.items():
        builders.setdefault(split, _Builder(split, find)).add(video, caption, found)
    return {split: builder.split(path) for split, builder in builders.items()}


def _column(path: Path, role: str, usual: tuple[str, ...], found: list[str]) -> str:
    column = guess_column(usual, found)
    if column is None:
        raise DataError(
            f"{path}: no column looks like the {role}; found: {', '.join(found)}. Rename it to {usual[0]!r}"
        )
    return column


def _video_id(value: str, place: str) -> str:
    if not value.strip():
        raise DataError(f"{place}: the video is {value!r}; name the video's file, or remove the sentence")
    return value


def _number(value: Any) -> Any:
    """Return the number that a text of a table holds; `_pair` refuses what is none."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _pair(value: Any, place: str) -> tuple[float, float]:
    """Return two numbers; raise a DataError if the value is anything else."""
    try:
        first, last = (_as_float(number) for number in expect(value, list, place))
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{place}: expected two times in seconds, such as [92.5, 100], got {value!r}") from None
    if not (0 <= first < math.inf and 0 <= last < math.inf):
        raise DataError(f"{place}: the times {value!r} must be 0 or more")
    return first, last


def _as_float(value: Any) -> float:
    if isinstance(value, bool | str):  # float() takes them, too
        raise TypeError
    return float(value)


def _pieces(value: Any, place: str) -> tuple[float, float]:
    """Return the first and the last piece of a moment in DiDeMo."""
    first, last = _pair(value, place)
    if not (first.is_integer() and last.is_integer() and first <= last):
        raise DataError(
            f"{place}: the times {value!r} must be two whole numbers, the first and the last piece of "
            f"{_PIECE_SECONDS} seconds"
        )
    return first, last


def _clip(value: Any, place: str) -> Clip | None:
    """Return a clip from two times in seconds; None if they are equal, as a few are in published files."""
    start, end = _pair(value, place)
    if start > end:
        raise DataError(f"{place}: the start, {start:g}, is after the end, {end:g}; swap them, or correct one")
    return Clip(start, end) if start < end else None
