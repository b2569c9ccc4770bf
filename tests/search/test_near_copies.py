"""Near-duplicates: fingerprints, comparing videos, the tables, and collapsed results."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import vop
from clips import write_clip
from search.owners_videos import RATE
from vop.cli import main
from vop.search.duplicates import grouped
from vop.search.failures import COPY_OF, DUPLICATE, failure
from vop.search.fingerprints import Fingerprint, aligned, fingerprint
from vop.search.near_copies import PART, SAME, NearCopies, Pair, collapsed, read_fingerprints, search_collapsed
from vop.search.results import Moment
from vop.search.segmentation import thumbnail_strip
from vop.search.store import Store
from vop.search.sync import comparing, reembed
from vop.search.sync.comparing import candidates, relation

# -- fingerprints


def scene(second: float, *, seed: int = 0) -> np.ndarray:
    """Return a picture of a film whose shots last 5 seconds, with a white square that moves slowly."""
    random = np.random.default_rng([seed, int(second // 5)])
    picture = np.kron(random.integers(40, 220, (5, 8, 3), dtype=np.uint8), np.ones((18, 20, 1), np.uint8))
    left = int(4 * second) % 140
    picture[30:50, left : left + 20] = 255
    return picture


def film(start: float, end: float, *, seed: int = 0, change=lambda picture: picture) -> Fingerprint:
    """Return the fingerprint of a part of a film, in windows of 10 seconds."""
    length = end - start
    clips = [(at, min(at + 10.0, length)) for at in np.arange(0, length - 1, 8.0).tolist()]
    strips = []
    for first, last in clips:
        times = start + first + (np.arange(4) + 0.5) / 4 * (last - first)
        strips.append(thumbnail_strip([change(scene(time, seed=seed)) for time in times]))
    return fingerprint(strips, clips, duration=length)


def boxed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((31, 31), (0, 0), (0, 0)))


def darker(picture: np.ndarray) -> np.ndarray:
    return (0.7 * picture + 10).astype(np.uint8)


def half(picture: np.ndarray) -> np.ndarray:
    return picture[::2, ::2]


def redder(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture.astype(int) + np.array([60, 0, -60]), 0, 255).astype(np.uint8)


def mirrored(picture: np.ndarray) -> np.ndarray:
    return picture[:, ::-1]


@pytest.mark.parametrize("change", [boxed, darker, half])
def test_other_versions_have_nearly_the_same_fingerprint(change):
    one, other = film(0, 30), film(0, 30, change=change)
    assert (1 - (one.directions * other.directions).sum(axis=1)).mean() < 0.03
    found = relation("a", one, "b", other)
    assert found == Pair("a", "b", SAME, pytest.approx(0.0, abs=1.0))


@pytest.mark.parametrize("others", [{"seed": 1}, {"change": mirrored}, {"change": redder}])
def test_other_videos_are_not_near_duplicates(others):
    assert relation("a", film(0, 30), "b", film(0, 30, **others)) is None


def test_a_video_played_backwards_is_not_one():
    own = film(0, 30)
    backwards = replace(own, pictures=own.pictures[::-1], tones=own.tones[::-1])
    assert relation("a", own, "b", backwards) is None


def test_a_fade_is_not_a_fade_in_reverse():
    def faded(strengths: list[float]) -> Fingerprint:
        pictures = [(128 + strength * (scene(0).astype(float) - 128)).astype(np.uint8) for strength in strengths]
        return fingerprint([thumbnail_strip(pictures)], [(0.0, 4.0)], duration=4.0)

    assert relation("a", faded([0.1, 0.3, 0.6, 1.0]), "b", faded([0.1, 0.3, 0.6, 1.0])) is not None
    assert relation("a", faded([0.1, 0.3, 0.6, 1.0]), "b", faded([1.0, 0.6, 0.3, 0.1])) is None


@pytest.mark.parametrize(("start", "end", "kind"), [(1.0, 39.5, SAME), (8.0, 26.0, PART), (21.3, 40.0, PART)])
def test_trimmed_videos(start, end, kind):
    found = relation("long", film(0, 40), "short", film(start, end))
    assert found is not None
    assert (found.video, found.other, found.kind) == ("short", "long", kind)
    assert found.offset == pytest.approx(start, abs=1.3)


def test_videos_that_only_share_a_beginning():
    long, other = film(0, 40), film(0, 40, seed=1)
    mixed = replace(
        other,
        pictures=np.where((other.times < 15)[:, None], long.pictures, other.pictures),
        tones=np.where((other.times < 15)[:, None], long.tones, other.tones),
    )
    assert relation("a", long, "b", mixed) is None


def test_damaged_strips_and_pictures_without_contrast():
    plain = thumbnail_strip([np.full((90, 160, 3), 90, np.uint8)] * 4)
    assert len(fingerprint([b"strip 0"], [(0.0, 10.0)], duration=10.0).times) == 0
    flat = fingerprint([plain, b"strip 1"], [(0.0, 10.0), (8.0, 18.0)], duration=18.0)
    assert flat.times.tolist() == [1.25, 3.75, 6.25, 8.75]
    assert not flat.pictures.any()
    assert aligned(flat, flat, slack=1.0) is None
    assert candidates([flat, flat], np.array([True, True])) == []


def test_candidates_are_the_pairs_that_a_comparison_of_all_finds():
    videos = [film(0, 20, seed=seed) for seed in range(12)]
    videos += [film(0, 20, seed=3, change=half), film(2, 14, seed=5), film(0, 20, seed=7, change=darker)]

    def matching(pairs) -> set[tuple[int, int]]:
        return {(one, other) for one, other in pairs if relation("a", videos[one], "b", videos[other])}

    everything = matching(combinations(range(len(videos)), 2))
    assert everything == {(3, 12), (5, 13), (7, 14)}
    chosen = candidates(videos, np.ones(15, bool))
    assert matching(chosen) == everything
    assert len(chosen) < 15
    is_new = np.arange(15) == 13
    assert [pair for pair in candidates(videos, is_new) if 13 not in pair] == []
    assert matching(candidates(videos, is_new)) == {(5, 13)}


# -- results


def moment(video: str, score: float, start: float = 0.0) -> Moment:
    return Moment(
        segment=f"{video}-{start * 1000:.0f}-{start * 1000 + 10_000:.0f}",
        video=video,
        path=f"/v/{video}.mp4",
        start_seconds=start,
        end_seconds=start + 10,
        score=score,
        duration_seconds=60.0,
        date="2024-07-01",
        plays_in_browsers=True,
        columns={},
    )


NEAR = NearCopies.of(
    [
        Pair("b", "a", SAME, 0.0),
        Pair("c", "b", SAME, 0.0),
        Pair("cut", "long", PART, 30.0),
        Pair("e", "d", SAME, 0.0),
    ]
)


def shown(moments: list[Moment], k: int = 10) -> list[tuple]:
    return [(one.video, one.start_seconds, one.copies) for one in collapsed(moments, k, NEAR)]


def test_the_best_version_stands_before_the_others():
    found = [moment("x", 0.9), moment("c", 0.8), moment("a", 0.7), moment("d", 0.6), moment("b", 0.5)]
    assert shown(found) == [("x", 0, ()), ("c", 0, ("/v/a.mp4", "/v/b.mp4")), ("d", 0, ())]
    assert shown(found, 1) == [("x", 0, ())]
    assert shown(found, 2) == [("x", 0, ()), ("c", 0, ("/v/a.mp4", "/v/b.mp4"))]


def test_several_moments_of_versions():
    found = [moment("a", 0.9, 40), moment("b", 0.8, 40), moment("a", 0.7), moment("b", 0.6), moment("c", 0.5, 39)]
    assert shown(found) == [("a", 40, ("/v/b.mp4", "/v/c.mp4")), ("a", 0, ("/v/b.mp4",))]


def test_a_cut_stands_behind_the_longer_video():
    assert shown([moment("long", 0.9, 35), moment("cut", 0.8, 5)]) == [("long", 35, ("/v/cut.mp4",))]
    assert shown([moment("cut", 0.9, 5), moment("long", 0.8, 35)]) == [("long", 35, ("/v/cut.mp4",))]


def test_a_cut_does_not_stand_behind_another_moment():
    found = [moment("long", 0.9, 0), moment("cut", 0.8, 5)]
    assert shown(found) == [("long", 0, ()), ("cut", 5, ())]
    found = [moment("cut", 0.9, 5), moment("x", 0.8), moment("long", 0.7, 35)]
    assert shown(found, 2) == [("cut", 5, ()), ("x", 0, ())]  # the longer video is not among the results


def test_a_search_goes_on_until_there_are_enough_results():
    everything = [
        moment(video, 1 - place / 100) for place, video in enumerate(["a", "b", "c", "e", "d", "x", "y", "z"])
    ]
    limits = []

    def search(limit: int) -> list[Moment]:
        limits.append(limit)
        return everything[:limit]

    assert [one.video for one in search_collapsed(search, 4, NEAR)] == ["a", "e", "x", "y"]
    assert [one.video for one in search_collapsed(search, 9, NEAR)] == ["a", "e", "x", "y", "z"]
    limits.clear()
    assert search_collapsed(search, 3, NearCopies()) == everything[:3]
    assert limits == [3]


# -- in a library


@pytest.fixture
def index_videos(index_videos):
    return partial(index_videos, num_frames=4)


@pytest.fixture
def copies(videos, tmp_path) -> Path:
    """The videos a, b, c and d, a again in worse quality and half the size, and a cut of b."""
    folder = tmp_path / "videos"
    worse = [frame[::2, ::2] for frame in frames_of(seed=0, seconds=4.0)]
    write_clip(folder / "a small.mp4", worse, rate=RATE, options={"crf": "30"})
    write_clip(folder / "b cut.mp4", frames_of(seed=1, seconds=26.0)[6 * RATE : 18 * RATE], rate=RATE)
    return folder


def frames_of(*, seed: int, seconds: float) -> list[np.ndarray]:
    """Return the pictures of `write_video`."""
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(round(seconds / 2)):
        blocks = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        frames += [np.kron(blocks, np.ones((8, 8, 1), np.uint8))] * (2 * RATE)
    return frames


def names(found: list[Moment]) -> dict[str, list[str]]:
    return {Path(one.path).stem: [Path(path).stem for path in one.copies] for one in found}


def pairs_of(folder: Path) -> set[tuple[str, str, str]]:
    store = Store.open(folder)
    stems = {record.video: Path(path).stem for path, record in store.videos().items()}
    near = store.near_copies()
    same = {(stems[one], stems[other], SAME) for one, other in combinations(sorted(near.groups), 2)}
    parts = {(stems[short], stems[long], PART) for short, longs in near.parts.items() for long in longs}
    return {(*sorted(pair[:2]), pair[2]) if pair[2] == SAME else pair for pair in same | parts}


def test_near_duplicates_of_a_library(copies, index_videos, folder, monkeypatch, capsys):
    index_videos(copies / "b.mp4", copies / "c.mp4")
    library = vop.Library.open(folder)
    assert names(library.search("a film")) == {"b": [], "c": []}
    compared: list[str] = []
    real = comparing._fingerprints
    monkeypatch.setattr(comparing, "_fingerprints", lambda store, ids: compared.extend(ids) or real(store, ids))
    shutil.copy2(copies / "a.mp4", copies / "a exact.mp4")
    index_videos()
    assert len(compared) == 4  # the new ones
    assert pairs_of(folder) == {("a", "a small", SAME), ("b cut", "b", PART)}

    found = names(library.search("a film", k=9))  # the library that was opened before sees them
    assert set(found) - {"a", "a small", "b cut"} == {"b", "c", "d"}
    assert {"a", "a small"} & set(found) in ({"a"}, {"a small"})
    assert found.get("a", found.get("a small")) in (["a"], ["a small"])
    assert len(library.search("a film", k=9, copies=True)) == 6
    assert len(library.search("a film", k=4)) == 4

    listed = library.duplicates()
    assert (listed.near_duplicates, listed.parts, listed.exact_copies, listed.were_compared) == (1, 1, 1, True)
    (first, second) = listed.groups
    assert [(Path(one.path).stem, one.width, one.height) for one in first.videos] == [
        ("a", 64, 48),
        ("a small", 32, 24),
    ]
    assert [Path(path).stem for path in first.videos[0].exact_copies] == ["a exact"]
    (cut,) = second.parts
    assert (Path(cut.path).stem, Path(cut.part_of or "").stem, cut.duration_seconds) == ("b cut", "b", 12.0)
    assert cut.start_seconds == pytest.approx(6.0, abs=2.5)  # the interval of the pictures

    assert main(["library", "duplicates", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [document[name] for name in ("near_duplicates", "parts", "exact_copies")] == [1, 1, 1]
    assert document["groups"][0]["videos"][0]["size"] == (copies / "a.mp4").stat().st_size
    assert main(["library", "duplicates", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "64 x 48" in shown
    assert "exact copy" in shown
    assert main(["search", str(folder), "a film", "--copies", "--per-video", "2", "--json"]) == 0
    moments = json.loads(capsys.readouterr().out)["results"]
    assert {Path(one["path"]).stem for one in moments} == {"a", "a small", "b", "b cut", "c", "d"}
    assert library.check().sound


def test_the_tables_follow_the_library(copies, index_videos, folder):
    index_videos()
    library = vop.Library.open(folder)
    pairs = pairs_of(folder)
    assert len(pairs) == 2
    (copies / "a.mp4").rename(copies / "moved.mp4")
    index_videos()
    assert pairs_of(folder) == {("a small", "moved", SAME), ("b cut", "b", PART)}
    reembed(folder, "mini", keep=False, num_frames=4, precision="fp32", workers=1)
    assert len(pairs_of(folder)) == 2
    library.forget(copies / "moved.mp4")
    assert names(library.search("a film", k=9))["a small"] == []
    library.restore()
    assert len(pairs_of(folder)) == 2
    library.forget([copies / "moved.mp4", copies / "b.mp4"], for_good=True)
    assert len(read_fingerprints(Store.open(folder).open_table("fingerprints"))) == 4
    assert pairs_of(folder) == set()


def test_an_older_library_is_searched_as_before(copies, index_videos, folder, monkeypatch):
    monkeypatch.setattr(comparing, "update", lambda *_: None)
    index_videos()
    monkeypatch.undo()
    library = vop.Library.open(folder)
    assert names(library.search("a film", k=9)).keys() == {"a", "a small", "b", "b cut", "c", "d"}
    listed = library.duplicates()
    assert (listed.groups, listed.were_compared) == ((), False)
    index_videos()
    assert library.duplicates().near_duplicates == 1
    assert len(pairs_of(folder)) == 2


def test_a_repair_keeps_the_tables_or_makes_them_again(copies, index_videos, folder):
    index_videos()
    store = Store.open(folder)
    store.table.update(where="name = 'c.mp4'", values={"date": "2000-01-01"})
    assert vop.Library.open(folder).check(repair=True).repaired
    assert len(pairs_of(folder)) == 2
    for file in (folder / "database" / "near_copies.lance" / "data").iterdir():
        file.write_bytes(b"damaged")
    assert vop.Library.open(folder).check(repair=True).repaired
    assert Store.open(folder).near_copies() == NearCopies()
    index_videos()
    assert len(pairs_of(folder)) == 2


def test_failures_name_the_originals():
    failed = failure("/v/copy.mp4", DUPLICATE, COPY_OF + "/v/a.mp4")
    row = {"path": "/v/a.mp4", "video": "a", "size": 5, "duration_seconds": 2.0, "date": "2024-07-01"}
    (group,) = grouped([row, {**row, "path": "/v/b.mp4", "video": "b"}], [], [failed])
    assert [(video.path, video.exact_copies) for video in group.videos] == [("/v/a.mp4", ("/v/copy.mp4",))]
