"""`vop index` reads subtitles and speech, and keeps them up to date."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pysubs2
import pytest

from search.owners_videos import write_video
from search.words_media import srt, write_media
from speaking import speak
from vop.cli import main
from vop.search.exporting import moments_from_json, of_one_source
from vop.search.library import Library
from vop.search.store import Store
from vop.search.sync import forget
from vop.search.words import reading
from vop.search.words.choices import WordsChoices, read_choices
from vop.search.words.lines import Line

PHRASES = "yellow banana|on the beach"


@pytest.fixture
def talks(tmp_path):
    """a.mkv with a track, b.mp4 with files beside it, c.mkv with a track of pictures, d.mp4 with nothing."""
    folder = tmp_path / "talks"
    cues = [(1.0, 2.0, "Hello from the track"), (9.0, 10.0, "too late")]
    write_media(folder / "a.mkv", seed=1, tracks=[("subrip", {"language": "eng"}, cues)])
    write_media(folder / "b.mp4", seed=2)
    (folder / "b.srt").write_text(srt((0.5, 1.5, "A walrus sings")), encoding="utf-8")
    japanese = srt((2, 3, "犬が浜辺を走っています"), (3, 4, "今日はとても良い天気"))
    (folder / "b.ja.SRT").write_bytes(japanese.encode("cp932"))
    (folder / "b.broken.vtt").write_bytes(b"\x00\x01nothing")
    write_media(folder / "c.mkv", seed=3, images="dvd_subtitle")
    write_video(folder / "d.mp4", seed=4)
    return folder


@pytest.fixture
def opened(monkeypatch):
    """The names of the videos whose tracks are read."""
    names, original = [], reading.read_tracks

    def read(place):
        names.append(str(place).rpartition("/")[2])
        return original(place)

    monkeypatch.setattr(reading, "read_tracks", read)
    return names


def texts(folder) -> list[str]:
    library = Library.open(folder)
    videos = sorted(library._store.videos().values(), key=lambda record: record.path)
    return [line.text for record in videos for line in library.lines(record.video)]


def heard(folder, query: str) -> list[tuple[str, float]]:
    moments = Library.open(folder).search(query, words="only")
    return [(moment.path.rpartition("/")[2], moment.line.start_seconds) for moment in moments]


def test_exported_subtitles_are_those_of_the_library(index_videos, folder, talks, tmp_path):
    index_videos(talks)
    (talks / "b.srt").unlink()
    library = Library.open(folder)
    found = library.search('"a walrus sings"')
    assert len({line.source for line in library.lines(found[0].video)}) == 2
    library.export([replace(found[0], end_seconds=4.0)], tmp_path / "clip.srt")  # without those in Japanese
    assert [event.plaintext for event in pysubs2.load(str(tmp_path / "clip.srt"))] == ["A walrus sings"]


def test_exported_lines_have_one_source():
    lines = {
        name: Line(text=name, start_seconds=0, end_seconds=1, source=name)
        for name in ("speech", "track 2 (eng)", "a.en.srt", "a.srt")
    }
    for source in ("a.srt", "a.en.srt", "track 2 (eng)", "speech"):
        assert of_one_source(list(lines.values())) == [lines.pop(source)]
    assert of_one_source([]) == []


def test_subtitles_are_indexed_and_kept_up_to_date(index_videos, folder, talks, opened):
    report = index_videos(talks)
    assert sorted(opened) == ["a.mkv", "b.mp4", "c.mkv", "d.mp4"]
    assert (report.words.videos, report.words.lines) == (4, 4)
    problems = {(problem.path.rpartition("/")[2], problem.reason[:7]) for problem in report.words.problems}
    assert problems == {("a.mkv", "its tra"), ("b.mp4", "b.broke"), ("c.mkv", "track 1")}
    assert report.to_dict()["words"]["lines"] == 4
    assert heard(folder, "犬") == [("b.mp4", 2.0)]
    assert heard(folder, '"from the track"') == [("a.mkv", 1.0)]

    opened.clear()
    again = index_videos(talks)  # nothing is read again, and what is not readable is still reported
    assert (opened, again.words.videos, len(again.words.problems)) == ([], 0, 3)

    (talks / "b.srt").write_text(srt((0.5, 1.5, "A seal dances")), encoding="utf-8")
    (talks / "b.ja.SRT").unlink()
    (talks / "b.broken.vtt").unlink()
    report = index_videos(talks)
    assert (opened, report.unchanged, report.words.lines) == (["b.mp4"], 4, 1)
    assert texts(folder) == ["Hello from the track", "A seal dances"]

    (talks / "b.mp4").rename(talks / "e.mp4")  # without its file
    index_videos(talks)
    assert texts(folder) == ["Hello from the track"]
    forget(folder, [talks / "a.mkv"], for_good=True)
    assert Store.open(folder).words.count() == 0


def test_subtitles_can_be_off(index_videos, folder, talks, opened):
    assert index_videos(talks, subtitles=False).words.lines == 0
    assert (index_videos(talks).words.lines, opened) == (0, [])  # the library remembers it
    assert read_choices(folder) == WordsChoices(subtitles=False)
    assert not Store.open(folder).has_words()
    assert index_videos(talks, subtitles=True).words.lines == 4


def test_objects_have_words(index_videos, folder, talks, object_server, monkeypatch):
    """Files beside objects and tracks in them; only parts of an object are read."""
    object_server.make_bucket()
    for path in talks.iterdir():
        object_server.put(f"s3://films/talks/{path.name}", path)
    report = index_videos("s3://films/talks")
    assert report.words.lines == 4
    assert heard(folder, "walrus") == [("b.mp4", 0.5)]
    assert heard(folder, "track") == [("a.mkv", 1.0)]
    object_server.put("s3://films/talks/b.srt", srt((1, 2, "Two penguins")).encode())
    assert index_videos("s3://films/talks/b.mp4").words.lines == 3
    assert heard(folder, "penguin") == [("b.mp4", 1.0)]


class TestSpeech:
    @pytest.fixture(autouse=True)
    def _recognizer(self, tmp_path, monkeypatch):
        """A package that adds the recognizer of the tests."""
        info = tmp_path / "site" / "hearing-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Name: hearing\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[vop.recognizers]\nkeys = speaking:KeyPhrases\n")
        monkeypatch.syspath_prepend(tmp_path / "site")

    @pytest.fixture
    def spoken(self, tmp_path):
        folder = tmp_path / "spoken"
        sound = np.concatenate([np.zeros(22_050, np.int16), speak("we saw a yellow banana on the beach yesterday")])
        write_media(folder / "a.mp4", seed=1, sound=sound)
        write_media(folder / "b.mkv", seed=2, sound=speak("we saw a yellow banana yesterday"))
        write_media(folder / "c.mp4", seed=3)
        return folder

    def test_speech_is_recognized(self, index_videos, folder, spoken, real_processes):
        """PocketSphinx and espeak-ng, with key phrases: they test what is around them."""
        stages = []

        def progress(stage, done, total, note=""):
            stages.append((stage, done, note))

        report = index_videos(spoken, speech=f"keys:{PHRASES}", progress=progress)
        assert [problem.path[-5:] for problem in report.words.problems] == ["c.mp4"]
        assert "no audio track" in report.words.problems[0].reason
        assert ("speech", 12, "3 of 3 videos") in stages
        found = dict(heard(folder, '"yellow banana"'))
        assert found.keys() == {"a.mp4", "b.mkv"}
        assert found["a.mp4"] - found["b.mkv"] == pytest.approx(1.0, abs=0.15)
        assert heard(folder, '"on the beach"')[0][0] == "a.mp4"
        (moment, *_) = Library.open(folder).search('"yellow banana"')
        assert moment.matched == ("heard",)
        assert moment.line.source == "speech"

        write_media(spoken / "d.mp4", seed=5, sound=speak("a yellow banana"))
        assert index_videos(spoken).words.videos == 1  # the library remembers the recognizer
        assert len(heard(folder, "banana")) == 3
        assert index_videos(spoken, speech="none").words.videos == 0
        assert read_choices(folder).speech is None

    def test_it_resumes(self, index_videos, folder, spoken, monkeypatch):
        from speaking import KeyPhrases

        heard_samples, original = [], KeyPhrases.transcribe

        def interrupted(self, samples):
            heard_samples.append(len(samples))
            if len(heard_samples) == 2:
                raise KeyboardInterrupt
            return original(self, samples)

        monkeypatch.setattr(KeyPhrases, "transcribe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index_videos(spoken, speech=f"keys:{PHRASES}")
        assert len(texts(folder)) == 2
        assert index_videos(spoken).words.videos == 2
        assert len(heard_samples) == 3

    def test_files_that_could_not_be_opened_are_read_next_time(self, index_videos, folder, spoken, monkeypatch):
        def refused(*arguments):
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as offline:
            offline.setattr(reading._Reading, "_transcribe", refused)
            assert len(index_videos(spoken, speech=f"keys:{PHRASES}").words.problems) == 3
        report = index_videos(spoken)
        assert (report.words.videos, [problem.path[-5:] for problem in report.words.problems]) == (3, ["c.mp4"])
        assert index_videos(spoken).words.videos == 0

    def test_objects(self, index_videos, folder, spoken, object_server):
        object_server.make_bucket()
        object_server.put("s3://films/a.mp4", spoken / "a.mp4")
        index_videos("s3://films", speech=f"keys:{PHRASES}")
        assert [name for name, _ in heard(folder, "banana")] == ["a.mp4"]


def test_commands(index_videos, folder, talks, capsys):
    library, videos = str(folder), str(talks)
    index_videos(talks / "d.mp4")
    assert main(["index", library, videos]) == 0
    printed = capsys.readouterr().out
    assert "4 lines" in printed
    assert "pictures of text (VobSub)" in printed
    assert main(["search", library, "walrus", "--words", "only", "--json"]) == 0
    document = capsys.readouterr().out
    (found,) = json.loads(document)["results"]
    (moment,) = moments_from_json(document)
    assert (moment.matched, moment.line.text) == (("written",), "A walrus sings")
    assert (found["matched"], found["line"]["text"]) == (["written"], "A walrus sings")
    assert main(["search", library, "a walrus"]) == 0
    assert "“A walrus sings”" in capsys.readouterr().out
    assert main(["search", library, "a walrus", "--words", "none"]) == 0
    assert "sings" not in capsys.readouterr().out
    assert main(["search", library, "--video", str(talks / "d.mp4"), "--words", "only"]) == 2


def test_damaged_words_are_read_again(index_videos, folder, talks):
    from vop.search.sync import check

    index_videos(talks)
    for path in (folder / "database" / "words.lance" / "data").iterdir():
        path.write_bytes(b"nothing")
    shutil.rmtree(folder / "database" / "words_read.lance" / "data")
    assert check(folder, repair=True).repaired
    assert index_videos(talks).words.lines == 4
    assert check(folder).sound
