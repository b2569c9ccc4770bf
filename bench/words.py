"""Measure a search by pictures, by words and by both, on a made library of 200 videos.

    python bench/words.py [--folder DIR] [--model mini-2] [--tune]

Each video has two scenes of stickers (emoji-motion-2) and, in one of them, words: spoken by espeak-ng in its sound,
with the text as a file beside it (40 videos), as a track (40), or without a text (40); only written as subtitles (40);
or none (40). PocketSphinx listens to all that speak, with a grammar of the sentences that are spoken: without one it
understands next to nothing of a synthetic voice, and Whisper's weights are not part of this measurement. Some videos
have subtitles that tell what others show.

30 questions ask for a scene that is seen, heard, both (each half matches several scenes), or absent. The table has
the rank of the right scene by pictures only, words only, and fused. `--tune` compares the ways to fuse on 30 other
questions; the weight was chosen there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import vop
from speaking import SPEECH_RATE, speak
from vop.benchmarks.emoji_motion_2.benchmark import Clip, Plan, draw, plan_clips
from vop.benchmarks.videos import FRAMES_PER_SECOND
from vop.search.results import Moment
from vop.search.words import fusion
from vop.search.words.speech import RECOGNIZERS, SpokenLine
from vop.utils import progress

VIDEOS, REPEATS = 200, 2
SCENE_SECONDS = REPEATS * 25 / FRAMES_PER_SECOND
KINDS = ("file", "track", "recognized", "written", "none")
SPEAKING = KINDS[:3]
SHOWN_TO = 200  # the farthest rank that is looked for
WEIGHTS = (2.0, 4.0, 6.0, 8.0, 10.0)

_OPENINGS = ("please remember to bring", "nobody wants to carry", "we finally found", "my sister painted", "they sold")
_THINGS = """
umbrella violin ladder blanket bottle hammer candle carpet mirror basket pillow trumpet wallet curtain kettle
"""
_COLOURS = "green yellow purple silver golden wooden broken enormous tiny heavy"
_PLACES = "harbor library kitchen station garden museum bakery factory village mountain stadium hospital theater bridge"
_ABSENT = (
    "a submarine under the ice",
    "somebody talks about taxes in january",
    "astronauts repair a telescope",
    "a lecture about roman law",
    "someone says that the elevator is stuck",
    "fireworks over a frozen lake",
)


@dataclass(frozen=True)
class Film:
    """A video: its scenes, and what is said or written in one of them."""

    name: str
    scenes: tuple[Clip, Clip]
    kind: str
    said: str
    phrase: str  # what it is about
    place: int  # the scene of the words

    @property
    def file(self) -> str:
        return f"{self.name}.{'mkv' if self.kind == 'track' else 'mp4'}"


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    film: Film | None = None
    scene: int = 0


def plan() -> tuple[list[Film], list[Question], list[Question]]:
    """Return the videos, the questions of the table, and those that the weight is chosen on."""
    rng = Random("words")
    clips = plan_clips(Plan(train=0, val=0, test=2 * VIDEOS, unseen=0.0, seed=15))
    rng.shuffle(clips)
    phrases = _phrases(rng)
    films = []
    for number in range(VIDEOS):
        kind = KINDS[number % len(KINDS)]
        phrase = next(phrases)
        said = "" if kind == "none" else f"{rng.choice(_OPENINGS)} {phrase} on {rng.choice(['monday', 'friday'])}"
        film = Film(f"film-{number:03d}", (clips[2 * number], clips[2 * number + 1]), kind, said, phrase, number % 2)
        films.append(film)
    for first in range(0, VIDEOS, 10):
        _entangle(films, first)
    shown = [film for number, film in enumerate(films) if number % 20 in (4, 9)]
    for film, other in zip(films[18::20], shown, strict=False):  # half of the scenes that questions ask for
        films[films.index(film)] = replace(film, said=f"do you remember {other.scenes[1].captions[0]}")
    questions = [list(_questions(films, part)) for part in range(2)]
    return films, questions[0], questions[1]


def _phrases(rng: Random) -> Iterator[str]:
    found = [
        f"the {colour} {thing} at the {place}"
        for colour in _COLOURS.split()
        for thing in _THINGS.split()
        for place in _PLACES.split()
    ]
    rng.shuffle(found)
    return iter(found)


def _entangle(films: list[Film], first: int) -> None:
    """Make a video the only one that shows its scene and says its words: two others show it, two others say them."""
    wanted, *others = (films[first + step] for step in (0, 6, 8, 1, 3))
    same_scene, same_words = others[:2], others[2:]
    for number, film in enumerate(same_scene):
        clip = replace(wanted.scenes[wanted.place], seed=f"{wanted.name}/{number}")  # the same story, drawn again
        scenes = (clip, film.scenes[1]) if film.place == 0 else (film.scenes[0], clip)
        films[films.index(film)] = replace(film, scenes=scenes)
    for film in same_words:
        films[films.index(film)] = replace(film, said=wanted.said, phrase=wanted.phrase)


def _questions(films: Sequence[Film], part: int) -> Iterator[Question]:
    silent = [film for film in films if film.kind == "none"][part::2]
    for film in silent[:8]:
        yield Question("seen", film.scenes[1].captions[0], film, 1)
    alone = [film for number, film in enumerate(films) if number % 20 in (2, 5, 7, 12)]
    for number, film in enumerate(alone[part::2][:8]):
        about = film.phrase.removeprefix("the ")
        yield Question("heard", f"someone talks about the {about}" if number % 2 else about, film, film.place)
    for film in films[10 * part : 160 : 20]:
        clip = film.scenes[film.place]
        yield Question("both", f"{clip.captions[0]}, someone talks about {film.phrase}", film, film.place)
    for text in _ABSENT:
        yield Question("absent", text)


# -- the videos


def render(films: Sequence[Film], folder: Path) -> None:
    """Write the missing videos, and the files beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    with progress.show() as show:
        for number, film in enumerate(films, start=1):
            if not (folder / film.file).exists():
                _write(film, folder / film.file)
            if film.kind in ("file", "written"):
                name = f"{film.name}.srt" if film.kind == "file" else f"{film.name}.en.srt"
                start, end = _times(film)
                text = f"1\n00:00:{start:06.3f} --> 00:00:{end:06.3f}\n{film.said}\n".replace(".", ",", 2)
                (folder / name).write_text(text, encoding="utf-8")
            show("rendering", number, len(films))


