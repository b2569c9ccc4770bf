"""Tags and favourites: kept by content, for videos and moments, through every change of the files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.libraries import SIZE, STEP, a_file, content_of, make_library, rows_of, unit_vectors
from vop.errors import DataError, UsageError, VopError
from vop.search.filters import Filters
from vop.search.library import Library
from vop.search.owner_files import csv_of, read_file
from vop.search.owners import FILE, Mark, Marks, Target, change_marks, read_marks
from vop.storage.address import location

PATHS = ["/v/lake.mp4", "/v/2024/dog.mp4", "/v/2024/cat.mp4"]
LAKE, DOG, CAT = map(content_of, PATHS)
QUERY = np.eye(SIZE, dtype=np.float32)[0]


@pytest.fixture
def library(tmp_path) -> Library:
    """Three videos of three segments of 10 seconds."""
    make_library(tmp_path / "library", map(a_file, PATHS), segments=3)
    return Library.open(tmp_path / "library")


def segment(video: str, place: int) -> str:
    return f"{video}-{round(place * STEP * 1000)}-{round((place + 1) * STEP * 1000)}"


def found(library: Library, **filters) -> dict[str, float]:
    """The start of the best moment of each video that a search finds."""
    return {moment.path: moment.start_seconds for moment in library.search(QUERY, **filters)}


class TestTags:
    def test_tags_are_added_counted_and_removed(self, library):
        assert library.tags() == {}
        assert library.tag(Path(PATHS[0]), add=["beach", " night  walk "]) == ("beach", "night walk")
        assert library.tag(DOG, add="Beach") == ("beach",)  # the spelling that the library has
        assert library.tags() == {"beach": 2, "night walk": 1}
        assert library.tag(LAKE, remove=["BEACH"], add="sun") == ("night walk", "sun")
        assert Library.open(library.path).tags() == {"beach": 1, "night walk": 1, "sun": 1}
        library.tag(DOG, remove="beach")
        library.tag(LAKE, remove=["sun", "night walk", "never given"])
        assert library.marks() == []

    def test_results_have_the_tags_of_the_video_and_of_the_moment(self, library):
        library.tag(LAKE, add="water")
        library.tag(segment(LAKE, 1), add="jump")
        library.favourite(segment(LAKE, 1))
        shown = {}
        for place in range(3):
            row = library.segment(segment(LAKE, place))
            (best,) = [one for one in library.search(row.embeddings[0], k=3) if one.video == LAKE]
            shown[best.start_seconds] = (best.tags, best.is_favourite)
        assert shown == {0: (("water",), False), 10: (("jump", "water"), True), 20: (("water",), False)}
        assert found(library, tag="jump") == {PATHS[0]: 10}
        assert found(library, tag=["jump", "water"], favourites=True) == {PATHS[0]: 10}
        assert found(library, tag=["jump", "never given"]) == {}
        assert found(library, favourites=True) == {PATHS[0]: 10}

    def test_a_moment_may_be_named_by_its_times(self, library):
        (moment,) = library.search(QUERY, k=1, name="dog.mp4")
        library.tag(replace(moment, start_seconds=11.0, end_seconds=18.5), add="bark")
        (mark,) = library.marks()
        assert (mark.video, mark.start_seconds, mark.end_seconds, mark.path) == (DOG, 11.0, 18.5, PATHS[1])
        assert found(library, tag="bark") == {PATHS[1]: 10}
        assert library.tag(DOG, start_seconds=10, end_seconds=20, remove="bark") == ()
        assert library.marks() == []

    def test_times_that_are_all_of_the_video_are_the_video(self, library):
        library.favourite(CAT, start_seconds=0.05, end_seconds=99)
        assert [(mark.start_seconds, mark.end_seconds) for mark in library.marks()] == [(None, None)]
        assert library.favourite(segment(CAT, 2), False)  # a moment of a favourite video stays one
        assert not library.favourite(CAT, False)
        assert library.marks() == []

    def test_folders_are_tagged_at_once(self, library):
        assert library.mark(["/v/2024", Path("/v/2024/dog.mp4")], add=["pets"], is_favourite=True) == 2
        assert sorted(found(library, tag="pets", favourites=True)) == [PATHS[2], PATHS[1]]
        with pytest.raises(UsageError, match="at or below /v/202;"):
            library.mark(["/v/202"], add=["pets"])

    @pytest.mark.parametrize("tag", ["", "  ", "a;b", "x" * 101, "a\x00b"])
    def test_invalid_tags_are_refused(self, library, tag):
        with pytest.raises(UsageError, match="cannot be a tag"):
            library.tag(LAKE, add=tag)
        with pytest.raises(UsageError, match="cannot be a tag"):
            library.search(QUERY, tag=tag or " ")

    @pytest.mark.parametrize("named", ["lake.mp4", "0" * 32, f"{'0' * 32}-0-10000", Path("/v/none.mp4")])
    def test_unknown_videos_are_refused(self, library, named):
        with pytest.raises(UsageError, match=r"not the id|has no"):
            library.tag(named, add="x")

    def test_times_outside_the_video_are_refused(self, library):
        with pytest.raises(UsageError, match="from 0 to 30 s"):
            library.tag(LAKE, start_seconds=31, add="x")

    def test_neighbouring_windows_do_not_share_a_favourite(self):
        mark = Mark(video=LAKE, start_seconds=8, end_seconds=18, is_favourite=True)
        clips = [(0, 10), (8, 18), (10, 14), (13, 23), (13.1, 23), (0, 100)]
        assert [mark.covers(*clip) for clip in clips] == [False, True, True, True, False, True]


class TestKept:
    def test_marks_stay_with_a_file_that_moves(self, library):
        library.tag(LAKE, add="water")
        library.tag(segment(LAKE, 1), add="jump")
        store, moved = library._store, a_file("/w/moved.mp4", content=PATHS[0])
        store.put(rows_of(store, moved, unit_vectors(3)), replacing=[PATHS[0]])
        assert found(library, tag="jump") == {"/w/moved.mp4": 10}
        store.follow_files()
        assert {mark.path for mark in library.marks()} == {"/w/moved.mp4"}

    @pytest.mark.parametrize(("seconds", "follows"), [(30.05, True), (31.0, False)])
    def test_marks_follow_new_content_of_the_same_duration(self, library, seconds, follows):
        library.tag(LAKE, add="water")
        store, new = library._store, a_file(PATHS[0], content="with other metadata", seconds=seconds)
        store.put(rows_of(store, new, unit_vectors(3)), replacing=[PATHS[0]])
        assert found(library, tag="water") == {}
        store.follow_files()
        assert (found(library, tag="water").keys() == {PATHS[0]}) == follows
        assert library.tags() == {"water": 1}  # never lost

    def test_removed_videos_keep_their_marks_unless_told_otherwise(self, library):
        library.tag(LAKE, add="water")
        library.favourite(DOG)
        library.forget(PATHS[:1])
        library.restore()
        assert found(library, tag="water").keys() == {PATHS[0]}
        library.forget(PATHS[:1], for_good=True)
        assert library.tags() == {"water": 1}
        store = library._store
        store.put(rows_of(store, a_file(PATHS[0]), unit_vectors(3)))
        assert found(library, tag="water").keys() == {PATHS[0]}
        with pytest.raises(UsageError, match="only with for_good"):
            library.forget(PATHS[:1], tags=True)
        library.forget(PATHS[:1])
        library.forget(PATHS[:1], for_good=True, tags=True)  # also of a video that was removed before
        assert [mark.video for mark in library.marks()] == [DOG]

    def test_another_table_keeps_them(self, library):
        library.tag(LAKE, add="water")
        store = library._store
        staged = store.staging(store.manifest.with_(table="segments_again"))
        staged.put(store.rows_of([LAKE, DOG, CAT]))
        staged.publish()
        assert found(library, tag="water").keys() == {PATHS[0]}

    def test_nothing_is_written_before_the_first_mark(self, library):
        library.tag(LAKE, remove="never given")
        assert not (library.path / FILE).exists()

    def test_writers_do_not_wait_for_the_lock_of_the_library(self, library):
        from vop.search.sync.lock import library_lock

        with library_lock(library.path):
            library.tag(LAKE, add="water")
        assert library.tags() == {"water": 1}

    def test_a_damaged_file_stops_no_search_and_is_not_overwritten(self, library, caplog):
        library.tag(LAKE, add="water")
        path = library.path / FILE
        path.write_text(path.read_text().replace("water", "wader"))
        damaged = path.read_bytes()
        assert len(found(library)) == 3
        assert "is damaged" in caplog.text
        with pytest.raises(VopError, match="is damaged; restore it"):
            library.tag(LAKE, add="x")
        assert path.read_bytes() == damaged
        path.write_text(json.dumps({"version": 2, "marks": [], "sha256": ""}))
        with pytest.raises(VopError, match="later version"):
            read_marks(library.path)


class TestFiles:
    def test_a_csv_file_brings_everything_into_another_library(self, library, tmp_path):
        library.mark(PATHS[:2], add=["=sum", "naïve 😀", "a, b"])
        library.favourite(segment(DOG, 1))
        (tmp_path / "marks.csv").write_text(csv_of(library.marks()), encoding="utf-8")
        other = make_library(tmp_path / "other", [a_file("/elsewhere/d.mp4", content=PATHS[1])], segments=3)
        report = Library.open(other.path).import_marks(tmp_path / "marks.csv")
        assert report.to_dict() == {"imported": 3, "waiting": 1, "unknown": []}
        (moment,) = other.search(QUERY, filters=Filters(tag=["naïve 😀", "=sum", "a, b"], favourites=True))
        assert (moment.path, moment.start_seconds, moment.is_favourite) == ("/elsewhere/d.mp4", 10, True)
        other.put(rows_of(other, a_file("/elsewhere/lake.mp4", content=PATHS[0]), unit_vectors(3)))
        assert len(other.search(QUERY, filters=Filters(tag=["=sum"]))) == 2
        again = Library.open(other.path).import_marks(tmp_path / "marks.csv")
        assert (again.imported, again.waiting, len(read_marks(other.path).all)) == (3, 0, 3)

    def test_the_document_of_the_command_can_be_imported(self, library, tmp_path):
        library.tag(segment(DOG, 1), add=["x", "y"])
        marks = library.marks()
        (tmp_path / "marks.json").write_text(json.dumps({"tags": {}, "marks": [mark.to_dict() for mark in marks]}))
        read, unknown = read_file(tmp_path / "marks.json", lambda path: None)
        assert (read, unknown) == (marks, [])

    def test_paths_stand_for_ids(self, library, tmp_path):
        (tmp_path / "own.csv").write_text(
            "path,tags,favourite\n/v/lake.mp4, a ; b,\n/v/none.mp4,c,yes\n/v/2024/dog.mp4,,x\n"
        )
        report = library.import_marks(tmp_path / "own.csv")
        assert (report.imported, report.unknown) == (2, ["/v/none.mp4"])
        assert [(mark.video, mark.tags, mark.is_favourite) for mark in library.marks()] == [
            (DOG, (), True),
            (LAKE, ("a", "b"), False),
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name,stars\na,5\n", "expected columns"),
            ("path,tags\n,x\n", "line 2: the video is missing"),
            ("video,tags\nabc,x\n", "line 2: video is 'abc'"),
            (f"video,tags,start_seconds,end_seconds\n{LAKE},x,,\n{LAKE},x,5,5\n", "line 3: start_seconds 5.0"),
            (f"video,tags,start_seconds\n{LAKE},x,soon\n", "line 2: could not convert"),
            (f"video,favourite\n{LAKE},perhaps\n", "line 2: favourite is 'perhaps'"),
            (f"video,tags\n{LAKE},{'x' * 101}\n", "line 2: .* cannot be a tag"),
            ('{"marks": [1]}', "not a document"),
        ],
    )
    def test_invalid_files_change_nothing(self, library, tmp_path, text, message):
        (tmp_path / "own.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            library.import_marks(tmp_path / "own.csv")
        assert library.marks() == []

    def test_a_missing_file_is_refused(self, library, tmp_path):
        with pytest.raises(UsageError, match=r"none\.csv does not exist"):
            library.import_marks(tmp_path / "none.csv")


def test_marks_that_come_together_are_merged():
    one = Mark(video=LAKE, tags=("a",), path="/v/lake.mp4", duration_seconds=30.0)
    other = Mark(video=LAKE, tags=("A", "b"), is_favourite=True)
    (merged,) = Marks([one]).merged([other]).all
    assert (merged.tags, merged.is_favourite, merged.path) == (("a", "b"), True, "/v/lake.mp4")


def test_marks_of_many_videos_are_changed_in_one_pass():
    targets = [Target(video=content_of(str(number)), path=str(number)) for number in range(2000)]
    marks = Marks().changed(*targets, add=["x"])
    assert len(marks.changed(*targets, add=["y"], is_favourite=True).matching(["x", "y"], favourites=True)[2]) == 2000


def test_marks_in_object_storage_survive_a_writer_that_comes_between(object_server):
    object_server.make_bucket()
    library = location("s3://films/library")
    target = Target(video=LAKE, path="/v/lake.mp4", duration_seconds=30.0)
    calls = []

    def change(marks: Marks) -> Marks:
        if not calls:
            calls.append(change_marks(library, lambda other: other.changed(target, add=["first"])))
        return marks.changed(target, add=["second"])

    assert change_marks(library, change).tags() == {"first": 1, "second": 1}
    assert read_marks(library).tags() == {"first": 1, "second": 1}
