"""Measure how well near-duplicates are found: re-encoded, resized and trimmed videos against similar other ones.

    python bench/near_copies.py [--model mini] [--folder DIR]
    python bench/near_copies.py --videos 100000

Sources are 30 drawn videos of 2.1 seconds (`emoji-motion`, test), 8 films of 12 such videos, and 6 films of 12 events
before the same background, as a camera on a tripod sees them. Each gets re-encoded, resized and trimmed versions
(`VERSIONS`), and others that look alike and are not copies (`OTHERS`). All are indexed, and the pairs that
`vop.search.near_copies` finds are compared with the right ones.

Three ways are compared: the fingerprints alone (what vop does), the embeddings of the segments alone (the means of
neighbouring windows, one threshold, chosen on the same videos so that F1 is highest), and both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from random import Random

import av
import numpy as np
import torch

import vop
from vop.benchmarks import emoji_motion, stories
from vop.benchmarks.artwork import load_atlas
from vop.benchmarks.videos import FRAMES_PER_SECOND, draw_clip
from vop.search import near_copies
from vop.search.fingerprints import WIDTH, Fingerprint
from vop.search.schema import matrix
from vop.search.store import Store
from vop.search.sync.comparing import candidates, relation
from vop.utils import progress

CLIPS, FILMS, CAMERAS, SLOW_FILMS, PARTS, SLOW_PARTS = 30, 8, 6, 4, 12, 5
SLOWER = 5  # times
SAME, PART, HARD, OTHER = "same", "part of", "hard", "other"
Frames = np.ndarray
Key = frozenset[str]  # the ids of two videos


@dataclass(frozen=True)
class Made:
    """A video of the measurement: the source that it was made from, how, and what it is to the source."""

    path: Path
    source: str
    how: str
    kind: str


# -- versions of a source


def write(
    path: Path,
    frames: Frames,
    *,
    rate: float = FRAMES_PER_SECOND,
    size: int = 96,
    codec: str = "libx264",
    **options: str,
) -> None:
    if path.exists():
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = (
            size,
            round(size * frames.shape[1] / frames.shape[2] / 2) * 2,
            "yuv420p",
        )
        stream.options = options or ({"crf": "20", "preset": "veryfast"} if codec == "libx264" else {})
        if codec != "libx264":
            stream.bit_rate = 400_000
        for array in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            container.mux(stream.encode(frame.reformat(stream.width, stream.height, "yuv420p")))
        container.mux(stream.encode(None))


def at_rate(frames: Frames, rate: float) -> Frames:
    times = np.arange(round(len(frames) * rate / FRAMES_PER_SECOND)) / rate
    return frames[np.minimum((times * FRAMES_PER_SECOND).astype(int), len(frames) - 1)]


def boxed(frames: Frames, *, rows: int = 0, columns: int = 0) -> Frames:
    return np.pad(frames, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


def brighter(frames: Frames) -> Frames:
    return (255 * (frames / 255) ** 0.7).astype(np.uint8)


def with_logo(frames: Frames) -> Frames:
    marked = frames.copy()
    marked[:, 6:14, -30:-6] = 255
    return marked


def part(frames: Frames, start: float, end: float) -> Frames:
    return frames[round(start * len(frames)) : round(end * len(frames))]


VERSIONS: dict[str, tuple[str, Callable[[Path, Frames], None]]] = {
    "a fifth of the bit rate": (SAME, lambda path, frames: write(path, frames, crf="36", preset="veryfast")),
    "64 pixels": (SAME, lambda path, frames: write(path, frames, size=64)),
    "240 pixels": (SAME, lambda path, frames: write(path, frames, size=240)),
    "25 frames a second": (SAME, lambda path, frames: write(path, at_rate(frames, 25), rate=25)),
    "8 frames a second": (SAME, lambda path, frames: write(path, at_rate(frames, 8), rate=8)),
    "VP8 in WebM": (SAME, lambda path, frames: write(path.with_suffix(".webm"), frames, codec="libvpx")),
    "MPEG-4 in AVI": (SAME, lambda path, frames: write(path.with_suffix(".avi"), frames, codec="mpeg4")),
    "brighter": (SAME, lambda path, frames: write(path, brighter(frames))),
    "with a logo": (HARD, lambda path, frames: write(path, with_logo(frames))),
    "letterboxed": (SAME, lambda path, frames: write(path, boxed(frames, rows=16))),
    "pillarboxed": (SAME, lambda path, frames: write(path, boxed(frames, columns=32), size=160)),
    "4 % trimmed at both ends": (SAME, lambda path, frames: write(path, part(frames, 0.04, 0.96))),
    "the last 70 %": (PART, lambda path, frames: write(path, part(frames, 0.3, 1))),
    "the middle half": (PART, lambda path, frames: write(path, part(frames, 0.25, 0.75), size=64)),
    "mirrored": (OTHER, lambda path, frames: write(path, frames[:, :, ::-1])),
    "backwards": (OTHER, lambda path, frames: write(path, frames[::-1])),
}


# -- sources, and others like them


def draw_on(story: stories.Story, seed: str, background: str) -> Frames:
    """Draw a story; backgrounds of the same name are the same, with the same movement and noise."""
    return draw_clip(stories.actors(story, Random(seed)), load_atlas(), Random(background))


def sources() -> tuple[dict[str, Frames], dict[str, dict[str, Frames]]]:
    """Return the sources by name, and for each the others that look alike, by how."""
    clips = [clip for clip in emoji_motion.plan_clips() if clip.split == "test" and not clip.backwards]
    found: dict[str, Frames] = {}
    others: dict[str, dict[str, Frames]] = {}
    for number, clip in enumerate(clips[:CLIPS]):
        name = f"clip-{number:02d}"
        found[name] = draw_on(clip.story, clip.id, clip.id)
        others[name] = {
            "the same story again": draw_on(clip.story, f"{clip.id}/again", f"{clip.id}/again"),
            "another take": draw_on(clip.story, f"{clip.id}/again", clip.id),
        }
    rng = Random("near-copies")
    for number in range(FILMS):
        own = [emoji_motion.draw(clip) for clip in rng.sample(clips[CLIPS:], 2 * PARTS - 3)]
        found[f"film-{number}"] = np.concatenate(own[:PARTS])
        others[f"film-{number}"] = {
            "its parts in another order": np.concatenate([own[i] for i in rng.sample(range(PARTS), PARTS)]),
            "the same beginning": np.concatenate([*own[:3], *own[PARTS:]]),
        }
    for number in range(CAMERAS):
        told = rng.sample(clips[CLIPS:], 2 * PARTS)
        takes = [draw_on(clip.story, clip.id, f"camera-{number}") for clip in told]
        again = [draw_on(clip.story, f"{clip.id}/again", f"camera-{number}") for clip in told[:PARTS]]
        found[f"camera-{number}"] = np.concatenate(takes[:PARTS])
        others[f"camera-{number}"] = {
            "other events before the same background": np.concatenate(takes[PARTS:]),
            "another take": np.concatenate(again),
        }
    for number in range(SLOW_FILMS):
        told = rng.sample(clips[CLIPS:], SLOW_PARTS)
        found[f"slow-{number}"] = slow([draw_on(clip.story, clip.id, clip.id) for clip in told])
        others[f"slow-{number}"] = {
            "another take": slow([draw_on(clip.story, f"{clip.id}/again", clip.id) for clip in told])
        }
    return found, others


def slow(parts: list[Frames]) -> Frames:
    return np.repeat(np.concatenate(parts), SLOWER, axis=0)


def make(folder: Path) -> list[Made]:
    made = []
    found, others = sources()
    for source, frames in found.items():
        own = folder / source
        own.mkdir(parents=True, exist_ok=True)
        write(own / "source.mp4", frames)
        for how, (_, version) in VERSIONS.items():
            version(own / f"{how}.mp4", frames)
        for how, alike in others[source].items():
            write(own / f"{how}.mp4", alike)
        kinds = {"source": SAME, **{how: kind for how, (kind, _) in VERSIONS.items()}}
        made += [Made(path, source, path.stem, kinds.get(path.stem, OTHER)) for path in sorted(own.iterdir())]
    return made


# -- measurement


def read(library: Path, made: Sequence[Made]) -> tuple[dict[Path, str], dict[str, Fingerprint], dict[str, np.ndarray]]:
    """Return the ids of the videos by path, and their fingerprints and embeddings (segments, e) by id."""
    store = Store.open(library)
    ids = {Path(path): record.video for path, record in store.videos().items()}
    fingerprints = near_copies.read_fingerprints(store.open_table(near_copies.FINGERPRINTS))
    column = store.models[0].column
    embeddings = {video: matrix(store.rows_of([video], columns=[column]).column(column)) for video in ids.values()}
    return {one.path: ids[one.path] for one in made}, fingerprints, embeddings


def right_pairs(made: Sequence[Made], ids: dict[Path, str]) -> tuple[set[Key], set[Key]]:
    """Return the pairs that are near-duplicates: a source and a version; and those that may be found or not.

    These are versions of one source, and pairs that really look alike: two parts, or what is mirrored and backwards.
    """
    right, open_to_both = set(), set()
    for one, other in combinations(made, 2):
        pair, kinds = frozenset([ids[one.path], ids[other.path]]), {one.kind, other.kind}
        if one.source != other.source:
            continue
        if HARD in kinds or {one.how, other.how} == {"mirrored", "backwards"}:
            open_to_both.add(pair)
        elif OTHER not in kinds:
            (right if "source" in (one.how, other.how) else open_to_both).add(pair)
    return right, open_to_both


def embedding_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean distance of the shorter video's segments from the nearest ones of the other, in order."""
    short, long = sorted([one, other], key=len)
    return min(
        float((1 - (short * long[start : start + len(short)]).sum(axis=1)).mean())
        for start in range(len(long) - len(short) + 1)
    )