def _times(film: Film) -> tuple[float, float]:
    start = film.place * SCENE_SECONDS + 0.4
    return start, start + 3.0


def _write(film: Film, path: Path) -> None:
    frames = np.concatenate([np.concatenate([draw(clip)] * REPEATS) for clip in film.scenes])
    temporary = path.with_suffix(f".part{path.suffix}")
    with av.open(str(temporary), "w") as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        video.options = {"crf": "20", "preset": "veryfast", "threads": "1"}
        speaks = film.kind in SPEAKING
        sound = container.add_stream("aac", rate=SPEECH_RATE, layout="mono") if speaks else None
        text = container.add_stream("subrip") if film.kind == "track" else None
        if text is not None:
            text.codec_context.subtitle_header, text.time_base = b"[Script Info]\n", Fraction(1, 1000)
        packets = []
        for number, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            packets += video.encode(picture)
        packets += video.encode(None)
        start, end = _times(film)
        if sound is not None:
            silence = np.zeros(round(start * SPEECH_RATE), np.int16)
            spoken = np.concatenate([silence, speak(film.said)])[None]
            frame = av.AudioFrame.from_ndarray(spoken, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SPEECH_RATE, 0, Fraction(1, SPEECH_RATE)
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=SPEECH_RATE, frame_size=1024)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                packets += sound.encode(part)
            packets += sound.encode(None)
        if text is not None:
            packet = av.Packet(film.said.encode())
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = round(1000 * start)
            packet.duration = round(1000 * (end - start))
            packets.append(packet)
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            container.mux(packet)
    temporary.rename(path)


class Grammar:
    """PocketSphinx with a grammar of the sentences in its model's name, which `|` separates."""

    def __init__(self, model: str) -> None:
        from pocketsphinx import Decoder

        with tempfile.NamedTemporaryFile("w", suffix=".jsgf") as file:
            file.write(f"#JSGF V1.0;\ngrammar spoken;\npublic <sentence> = {model};\n")
            file.flush()
            self._decoder = Decoder(jsgf=file.name, lm=None, samprate=16000.0, loglevel="FATAL")

    def transcribe(self, samples: np.ndarray) -> Iterator[SpokenLine]:
        decoder = self._decoder
        decoder.start_utt()
        decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        words = [part for part in decoder.seg() or () if not part.word.startswith("<")]
        if words:
            text = " ".join(part.word.partition("(")[0] for part in words)
            yield SpokenLine(text, words[0].start_frame / 100, (words[-1].end_frame + 1) / 100)


# -- measuring


