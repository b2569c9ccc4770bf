"""Videos by date, in parts, and folders; and results sorted by date. Against naive code on random libraries."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath
from random import Random

import numpy as np
import pytest

from search.libraries import SIZE, a_file, content_of, make_library, rows_of, unit_vectors
from vop.errors import UsageError
from vop.search.browsing import in_order
from vop.search.filters import Filters
from vop.search.library import Library

FOLDERS = ["/home/a/2023", "/home/a/2024", "/home/a/2024/summer", "/home/a/2024/summer/deep/er", "/home/a"]
QUERY = np.eye(SIZE, dtype=np.float32)[0]


def make_files(count: int = 40):
    random = Random(0)
    return [
        a_file(
            f"{random.choice(FOLDERS)}/{number:02}.mp4",
            date=f"202{random.randrange(5)}-0{1 + random.randrange(2)}-01T12:00:00+00:00",
            seconds=float(10 * (1 + number % 3)),
        )
        for number in range(count)
    ]


FILES = make_files()
OLDEST = [str(file.path) for file in sorted(FILES, key=lambda file: (file.date, str(file.path)))]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    path = tmp_path_factory.mktemp("browsing") / "library"
    make_library(path, FILES, segments=3)
    return Library.open(path)


def all_parts(library: Library, **given) -> list[str]:
    paths, start = [], None
    while True:
        part = library.browse(start=start, **given)
        paths += [video.path for video in part.videos]
        start = part.next
        if start is None:
            return paths


@pytest.mark.parametrize("k", [1, 7, 39, 40, 41])
def test_parts_have_each_video_once_in_order(library, k):
    assert all_parts(library, order="oldest", k=k) == OLDEST
    assert all_parts(library, k=k) == OLDEST[::-1]


def test_a_video_is_shown_whole_with_the_segment_in_its_middle(library):
    part = library.browse(k=1)
    (video,) = part.videos
    (own,) = (file for file in FILES if str(file.path) == video.path)
    assert (video.start_seconds, video.end_seconds, video.score) == (0, own.duration_seconds, 0)
    assert video.segment == f"{own.video}-10000-20000"
    assert (part.total, video.date) == (len(FILES), own.date)


def test_filters_and_jumps(library):
    wanted = [path for path in OLDEST[::-1] if "/2024/" in path]
    assert all_parts(library, folder="2024", k=5) == wanted
    part = library.browse(folder="2024", k=3, skip=4)
    assert [video.path for video in part.videos] == wanted[4:7]
    assert part.total == len(wanted)
    assert library.browse(folder="2024", skip=10**6).videos == []
    assert library.browse(name="none").to_dict() == {"videos": [], "next": None, "total": 0}


def test_tags_of_moments_count_for_the_video(library):
    library.tag(f"{FILES[3].video}-0-10000", add="first")
    assert [video.path for video in library.browse(tag="first").videos] == [str(FILES[3].path)]
    assert library.browse(favourites=True).total == 0
    library.tag(f"{FILES[3].video}-0-10000", remove="first")


def test_a_part_begins_right_after_changes(tmp_path):
    store = make_library(tmp_path / "library", FILES[:20], segments=1)
    library = Library.open(tmp_path / "library")
    first = library.browse(k=5)
    shown = [video.path for video in first.videos]
    new = a_file("/home/a/new.mp4", date="2030-01-01T00:00:00+00:00")
    store.put(rows_of(store, new, unit_vectors(1)))
    store.remove([shown[-1]])  # the last one that was shown
    rest = library.browse(k=100, start=first.next)
    assert [video.path for video in rest.videos] == [
        path for path in OLDEST[::-1] if path in {str(file.path) for file in FILES[:20]} - set(shown)
    ]
    assert rest.total == 20
    assert library.browse(k=1).videos[0].path == "/home/a/new.mp4"


def test_an_older_library_shows_the_first_segments(tmp_path):
    store = make_library(tmp_path / "library", FILES[:2], segments=3)
    store.table.drop_columns(["num_segments"])
    assert [video.segment.split("-", 1)[1] for video in store.browse().videos] == ["0-10000"] * 2


def test_folders_are_a_tree_with_counts(library):
    direct = Counter(str(file.path.parent) for file in FILES)
    (root,) = library.browse_folders()
    assert (root.path, root.name, root.videos, root.total) == ("/home/a", "a", direct["/home/a"], len(FILES))
    names = [folder.name for folder in library.browse_folders("/home/a")]
    assert names == ["2023", "2024"]
    (_, inner) = library.browse_folders("/home/a/")
    below = sum(videos for folder, videos in direct.items() if PurePosixPath(folder).is_relative_to(inner.path))
    assert (inner.videos, inner.total, inner.has_folders) == (direct["/home/a/2024"], below, True)
    (deep,) = library.browse_folders("/home/a/2024/summer")
    assert (deep.name, deep.videos, deep.has_folders) == ("deep", 0, True)
    assert library.browse_folders("/home/a/2023") == []
    with pytest.raises(UsageError, match="no videos below /home/b"):
        library.browse_folders("/home/b")


def test_disks_and_buckets_have_roots_of_their_own(tmp_path):
    paths = ["/media/disk/a/x.mp4", "/home/b/y.mp4", "/home/b/c/z.mp4"]
    library = make_library(tmp_path / "library", map(a_file, paths))
    address = replace(a_file("/x"), video=content_of("s3"))
    rows = rows_of(library, address, unit_vectors(1))
    index = rows.schema.get_field_index("path")
    library.put(rows.set_column(index, rows.field(index), [["s3://films/holidays/lake.mp4"]]))
    assert [(root.path, root.total) for root in library.browse_folders()] == [
        ("/home/b", 2),
        ("/media/disk/a", 1),
        ("s3://films/holidays", 1),
    ]
    assert [folder.path for folder in library.browse_folders("s3://films")] == ["s3://films/holidays"]
    assert make_library(tmp_path / "empty", []).browse_folders() == []


def test_results_are_the_best_matches_sorted_by_date(library):
    best = library.search(QUERY, k=10)
    newest = library.search(QUERY, k=10, order="newest")
    assert {moment.segment for moment in newest} == {moment.segment for moment in best}
    assert [moment.date for moment in newest] == sorted((moment.date for moment in best), reverse=True)
    assert in_order(newest, "oldest")[0].date == min(moment.date for moment in best)
    assert in_order(best, "match") == best


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"order": "match"}, "order is 'match'; choose one of newest, oldest"),
        ({"k": 0}, "k is 0"),
        ({"skip": -1}, "skip is -1"),
        ({"start": "nonsense"}, "'nonsense' is not the `next`"),
        ({"start": "WzFd"}, "'WzFd' is not the `next`"),
        ({"near": "x"}, "near is 'x'"),
        ({"where": "author=bob"}, "no metadata"),
    ],
)
def test_invalid_values_are_refused(library, given, message):
    with pytest.raises(UsageError, match=message):
        library.browse(**given)
    with pytest.raises(UsageError, match="order is 'best'"):
        library.search(QUERY, order="best")


def test_tags_need_the_library_for_their_condition():
    with pytest.raises(AssertionError, match=r"Store\.condition"):
        Filters(tag=["x"]).sql([])
