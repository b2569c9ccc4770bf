"""Measure how well the confidence of a search tells queries that have an answer from those that have none.

    python bench/confidence.py [--data DIR] [--model mini-2 --model RUN ...] [--frames 6]
    python bench/confidence.py --examples
    python bench/confidence.py --cost

Libraries are made of test videos of emoji-motion-2 (drawn in the cache if --data is not given), in several sizes, that
show three quarters of the things; validation and training videos fill the largest. The queries:

    answer     the captions of the library's test videos
    absent     captions of test videos that show none of these things
    everyday   captions of everyday scenes (`everyday_captions.txt`): no sticker video shows them
    nonsense   random words, letters, sentences about nothing that can be seen

A candidate is a formula and a background of captions. Its value for the best result of a query is compared over all
sizes at once, as one divider has to serve them all: AUC is the area under the ROC curve, in percent. A background of
`training` captions stands for what everyday language is to a model that was trained on the web: it has the words of the
library, and no video of it. (No caption of the training split tells the story of a test video.)

--examples measures whether videos could be judged, with the library's own videos as a background. --cost measures the
time of a search with and without confidence, and of the calibration.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import numpy as np
import torch

import vop
from vop.benchmarks.captions import thing as named
from vop.benchmarks.emoji_motion_2 import benchmark
from vop.search import confidence
from vop.search.confidence import WEAK_BELOW, Calibration, unlikely_captions

SIZES = {20: 30, 100: 8, 300: 3, 1000: 1}  # videos of a library, and how many such libraries
FILLERS = 600  # training videos that fill the largest library, beside those of val; nobody asks for them
KINDS = ("absent", "everyday", "nonsense")
DIVIDERS = (0.5, 0.8, 0.9, 0.95)
PER_LIBRARY = 60  # queries of a kind, so that each size counts as much as the others
NONSENSE = (
    """
