"""Lines are stored, found and fused with what is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.libraries import a_file, content_of, make_library, unit_vectors
from vop.errors import UsageError
from vop.search.confidence import Calibration, at_least, judged, unknown_note
from vop.search.filters import Filters
from vop.search.queries import Sentence
from vop.search.results import Moment
from vop.search.store import Store
from vop.search.words.fusion import Said, candidates, fuse, reciprocal_ranks, weighted
from vop.search.words.lines import Line
from vop.search.words.query import WordsQuery, terms
from vop.search.words.table import FoundLine, WordsRead

QUERY = unit_vectors(1, seed=99)[0]
LINES = {  # by video, of two segments of 10 s: where each line begins, and the line
    "a": [(1.0, "The dogs are running on the beach"), (12.0, "Never mind the weather")],
    "b": [(3.0, "今日は東京で犬が走っている"), (11.0, "我们今天去北京看长城")],
    "c": [(2.0, "Les élèves sont au café"), (9.5, "A dog, a cat and a parrot")],
    "d": [],
}


def a_line(text: str, start: float, end: float | None = None, *, source: str = "speech") -> Line:
    return Line(text=text, start_seconds=start, end_seconds=start + 2 if end is None else end, source=source)


def video(name: str) -> str:
    return content_of(f"/v/{name}.mp4")


def put(library: Store, lines=LINES, *, kind: str = "speech", known=()) -> None:
    library.words.put(
        [
            WordsRead(video(name), kind, "1", [a_line(text, start) for start, text in own])
            for name, own in lines.items()
        ],
        known=known,
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("words") / "library"
    files = [a_file(f"/v/{name}.mp4", seconds=20.0) for name in "abcd"]
    made = make_library(folder, files, segments=2)
    put(made)
    return made


def found(library: Store, query: str, **settings) -> list[tuple[str, str]]:
    """Return the names of videos and the lines that words alone find."""
    asked = WordsQuery.of([Sentence(query)])
    moments = library.search_words(None, asked, only=True, **settings)
    return [(moment.path[3:4], moment.line.text) for moment in moments]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("a dog runs", ["a", "c"]),  # in other forms; half of the words are enough
        ("cafe", ["c"]),
        ("CAFÉ", ["c"]),
        ("犬", ["b"]),
        ("東京", ["b"]),
        ("北京", ["b"]),
        ('"长城"', ["b"]),
        ('"犬が走って"', ["b"]),
        ('"on the beach"', ["a"]),
        ('"the on beach"', []),
        ('"dog, a cat"', ["c"]),
        ('«never mind» and "the weather"', ["a"]),
        ("the", ["a"]),
        ("an elephant in a park", []),
        ("?!", []),
    ],
)
def test_words_alone(library, query, names):
    assert [name for name, _ in found(library, query)] == names


def test_a_moment_has_the_line_and_its_segment(library):
    (moment,) = library.search_words(None, WordsQuery.of([Sentence('"never mind"')]))
    assert (moment.path, moment.start_seconds, moment.end_seconds) == ("/v/a.mp4", 10.0, 20.0)
    assert moment.matched == ("heard",)
    assert moment.line == a_line("Never mind the weather", 12.0)
    assert moment.score == 1.0


def test_filters_hold_for_words(library):
    assert found(library, "a dog", filters=Filters(name="c.mp4"), k=1) == [("c", "A dog, a cat and a parrot")]
    assert found(library, "a dog", filters=Filters(max_seconds=5.0)) == []


def test_pictures_and_words(library):
    """A plain sentence finds what is seen, too; the segment that a line is in has its own similarity."""
    pictures = library.search(QUERY, k=4)
    asked = WordsQuery.of([Sentence("never mind the weather")])
    moments = library.search_words(QUERY, asked, k=4)
    assert sorted(moment.video for moment in moments) == sorted(moment.video for moment in pictures)
    first = moments[0]
    assert (first.path, first.start_seconds) == ("/v/a.mp4", 10.0)
    assert first.line is not None
    assert first.score == pytest.approx(float(library.segment(first.segment).embeddings[0] @ QUERY), abs=1e-5)
    others = [moment for moment in moments if moment.line is None]
    assert others == [moment for moment in pictures if moment.path != "/v/a.mp4"]


def test_without_matching_words_it_is_a_search_by_pictures(library):
    asked = WordsQuery.of([Sentence("an elephant")])
    assert library.search_words(QUERY, asked, k=3) == library.search(QUERY, k=3)


def test_all_moments_of_a_video_by_words(library):
    found = library.moments(None, video("a"), words=WordsQuery.of([Sentence("dogs run on a beach, never mind")]))
    assert [(moment.start_seconds, moment.line.text, moment.matched) for moment in found.moments] == [
        (0.0, "The dogs are running on the beach", ("heard",)),
        (10.0, "Never mind the weather", ("heard",)),
    ]
    assert [segment.score for segment in found.segments] == [0.75, 0.5]
    assert found.floor == 0.5
    nothing = library.moments(None, video("d"), words=WordsQuery.of([Sentence('"never mind"')]))
    assert (nothing.moments, [segment.score for segment in nothing.segments]) == ([], [0.0, 0.0])


def test_all_moments_of_a_video_by_pictures_and_words(library):
    pictures = library.moments(QUERY, video("a"))
    assert library.moments(QUERY, video("a"), words=WordsQuery.of([Sentence("an elephant")])) == pictures
    found = library.moments(QUERY, video("a"), words=WordsQuery.of([Sentence("never mind the weather")]))
    assert found.segments == pictures.segments
    first, *others = found.moments
    assert (first.start_seconds, first.line.text) == (10.0, "Never mind the weather")
    assert first.score == pytest.approx(pictures.segments[1].score)
    assert [moment.segment for moment in others] == [
        moment.segment for moment in pictures.moments if moment.segment != first.segment
    ]
    quoted = library.moments(QUERY, video("a"), words=WordsQuery.of([Sentence('a ship "the weather"')]))
    assert [moment.line.text for moment in quoted.moments] == ["Never mind the weather"]


def test_lines_of_a_video(library):
    assert [line.text for line in library.lines(video("c"))] == [text for _, text in LINES["c"]]
    assert library.lines(video("d")) == []
    with pytest.raises(UsageError, match="has no video"):
        library.lines("0" * 32)


class TestWriting:
    @pytest.fixture
    def library(self, tmp_path) -> Store:
        return make_library(tmp_path / "library", [a_file(f"/v/{name}.mp4") for name in "abcd"], segments=2)

    def test_no_table_without_words(self, library):
        assert not library.has_words()
        assert library.lines(video("a")) == []
        library.keep_up()
        assert sorted(library._database.list_tables().tables) == ["failures", "segments_0"]

    def test_a_kind_is_replaced(self, library):
        put(library)
        put(library, {"a": [(0.5, "beneath the stairs")]}, kind="tracks")
        put(library, {"a": [(1.0, "hello there")]}, known=library.words.states().keys())
        assert [line.text for line in library.lines(video("a"))] == ["beneath the stairs", "hello there"]
        assert library.words.states()[video("a"), "speech"].state == "1"
        library.keep_up()
        put(library, {"b": [(1.0, "said after the index was made")]}, kind="tracks")
        assert [name for name, _ in found(library, "made after")] == ["b"]

    def test_other_processes_see_new_words(self, library):
        reader = Store.open(library.path)
        assert not reader.has_words()
        put(library)
        assert reader.has_words()
        assert [name for name, _ in found(reader, "weather")] == ["a"]

    def test_words_stay_while_a_video_can_be_restored(self, library):
        put(library)
        library.move_to_removed(["/v/a.mp4"])
        library.drop_words()
        assert found(library, "weather") == []  # its segments are not there
        library.restore(["/v/a.mp4"])
        assert [name for name, _ in found(library, "weather")] == ["a"]
        library.remove(["/v/a.mp4"])
        library.drop_words()
        assert {key[0] for key in library.words.states()} == {video(name) for name in "bcd"}
        assert library.words.count() == 4

    def test_words_stay_when_the_library_moves_to_other_models(self, library):
        put(library)
        staged = library.staging(library.manifest.with_(table="segments_1"))
        staged.publish()
        assert Store.open(library.path).words.count() == 6


# -- queries


def test_quotes_and_sentences():
    asked = WordsQuery.of([Sentence('a man says “good  morning” and "bye"', 2.0), Sentence('"rain"', -1.0)])
    assert asked.phrases == ("good  morning", "bye")
    assert asked.sentences == ("a man says and",)
    assert asked.seen == (Sentence("a man says and", 2.0),)
    plain = [Sentence("a dog  runs"), Sentence("a park", -0.5)]
    asked = WordsQuery.of(plain)
    assert (asked.phrases, asked.sentences, asked.seen) == ((), ("a dog  runs",), tuple(plain))
    assert WordsQuery.of([Sentence('"good morning"')]).seen == ()


def test_terms():
    assert terms("The dogs were RUNNING") == terms("a dog runs") == {"dog", "run"}
    assert terms("walruses, babies, glasses, houses") == terms("a walrus, a baby, a glass, a house")
    assert terms("the") == {"the"}
    assert terms("Élève") == terms("eleves")
    assert terms("東京タワー") == {"東京", "京タ", "タワ", "ワー"}
    assert terms("") == frozenset()


def test_coverage():
    asked = WordsQuery.of([Sentence("a red apple on a table"), Sentence("a pear")])
    assert asked.coverage("The apples are red") == pytest.approx(2 / 3)
    assert asked.coverage("pears") == 1.0
    assert asked.coverage("on a") == 0.0


# -- fusion


def a_moment(name: str, start: float, score: float) -> Moment:
    return Moment(
        segment=f"{name}-{round(start * 1000)}-{round(start * 1000) + 10_000}",
        video=name,
        path=f"/{name}.mp4",
        start_seconds=start,
        end_seconds=start + 10,
        score=score,
        duration_seconds=60.0,
        date="",
        plays_in_browsers=True,
        columns={},
    )


def said(moment: Moment, start: float, coverage: float = 1.0, *, bm25: float = 1.0, end: float | None = None) -> Said:
    return Said(moment, FoundLine(moment.video, a_line("words", start, end, source="a.srt"), bm25), coverage)


SEEN = [a_moment(name, 0.0, score) for name, score in [("a", 0.30), ("b", 0.26), ("c", 0.25), ("d", 0.23)]]


def test_what_overlaps_is_one_moment():
    """A line in the overlap of two windows belongs to the one that is seen."""
    next_window = a_moment("b", 8.0, 0.1)
    (one,) = [one for one in candidates(SEEN, [said(next_window, 9.0)]) if one.said]
    assert one.moment == SEEN[1]
    assert [one.moment.start_seconds for one in candidates(SEEN, [said(next_window, 10.0)]) if one.said] == [8.0]
    # One without a duration, too; and of several lines the best counts.
    (one,) = [one for one in candidates(SEEN, [said(SEEN[1], 5.0, 0.5), said(SEEN[1], 9.9, 1.0, end=9.9)]) if one.said]
    assert one.said.coverage == 1.0


def test_both_fusions():
    found = candidates(SEEN, [said(SEEN[3], 1.0), said(a_moment("e", 0.0, 0.2), 1.0, 0.5)])
    ranks = reciprocal_ranks(found, seen=SEEN)
    assert ranks == pytest.approx([1 / 61, 1 / 62, 1 / 63, 1 / 64 + 1 / 61, 1 / 65 + 1 / 62])
    totals = weighted(found, seen=SEEN, weight=4.0)
    spread = 0.02549509756796392  # of 0.30, 0.26, 0.25, 0.23
    assert totals[0] == pytest.approx(0.04 / spread)
    assert totals[3] == pytest.approx(-0.03 / spread + 4.0)
    assert totals[4] == pytest.approx(-0.06 / spread + 1.0)


def test_fuse_keeps_the_best_of_each_video():
    later = a_moment("a", 30.0, 0.20)
    (first, *others) = fuse(
        SEEN, [said(later, 31.0)], k=3, order=lambda found, seen: weighted(found, seen=seen, weight=9)
    )
    assert first == replace(later, matched=("written",), line=a_line("words", 31.0, source="a.srt"))
    assert [moment.video for moment in others] == ["b", "c"]
    two = fuse(SEEN, [said(later, 31.0)], k=9, per_video=2)
    assert sorted(moment.video for moment in two) == ["a", "a", "b", "c", "d"]
    (both,) = fuse(SEEN, [said(SEEN[2], 3.0)], k=9, only_words=True)
    assert both.matched == ("seen", "written")


def test_words_are_not_judged_by_pictures():
    """A moment that matches by its words is no weak match, however little is seen of it."""
    calibration = Calibration(
        mean=np.zeros(2, np.float32),
        evidence=np.linspace(0.2, 0.3, 11, dtype=np.float32),
        captions=np.zeros((11, 2), np.float32),
        segments=4,
    )
    line = a_line("words", 1.0)
    both = ("seen", "heard")
    moments = [
        replace(SEEN[0], score=0.31, line=line, matched=both),
        replace(SEEN[1], score=0.1, line=line, matched=both),
        SEEN[3],
    ]
    first, second, third = judged(moments, np.ones(2, np.float32), calibration)
    assert (first.confidence, first.is_weak) == (1.0, False)
    assert (second.confidence, second.is_weak) == (None, False)
    assert (first.matched, second.matched, third.matched) == (both, ("heard",), ("seen",))
    assert third.is_weak
    assert at_least([first, second, third], 0.5) == [first, second]
    assert unknown_note([first, second, third], 0.5) is None