def report(found: set[Key], right: set[Key]) -> str:
    hits = len(found & right)
    precision, recall = hits / max(1, len(found)), hits / len(right)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return f"{hits} of {len(right)} | {len(found) - hits} | {100 * precision:.1f} | {100 * recall:.1f} | {100 * f1:.1f}"


def alike_by_embeddings(right: set[Key], left_out: set[Key], embeddings: dict[str, np.ndarray]) -> set[Key]:
    """Return the pairs that embeddings find, with the threshold for which F1 is highest."""
    distances = {
        frozenset([one, other]): embedding_distance(embeddings[one], embeddings[other])
        for one, other in combinations(sorted(embeddings), 2)
    }
    ordered = sorted(distances.keys() - left_out, key=lambda pair: distances[pair])
    hits = np.cumsum([pair in right for pair in ordered])
    best = int((2 * hits / (np.arange(1, len(ordered) + 1) + len(right))).argmax())
    print(f"threshold of the embeddings: {distances[ordered[best]]:.4f}")
    return set(ordered[: best + 1])


def by_version(made: Sequence[Made], ids: dict[Path, str], found: set[Key], alike: set[Key]) -> None:
    """Print, for each version, the share of the sources that it is found to be a near-duplicate of."""
    sources_of = {one.source: one for one in made if one.how == "source"}
    kinds = list(dict.fromkeys(one.source.partition("-")[0] for one in made))
    print("version | is |", " | ".join(kinds), "| embeddings, all")
    for how in dict.fromkeys(one.how for one in made if one.how != "source"):
        own = [one for one in made if one.how == how]
        keys = {one: frozenset([ids[one.path], ids[sources_of[one.source].path]]) for one in own}
        cells = []
        for kind in kinds:
            places = [keys[one] in found for one in own if one.source.startswith(kind)]
            cells.append(f"{sum(places)} of {len(places)}" if places else "")
        cells.append(f"{sum(keys[one] in alike for one in own)} of {len(own)}")
        print(how, "|", own[0].kind, "|", " | ".join(cells))