asdf jkl qwertz uiop|colorless green ideas sleep furiously|xyzzy plugh foo bar|the of and to in|qqqqqqqqqq
lorem ipsum dolor sit amet consectetur|7 13 99 4021 0.5|blarg snorfle wibble|yesterday never without because
please reset my password|what is the meaning of life|invoice number 2291 overdue|hhhhh kkkkk lllll|!!! ??? ...
quarterly revenue grew by four percent|the square root of justice|import numpy as np|we regret to inform you|zxcvbnm
terms and conditions apply|pseudo random entropy of grammar|flimble the grommit with a zonk|abc def ghi jkl mno
therefore the theorem follows|undefined is not a function|nevertheless in spite of|dear sir or madam|42|rrr ttt zzz
""".strip()
    .replace("\n", "|")
    .split("|")
)

Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="The folder of emoji-motion-2.")
    parser.add_argument("--model", action="append", help="May be repeated (default: mini-2).")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--examples", action="store_true")
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if arguments.cost:
        measure_cost()
        return
    worlds = [World(name, arguments.data, arguments.frames) for name in arguments.model or ["mini-2"]]
    if arguments.examples:
        for world in worlds:
            measure_examples(world)
        return
    compare_candidates(worlds)
    compare_steadiness(worlds)
    for world in worlds:
        compare_words(world)
        measure_divider(world)


class World:
    """Embedded test videos and queries of one model."""

    def __init__(self, name: str, folder: Path | None, frames: int) -> None:
        self.name = name
        data, clips = benchmark.dataset(folder), benchmark.plan_clips()
        split = {name: [clip for clip in clips if clip.split == name] for name in ("test", "val", "train")}
        self.clips = [*split["test"], *split["val"], *split["train"][:FILLERS]]
        self.asked = len(split["test"])
        training = [clip.captions[0] for clip in split["train"][FILLERS:]]
        files = {Path(video.path).stem: video.path for part in split for video in data.split(part).videos}
        model = vop.load(name, num_frames=frames)
        embed = lambda texts: model.encode_text(list(texts)).numpy()  # noqa: E731
        self.videos = model.encode_video([files[clip.id] for clip in self.clips], batch_size=32).numpy()
        self.captions = embed(clip.captions[0] for clip in self.clips)
        everyday = embed((Path(__file__).parent / "everyday_captions.txt").read_text().splitlines())
        self.queries = {"everyday": everyday[::2], "nonsense": embed(NONSENSE)}
        self.backgrounds = {
            "unlikely": embed(unlikely_captions()),
            "everyday": everyday[1::2],
            "training": embed(Random(0).sample(training, 256)),
        }
        used = sorted({thing for clip in split["test"] for thing in clip.story.things})
        shown = set(Random(0).sample(used, len(used) * 3 // 4))
        things = [set(clip.story.things) for clip in self.clips]
        self.things = things
        self.short = dict(zip(used, embed(map(named, used)), strict=True))  # "a lion"
        self.shown = np.flatnonzero([own <= shown for own in things])
        self.absent = np.flatnonzero([not own & shown for own in things[: self.asked]])

    def libraries(self, size: int) -> list[Array]:
        """Return the places of the videos of libraries of this size, those of the test split first."""
        asked, fillers = np.split(self.shown, [np.searchsorted(self.shown, self.asked)])
        orders = (np.random.default_rng(seed).permutation(asked) for seed in range(SIZES[size]))
        return [np.concatenate([order, fillers])[:size] for order in orders]

    def asked_of(self, library: Array) -> Array:
        """Return the places of the videos whose captions are queries."""
        return library[library < self.asked]

    def queries_of(self, library: Array) -> dict[str, Array]:
        return {"answer": self.captions[self.asked_of(library)], "absent": self.captions[self.absent], **self.queries}

    def words_of(self, library: Array) -> tuple[Array, Array]:
        """Return the names ("a lion") of things that the library shows, and of others."""
        shown = set[int]().union(*(self.things[clip] for clip in library))
        ordered = sorted(self.short, key=lambda one: one not in shown)
        whole = np.stack([self.short[one] for one in ordered])
        number = sum(one in shown for one in ordered)
        return whole[:number], whole[number:]


# -- candidates: (queries (q, e), videos (n, e), background (c, e)) -> a value for the best video of each query (q,)


def shares(values: Array, background: Array) -> Array:
    """Return the share of the background below each value."""
    return np.searchsorted(np.sort(background), values) / len(background)


def by_evidence(evidence: Callable[[Array], Array]) -> Callable[[Array, Array, Array], Array]:
    """Compare what `evidence` makes of the scores (q, n) of queries and of captions."""
    return lambda queries, videos, captions: shares(evidence(queries @ videos.T), evidence(captions @ videos.T))


def by_video(evidence: Callable[[Array, Array], Array]) -> Callable[[Array, Array, Array], Array]:
    """The same with the scores (c, n) of the captions, so that each video is compared with its own usual scores."""

    def value(queries: Array, videos: Array, captions: Array) -> Array:
        scores, usual = queries @ videos.T, captions @ videos.T
        return shares(evidence(scores, usual), evidence(usual, usual))

    return value


def _double_centred(scores: Array, usual: Array) -> Array:
    best = scores.argmax(1)
    return np.take_along_axis(scores - usual.mean(0), best[:, None], 1)[:, 0] - scores.mean(1)


def _posterior(scores: Array, usual: Array) -> Array:
    """How much more likely the query is than the captions, by a softmax with CLIP's temperature, for the best video."""
    best = scores.argmax(1)
    others = np.log(np.exp((usual - 1) * 100).mean(0)) / 100
    return np.take_along_axis(scores - others, best[:, None], 1)[:, 0]


FORMULAS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "score (a flat threshold)": lambda queries, videos, _: (queries @ videos.T).max(1),
    "deviations from the query's mean": lambda queries, videos, _: _deviations(queries @ videos.T),
    "share: score": by_evidence(lambda scores: scores.max(1)),
    "share: deviations": by_evidence(lambda scores: _deviations(scores)),
    "share: score - mean": by_evidence(lambda scores: scores.max(1) - scores.mean(1)),
    "share: score - mean / 2": by_evidence(lambda scores: scores.max(1) - scores.mean(1) / 2),
    "share: score - mean - the video's mean": by_video(_double_centred),
    "share: softmax over the captions": by_video(_posterior),
}


def _deviations(scores: Array) -> Array:
    return (scores.max(1) - scores.mean(1)) / scores.std(1)


def auc(positive: Array, negative: Array) -> float:
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return 50 * float(below.mean()) / len(ordered)


def compare_candidates(worlds: list[World]) -> None:
    names = [Path(world.name).name for world in worlds]
    print(f"AUC for {' / '.join(KINDS)}, of {', '.join(names)}\n")
    print("| background | formula |", " | ".join(names), "| all |")
    print("| --- | --- |", " | ".join(["---"] * (len(worlds) + 1)), "|")
    for background in worlds[0].backgrounds:
        for formula, value in FORMULAS.items():
            found: dict[str, list[Array]] = {}
            cells = []
            for world in worlds:
                own = values(world, value, background)
                cells.append(" / ".join(f"{auc(own['answer'], own[kind]):.1f}" for kind in KINDS))
                for kind, some in own.items():
                    found.setdefault(kind, []).append(some)
            pooled = {kind: np.concatenate(some) for kind, some in found.items()}
            cells.append(" / ".join(f"{auc(pooled['answer'], pooled[kind]):.1f}" for kind in KINDS))
            print(f"| {background} | {formula} |", " | ".join(cells), "|", flush=True)


