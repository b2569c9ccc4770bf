"""Words whose writer is killed, or whose files cannot be opened for a while."""

from __future__ import annotations

import shutil

import pytest

from search.libraries import a_file, content_of, make_library
from search.owners_videos import write_video
from search.words_media import srt
from vop.search.library import Library
from vop.search.queries import Sentence
from vop.search.store import Store
from vop.search.sync import check
from vop.search.words import table
from vop.search.words.lines import Line
from vop.search.words.query import WordsQuery
from vop.search.words.sidecars import Sidecar
from vop.search.words.subtitles import SubtitleUnavailable
from vop.search.words.table import READ, WORDS, Words, WordsRead


class Killed(BaseException):
    """Stands in for SIGKILL: nothing handles it."""


def read(name: str, *texts: str) -> WordsRead:
    lines = [Line(text=text, start_seconds=at, end_seconds=at + 1, source="speech") for at, text in enumerate(texts)]
    return WordsRead(content_of(f"/v/{name}.mp4"), "speech", "1", lines)


def texts(library: Store) -> list[str]:
    return sorted(library.words.texts(limit=100))


@pytest.fixture
def library(tmp_path) -> Store:
    return make_library(tmp_path / "library", [a_file(f"/v/{name}.mp4") for name in "ab"])


@pytest.fixture
def kill(monkeypatch):
    """Kill the writer once it reaches a function."""

    def at(owner, name, when=lambda *arguments: True):
        original = getattr(owner, name)

        def killed(*arguments, **settings):
            if when(*arguments):
                monkeypatch.setattr(owner, name, original)
                raise Killed
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, killed)

    return at


@pytest.fixture
def subtitled(tmp_path):
    folder = tmp_path / "subtitled"
    write_video(folder / "a.mp4", seed=1)
    (folder / "a.srt").write_text(srt((0.5, 1.5, "A walrus sings")), encoding="utf-8")
    return folder


def test_lines_are_not_doubled(index_videos, folder, subtitled, kill):
    kill(Words, "_made", lambda words, name: name == READ)
    with pytest.raises(Killed):
        index_videos(subtitled)
    assert texts(Store.open(folder)) == ["A walrus sings"]
    assert index_videos(subtitled).words.lines == 1
    assert texts(Store.open(folder)) == ["A walrus sings"]


def test_unfinished_lines_are_dropped(library, kill):
    library.words.put([read("a", "hello")])
    kill(Words, "_made", lambda words, name: name == READ)
    with pytest.raises(Killed):
        library.words.put([read("b", "one", "two")])
    library.words.drop_unfinished()
    assert texts(library) == ["hello"]


def test_lines_are_read_again_after_a_killed_deletion(library, kill):
    library.words.put([read("a", "hello"), read("b", "goodbye")])
    kill(Words, "_open", lambda words, name: name == WORDS)
    with pytest.raises(Killed):
        library.words.keep_only([content_of("/v/a.mp4")])
    assert [video for video, _ in library.words.states()] == [content_of("/v/a.mp4")]  # b counts as not read


def test_the_index_is_made_later(library, kill):
    kill(table, "_index_texts")
    with pytest.raises(Killed):
        library.words.put([read("a", "two walruses")])
    library = Store.open(library.path)
    library.words.put([read("a", "two walruses")])
    library.words.tidy_up()
    query = WordsQuery.of([Sentence("a walrus")])  # of another form, which only the index knows
    assert [found.line.text for found in library.words.search(query, limit=5)] == ["two walruses"]


def test_a_table_whose_creation_was_cut_short(index_videos, folder, subtitled):
    """The folder of a table that has no version yet, as a full disk leaves it."""
    index_videos(subtitled)
    for name in ("words", "words_read", "near_copies", "fingerprints"):
        shutil.rmtree(folder / "database" / f"{name}.lance")
        (folder / "database" / f"{name}.lance" / "_versions").mkdir(parents=True)
    removed = f"removed_{Store.open(folder).manifest.table}.lance"
    (folder / "database" / removed).mkdir()
    (folder / "checksums.json").unlink()  # it lists the files that were deleted here
    assert Library.open(folder).search("a walrus")
    assert check(folder).sound
    assert index_videos(subtitled).words.lines == 1
    (moment,) = Library.open(folder).search("walrus", words="only")
    assert moment.line.text == "A walrus sings"


def test_subtitles_that_could_not_be_opened_are_read_next_time(index_videos, folder, subtitled, monkeypatch):
    with monkeypatch.context() as offline:

        def refused(sidecar):
            raise SubtitleUnavailable("it cannot be read: Permission denied")

        offline.setattr(Sidecar, "read", refused)
        assert [problem.reason[:5] for problem in index_videos(subtitled).words.problems] == ["a.srt"]
    report = index_videos(subtitled)
    assert (report.words.lines, report.words.problems) == (1, [])