def rank_of(question: Question, found: Sequence[Moment], *, only_words: bool = False) -> float | None:
    """Return the rank of the right scene; None if it was not found.

    Scenes with the same words are in any order for a search of words only: their mean rank counts.
    """
    film = question.film
    if film is None:
        return None
    for rank, moment in enumerate(found, start=1):
        middle = (moment.start_seconds + moment.end_seconds) / 2
        if moment.path.endswith(f"/{film.file}"):
            if int(middle // SCENE_SECONDS) != question.scene:
                return None
            equal = [place for place, other in enumerate(found, start=1) if only_words and _same_words(moment, other)]
            return float(np.mean(equal or [rank]))
    return None


def _same_words(one: Moment, other: Moment) -> bool:
    return one.line is not None and other.line is not None and one.line.text == other.line.text


def ways(library: vop.Library, question: Question) -> dict[str, list[Moment]]:
    return {
        name: library.search(question.text, k=SHOWN_TO, words=words)
        for name, words in (("pictures", False), ("words", "only"), ("fused", True))
    }


def summary(ranks: Sequence[float | None]) -> str:
    share = [np.mean([rank is not None and rank <= most for rank in ranks]) * 100 for most in (1, 5)]
    mean = np.mean([0.0 if rank is None else 1 / rank for rank in ranks])
    return f"{share[0]:.0f} | {share[1]:.0f} | {mean:.2f}"


def show_table(library: vop.Library, questions: Sequence[Question]) -> None:
    print("| question | kind | pictures | words | fused |\n| --- | --- | ---: | ---: | ---: |")
    ranks: dict[tuple[str, str], list[float | None]] = {}
    for question in questions:
        found = ways(library, question)
        cells = []
        for name, moments in found.items():
            rank = rank_of(question, moments, only_words=name == "words")
            ranks.setdefault((question.kind, name), []).append(rank)
            cells.append("none" if not moments else "–" if rank is None else f"{rank:g}")
        print(f"| {question.text} | {question.kind} | {' | '.join(cells)} |")
    print("\n| questions | by | R@1 | R@5 | mean reciprocal rank |\n| --- | --- | ---: | ---: | ---: |")
    for (kind, name), own in ranks.items():
        if kind != "absent":
            print(f"| {kind} | {name} | {summary(own)} |")


def tune(library: vop.Library, questions: Sequence[Question]) -> None:
    print("| fused by | kind | R@1 | R@5 | mean reciprocal rank |\n| --- | --- | ---: | ---: | ---: |")
    weighted = fusion.weighted
    orders = {f"weight {weight:g}": partial(weighted, weight=weight) for weight in WEIGHTS}
    for name, order in {"reciprocal ranks": fusion.reciprocal_ranks, **orders}.items():
        fusion.weighted = order
        all_ranks: list[float | None] = []
        for kind in ("seen", "heard", "both"):
            asked = [question for question in questions if question.kind == kind]
            ranks = [rank_of(one, library.search(one.text, k=SHOWN_TO)) for one in asked]
            all_ranks += ranks
            print(f"| {name} | {kind} | {summary(ranks)} |")
        print(f"| {name} | all | {summary(all_ranks)} |", flush=True)
    fusion.weighted = weighted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="Where to keep the videos and the library.")
    parser.add_argument("--model", default="mini-2")
    parser.add_argument("--tune", action="store_true", help="Compare the ways to fuse, on other questions.")
    arguments = parser.parse_args()
    films, table, others = plan()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        render(films, folder / "videos")
        RECOGNIZERS.built_in = {**RECOGNIZERS.built_in, "grammar": f"{__name__}:Grammar"}
        spoken = sorted({film.said for film in films if film.kind in SPEAKING})
        started = time.monotonic()
        place = folder / "library"
        segmentation = vop.SegmentationConfig(window_seconds=4.2, overlap_seconds=0.0)
        try:
            library = vop.Library.open(place)
        except vop.UsageError:
            library = vop.Library.create(place, model=arguments.model, segmentation=segmentation)
        with progress.show() as show:
            library.index([folder / "videos"], speech="grammar:" + "|".join(spoken), workers=1, progress=show)
        print(f"indexed in {time.monotonic() - started:.0f} s; {count_heard(library, films)}\n", flush=True)
        (tune if arguments.tune else show_table)(library, others if arguments.tune else table)


def count_heard(library: vop.Library, films: Sequence[Film]) -> str:
    """Return how many of the spoken sentences PocketSphinx heard, and how often it heard another one."""
    right = wrong = 0
    by_file = {film.file: film for film in films}
    for record in library._store.videos().values():
        film = by_file[record.path.rpartition("/")[2]]
        spoken = {line.text for line in library.lines(record.video) if line.source == "speech"}
        right += film.kind in SPEAKING and film.said in spoken
        wrong += len(spoken - {film.said})
    return f"PocketSphinx heard {right} of 120 sentences, and {wrong} times another one"


if __name__ == "__main__":
    main()