def compare_steadiness(worlds: list[World], background: str = "unlikely") -> None:
    """Place the divider of each formula where 10 % of all absent queries pass it, and count by library."""
    print("\nabsent queries above a divider that 10 % of all pass / answers above it, by model and videos\n")
    heads = [f"{Path(world.name).name}, {len(world.libraries(size)[0])}" for world in worlds for size in SIZES]
    print("| formula |", " | ".join(heads), "|")
    print("| --- |", " | ".join(["---"] * len(heads)), "|")
    for formula, value in list(FORMULAS.items())[:-2]:  # the last two tie at 1
        found = [values(world, value, background, sizes=[size]) for world in worlds for size in SIZES]
        divider = np.quantile(np.concatenate([one["absent"] for one in found]), 0.9)
        cells = [
            f"{100 * (one['absent'] > divider).mean():.0f} / {100 * (one['answer'] > divider).mean():.0f}"
            for one in found
        ]
        print(f"| {formula} |", " | ".join(cells), "|", flush=True)


def compare_words(world: World) -> None:
    """Sentences and single words above the divider, by formula."""
    print(f"\n{Path(world.name).name}: above {WEAK_BELOW}, sentence / one word\n")
    print("| formula | videos | answer | absent |\n| --- | --- | --- | --- |")
    background = world.backgrounds["unlikely"]
    for formula in ("share: score", "share: score - mean / 2", "share: score - mean"):
        for size in (20, 1000):
            rates: list[list[float]] = []
            for place in world.libraries(size):
                sentences, words = world.queries_of(place), world.words_of(place)
                asked = (sentences["answer"], words[0], sentences["absent"], words[1])
                own = [FORMULAS[formula](queries, world.videos[place], background) for queries in asked]
                rates.append([100 * float((some >= WEAK_BELOW).mean()) for some in own])
            mean = [f"{rate:.0f}" for rate in np.mean(rates, axis=0)]
            print(f"| {formula} | {size} | {mean[0]} / {mean[1]} | {mean[2]} / {mean[3]} |", flush=True)


def values(
    world: World, value: Callable[[Array, Array, Array], Array], background: str, *, sizes: Iterable[int] = SIZES
) -> dict[str, Array]:
    """Return the values of all queries of each kind, with the same number for each size of library."""
    found: dict[str, list[Array]] = {}
    for size in sizes:
        places = world.libraries(size)
        for seed, place in enumerate(places):
            for kind, queries in world.queries_of(place).items():
                own = value(queries, world.videos[place], world.backgrounds[background])
                number = PER_LIBRARY * max(SIZES.values()) // len(places)
                found.setdefault(kind, []).append(np.random.default_rng(seed).choice(own, number))
    return {kind: np.concatenate(some) for kind, some in found.items()}