def name_wrong(made: Sequence[Made], ids: dict[Path, str], wrong: set[Key]) -> None:
    by_id = {ids[one.path]: one for one in made}
    names = [sorted(f"{by_id[video].source}: {by_id[video].how}" for video in pair) for pair in wrong]
    print("wrong:", sorted(names))


def measure_speed(videos: int, new: int = 100) -> None:
    """Print how long random fingerprints of videos with 16 pictures, 1 % of them with a copy, take to compare."""
    random = np.random.default_rng(0)
    times = np.arange(16, dtype=np.float32) * 2.5
    found = []
    for _ in range(videos):
        pictures = random.integers(-60, 61, (16, WIDTH), dtype=np.int8)
        found.append(Fingerprint(40.0, times, pictures, np.full((16, 3), 100, np.float32)))
    for place in range(0, videos, 100):
        noise = random.integers(-3, 4, (16, WIDTH), dtype=np.int8)
        found[place] = Fingerprint(40.0, times, found[place - 1].pictures + noise, found[place - 1].tones)
    for number, name in ((videos, "all are new"), (new, f"{new} are new")):
        started = time.monotonic()
        chosen = candidates(found, np.arange(videos) >= videos - number)
        between = time.monotonic()
        hits = sum(relation("a", found[one], "b", found[other]) is not None for one, other in chosen)
        seconds = time.monotonic() - between
        print(f"{videos} videos, {name}: {len(chosen)} candidates in {between - started:.1f} s", end=", ")
        print(f"{hits} pairs in {seconds:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--videos", type=int, help="Only measure the speed, with so many made-up videos.")
    arguments = parser.parse_args()
    if arguments.videos:
        measure_speed(arguments.videos)
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        made = make(folder / "videos")
        if not (folder / "library").exists():
            vop.Library.create(folder / "library", model=arguments.model)
        with progress.show() as show:
            vop.Library.open(folder / "library").index(folder / "videos", workers=1, progress=show)
        ids, fingerprints, embeddings = read(folder / "library", made)
    started = time.monotonic()
    names = sorted(fingerprints)
    videos = [fingerprints[name] for name in names]
    chosen = candidates(videos, np.ones(len(names), bool))
    pairs = [relation(names[one], videos[one], names[other], videos[other]) for one, other in chosen]
    seconds = time.monotonic() - started
    right, left_out = right_pairs(made, ids)
    reached = sum(frozenset([names[one], names[other]]) in right for one, other in chosen)
    print(f"{len(names)} videos: {len(chosen)} candidates with {reached} of {len(right)} right ones, {seconds:.1f} s")
    found = {frozenset([pair.video, pair.other]) for pair in pairs if pair} - left_out
    alike = alike_by_embeddings(right, left_out, embeddings)
    print("way | right | wrong | precision | recall | F1")
    for way, own in (("fingerprints", found), ("embeddings", alike), ("both", found & alike)):
        print(way, "|", report(own, right))
    by_version(made, ids, found, alike)
    name_wrong(made, ids, found - right)


if __name__ == "__main__":
    main()
