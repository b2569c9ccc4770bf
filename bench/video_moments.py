"""Compare rules that find all moments of a video, on films in which events last longer and happen again.

    python bench/video_moments.py [--split val] [--films 8] [--model mini] [--segmentations 2/1,4/1,10/2] [--close]
        [--folder DIR]

A film has 48 parts of 2.1 seconds, drawn like the videos of `emoji-motion` (shuffled, of the split). Six of its events
happen one to three times, for one to four parts each time: the same story again, on other backgrounds. The rest are
other videos; with --close, one of them lies between two times of an event. The caption of an event is a query; its
moments are the right ones.

The rules, with their settings:
  segments       every segment that matches is a moment
  runs           matching segments that overlap or touch are one moment
  peaks          a matching segment that no better one of a moment overlaps (non-maximum suppression); its own ends
  similar        runs, divided where the embeddings of two neighbours are less alike than a share of the mean
  valleys        runs, divided at valleys of the scores (`vop.search.video_moments`)

For each: precision, recall and F1 of the moments (IoU of at least 0.5, one found moment for each right one, means over
the queries), average precision in the order of their scores, and the number of moments for each right one.
Settings were chosen on `val`; measure `test` once, with the chosen ones.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch

import vop
from vop.benchmarks import emoji_motion
from vop.benchmarks.videos import FRAMES_PER_SECOND, NUM_FRAMES, encode
from vop.evaluation.moments import iou
from vop.search import video_moments
from vop.search.manifest import SegmentationConfig
from vop.search.refining import FrameScores, refined_moment
from vop.search.schema import matrix
from vop.search.store import Store
from vop.search.video_moments import Part

PARTS, EVENTS = 48, 6
MOST_TIMES, MOST_PARTS = 3, 4
SECONDS = NUM_FRAMES / FRAMES_PER_SECOND


@dataclass(frozen=True)
class Query:
    sentence: str
    film: int
    moments: list[tuple[float, float]]


@dataclass(frozen=True)
class Segments:
    """The segments of a film in order of time, and their embeddings and frames."""

    starts: np.ndarray
    ends: np.ndarray
    embeddings: np.ndarray
    frames: list[bytes]


Rule = Callable[[Segments, np.ndarray], list[Part]]


# -- films


def plan_film(
    clips: Sequence[emoji_motion.Clip], rng: Random, *, close: bool
) -> tuple[list[emoji_motion.Clip], dict[str, list]]:
    """Return the parts of a film, and the right moments of each caption."""
    events = [(clip, rng.randint(1, MOST_PARTS)) for clip in clips[:EVENTS] for _ in range(rng.randint(1, MOST_TIMES))]
    fillers = list(clips[EVENTS:])
    if close:
        return close_film(events, fillers, rng)
    blocks = [(clip, length) for clip, length in events] + [(clip, 1) for clip in fillers]
    while sum(length for _, length in blocks) > PARTS:
        blocks.pop()
    rng.shuffle(blocks)
    while any(a[0] is b[0] for a, b in pairwise(blocks)):  # the same event, twice in a row
        rng.shuffle(blocks)
    return joined(blocks, [clip.caption for clip in clips[:EVENTS]])


def close_film(events: list, fillers: list, rng: Random) -> tuple[list[emoji_motion.Clip], dict[str, list]]:
    """Return a film in which one other part lies between the times at which an event happens."""
    groups: list[list] = []
    for clip, length in events:
        if groups and groups[-1][0][0] is clip:
            groups[-1] += [(fillers.pop(), 1), (clip, length)]
        else:
            groups.append([(clip, length)])
    groups += [[(fillers.pop(), 1)] for _ in range(PARTS - sum(length for group in groups for _, length in group))]
    rng.shuffle(groups)
    return joined([block for group in groups for block in group], [clip.caption for clip, _ in events])


def joined(blocks: list, captions: Sequence[str]) -> tuple[list[emoji_motion.Clip], dict[str, list]]:
    parts, moments = [], {caption: [] for caption in captions}
    for clip, length in blocks:
        if clip.caption in moments:
            moments[clip.caption].append((len(parts) * SECONDS, (len(parts) + length) * SECONDS))
        parts += [replace(clip, seed=f"{clip.seed}/{len(parts) + again}") for again in range(length)]
    return parts, moments


def make_films(split: str, count: int, folder: Path, *, close: bool) -> tuple[list[Path], list[Query]]:
    rng = Random(f"video-moments/{split}")
    clips = [clip for clip in emoji_motion.plan_clips() if clip.split == split]
    rng.shuffle(clips)
    paths, queries = [], []
    for number in range(count):
        own: list[emoji_motion.Clip] = []
        start = number * PARTS
        for clip in (clips * 10)[start : start + 2 * PARTS]:
            if len(own) < PARTS and all(clip.id not in (other.id, other.twin) for other in own):
                own.append(clip)
        parts, moments = plan_film(own, rng, close=close)
        path = folder / f"{split}{'-close' if close else ''}-{number:02d}.mp4"
        if not path.is_file():
            encode(np.concatenate([emoji_motion.draw(clip) for clip in parts]), path)
        paths.append(path)
        queries += [Query(caption, number, right) for caption, right in moments.items() if right]
    return paths, queries


# -- rules


def segments_rule(segments: Segments, scores: np.ndarray, *, floor: float) -> list[Part]:
    return [Part(place, place, place) for place in np.flatnonzero(scores >= level(scores, floor)).tolist()]


def valleys_rule(segments: Segments, scores: np.ndarray, *, floor: float, depth: float) -> list[Part]:
    video_moments.FLOOR, video_moments.DEPTH = floor, depth
    return video_moments.parts_of(segments.starts, segments.ends, scores)


def runs_rule(segments: Segments, scores: np.ndarray, *, floor: float) -> list[Part]:
    return valleys_rule(segments, scores, floor=floor, depth=np.inf)


def peaks_rule(segments: Segments, scores: np.ndarray, *, floor: float) -> list[Part]:
    taken: list[int] = []
    for place in np.argsort(-scores, kind="stable").tolist():
        if scores[place] < level(scores, floor):
            break
        if all(
            segments.starts[place] >= segments.ends[other] or segments.ends[place] <= segments.starts[other]
            for other in taken
        ):
            taken.append(place)
    return [Part(place, place, place) for place in taken]


def similar_rule(segments: Segments, scores: np.ndarray, *, floor: float, share: float) -> list[Part]:
    near = (segments.embeddings[:-1] * segments.embeddings[1:]).sum(axis=1)
    least = share * near.mean()
    found = []
    for part in runs_rule(segments, scores, floor=floor):
        first = part.first
        for place in range(part.first, part.last + 1):
            if place == part.last or near[place] < least:
                found.append(Part(first, place, first + int(scores[first : place + 1].argmax())))
                first = place + 1
    return found


def level(scores: np.ndarray, floor: float) -> float:
    return min(scores.max(), scores.mean() + floor * (scores.max() - scores.mean()))


FLOORS = (0.3, 0.4, 0.5, 0.6, 0.7)
RULES: dict[str, Rule] = {
    **{f"segments {floor}": partial(segments_rule, floor=floor) for floor in FLOORS},
    **{f"runs {floor}": partial(runs_rule, floor=floor) for floor in FLOORS},
    **{f"peaks {floor}": partial(peaks_rule, floor=floor) for floor in FLOORS},
    **{
        f"similar {floor} {share}": partial(similar_rule, floor=floor, share=share)
        for floor in FLOORS
        for share in (0.9, 1.0)
    },
    **{
        f"valleys {floor} {depth}": partial(valleys_rule, floor=floor, depth=depth)
        for floor in FLOORS
        for depth in (0.1, 0.2, 0.3, 0.4)
    },
}


# -- measurement


def read_segments(library: Path, paths: Sequence[Path]) -> list[Segments]:
    store = Store.open(library)
    (model,) = store.models
    columns = ["path", "start_seconds", "end_seconds", model.column, model.frame_column]
    rows = store.table.search().select(columns).to_arrow().sort_by("start_seconds")
    found = []
    for path in paths:
        own = rows.filter([name == str(path) for name in rows.column("path").to_pylist()])
        starts, ends = own.column("start_seconds").to_numpy(), own.column("end_seconds").to_numpy()
        found.append(
            Segments(starts, ends, matrix(own.column(model.column)), own.column(model.frame_column).to_pylist())
        )
    return found


def times_of(segments: Segments, part: Part, query: np.ndarray, *, refine: bool) -> tuple[float, float]:
    if not refine:
        return float(segments.starts[part.first]), float(segments.ends[part.last])
    own = [
        FrameScores.of(segments.frames[place], query, start=segments.starts[place], end=segments.ends[place])
        if 0 <= place < len(segments.starts)
        else None
        for place in range(part.first - 1, part.last + 2)
    ]
    return refined_moment(own[1:-1], part.best - part.first, own[0], own[-1])


def measure(found: list[tuple[float, float]], right: list[tuple[float, float]]) -> tuple[float, ...]:
    """Return precision, recall, F1, average precision, and the number of moments for each right one."""
    free, hits = list(right), []
    for start, end in found:
        overlaps = [iou(np.array([start]), np.array([end]), start=s, end=e)[0] for s, e in free]
        best = int(np.argmax(overlaps)) if overlaps else 0
        hits.append(bool(overlaps) and overlaps[best] >= 0.5)
        if hits[-1]:
            free.pop(best)
    precision, recall = float(np.mean(hits)), sum(hits) / len(right)
    at = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    f1 = 2 * precision * recall / (precision + recall) if precision else 0.0
    return precision, recall, f1, float(at[hits].sum() / len(right)), len(found) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="val")
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--segmentations", default="2/1,4/1,10/2")
    parser.add_argument("--rules", help="Only rules whose names start with one of these, separated by commas.")
    parser.add_argument("--close", action="store_true", help="Put one other part between two times of an event.")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths, queries = make_films(arguments.split, arguments.films, folder, close=arguments.close)
        texts = vop.load(arguments.model).encode_text([query.sentence for query in queries]).numpy()
        right = sum(len(query.moments) for query in queries)
        print(f"{arguments.split}: {len(queries)} queries with {right} moments in {len(paths)} films")
        print("segments | rule | precision | recall | F1 | AP | moments for each | refined: the same")
        for name in arguments.segmentations.split(","):
            films = indexed(name, paths, folder / f"{paths[0].stem}-{name.replace('/', '-')}", arguments.model)
            for rule, find in RULES.items():
                if not arguments.rules or rule.startswith(tuple(arguments.rules.split(","))):
                    show_row(name, rule, find, films, queries, texts)


def indexed(segmentation: str, paths: Sequence[Path], folder: Path, model: str) -> list[Segments]:
    window, overlap = map(float, segmentation.split("/"))
    if not folder.exists():
        config = SegmentationConfig(window_seconds=window, overlap_seconds=overlap)
        vop.Library.create(folder, model=model, segmentation=config, refine=True).index(list(paths), workers=1)
    return read_segments(folder, paths)


def show_row(
    name: str, rule: str, find: Rule, films: list[Segments], queries: Sequence[Query], texts: np.ndarray
) -> None:
    cells: list[str] = []
    for refine in (False, True):
        rows = []
        for query, text in zip(queries, texts, strict=True):
            segments = films[query.film]
            scores = (segments.embeddings @ text).astype(np.float64)
            parts = sorted(find(segments, scores), key=lambda part: -scores[part.best])
            rows.append(measure([times_of(segments, part, text, refine=refine) for part in parts], query.moments))
        *shares, number = np.mean(rows, axis=0)
        cells += [*(f"{100 * share:.1f}" for share in shares), f"{number:.2f}"]
    print(" | ".join([name, rule, *cells]), flush=True)


if __name__ == "__main__":
    main()