def measure_divider(world: World) -> None:
    """Precision and recall of the divider with the package's own calibration."""
    print(f"\n{Path(world.name).name}: the divider, by background, size and its place")
    print("right: the caption's own video is above it. precision: of as many queries with and without an answer\n")
    print("| background | videos | divider | recall | right | absent | everyday | nonsense | precision |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for background in ("unlikely", "training"):
        for size in SIZES:
            found = [judge(world, place, world.backgrounds[background]) for place in world.libraries(size)]
            kinds = {name: np.concatenate([one[name] for one in found]) for name in ("answer", "right", *KINDS)}
            for divider in DIVIDERS:
                rate = {name: 100 * float((own >= divider).mean()) for name, own in kinds.items()}
                wrong = np.mean([rate[kind] for kind in KINDS])
                precision = 100 * rate["answer"] / max(rate["answer"] + wrong, 1e-9)
                cells = [rate["answer"], rate["right"], *(rate[kind] for kind in KINDS), precision]
                shown = len(world.libraries(size)[0])
                print(f"| {background} | {shown} | {divider} |", " | ".join(f"{cell:.0f}" for cell in cells), "|")
    print(f"\n| kind of query | videos | above {WEAK_BELOW} |")
    print("| --- | --- | --- |")
    for size in (20, 1000):
        found = [judge(world, place, world.backgrounds["unlikely"]) for place in world.libraries(size)]
        for name in sorted(set[str]().union(*found)):
            own = np.concatenate([one[name] for one in found if name in one])
            print(f"| {name} | {len(world.libraries(size)[0])} | {100 * (own >= WEAK_BELOW).mean():.0f} |", flush=True)


def judge(world: World, place: Array, background: Array) -> dict[str, Array]:
    """Return the confidence of the best result by kind of query; `right` is that of the caption's own video."""
    videos = world.videos[place]
    calibration = Calibration.of(background, [videos])

    def best(queries: Array) -> Array:
        return np.array([calibration.confidence(query, (videos @ query).max(keepdims=True))[0] for query in queries])

    queries = world.queries_of(place)
    found = {kind: best(own) for kind, own in queries.items()}
    asked = world.asked_of(place)
    own = world.captions[asked]
    found["right"] = np.array(
        [
            calibration.confidence(query, [video @ query])[0]
            for query, video in zip(own, world.videos[asked], strict=True)
        ]
    )
    kinds = np.array([world.clips[clip].kind for clip in asked])
    found |= {f"answer: {kind}": found["answer"][kinds == kind] for kind in set(kinds)}
    words, strange = world.words_of(place)
    found["answer: one word"], found["absent: one word"] = best(words), best(strange)
    rng = np.random.default_rng(0)
    other = world.captions[rng.permutation(asked)]
    found["answer, less of another (-0.5)"] = best(unit(own - 0.5 * other))
    found["answer and another (1, 1)"] = best(unit(own + other))
    absent = world.captions[world.absent]
    found["absent, less of another (-0.5)"] = best(unit(absent - 0.5 * rng.choice(own, len(absent))))
    found["absent and absent (1, 1)"] = best(unit(absent + rng.permutation(absent)))
    return found


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measure_examples(world: World) -> None:
    """Videos as queries, compared with the library's own videos: how similar is the most similar other one?"""
    things = [tuple(sorted(set(clip.story.things))) for clip in world.clips]
    print(f"\n{Path(world.name).name}: AUC of videos with another video of the same things, by library")
    for size in (600, 200, 40):
        known, lonely, strange = [], [], []
        for seed in range(600 // size):
            place = np.random.default_rng(seed).permutation(world.asked_of(world.shown))[:size]
            videos = world.videos[place]
            scores = videos @ videos.T
            mean = scores.mean(1)
            np.fill_diagonal(scores, -1)
            own = scores.max(1) - mean / 2
            same = np.array([sum(things[a] == things[b] for b in place) > 1 for a in place])
            others = world.videos[world.absent] @ videos.T
            known.append(shares(own[same], own))
            lonely.append(shares(own[~same], own))
            strange.append(shares(others.max(1) - others.mean(1) / 2, own))
        positive, one, two = map(np.concatenate, (known, lonely, strange))
        print(
            f"{size} videos: against videos without: {auc(positive, one):.1f}, against things that the library does "
            f"not show: {auc(positive, two):.1f}; above {WEAK_BELOW}: "
            + ", ".join(f"{100 * (own >= WEAK_BELOW).mean():.0f} %" for own in (positive, one, two)),
            flush=True,
        )


def measure_cost(width: int = 512) -> None:
    """Time a search in memory with and without confidence, and the calibration, on random vectors."""
    rng = np.random.default_rng(0)
    captions = unit(rng.normal(size=(256, width)).astype(np.float32))
    for rows in (1000, 50_000, 200_000):
        segments = unit(rng.normal(size=(rows, width)).astype(np.float32))
        began = time.perf_counter()
        calibration = Calibration.of(captions, (segments[start : start + 8192] for start in range(0, rows, 8192)))
        seconds = time.perf_counter() - began
        query = captions[0]
        scores = np.sort(segments @ query)[::-1][:20]
        with tempfile.TemporaryDirectory() as folder:
            confidence.write({"model": calibration}, Path(folder))
            size = (Path(folder) / confidence.FILE).stat().st_size
            kept = confidence.Calibrations(Path(folder))
            began = time.perf_counter()
            kept.of("model")
            first = time.perf_counter() - began
            began = time.perf_counter()
            for _ in range(1000):
                found = kept.of("model")
                assert found is not None
                found.confidence(query, scores)
            each = (time.perf_counter() - began) / 1000
        print(
            f"{rows} segments of {width} numbers: calibration {seconds:.2f} s, file {size / 1e6:.2f} MB, first use "
            f"{1000 * first:.1f} ms, each search {1e6 * each:.0f} µs",
            flush=True,
        )


if __name__ == "__main__":
    main()
