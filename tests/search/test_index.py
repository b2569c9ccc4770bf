"""Indexing real files: new, changed, moved, copied and deleted ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import vop
import vop.models.pretrained
from search.owners_videos import embeddings, rows, write_video
from vop.backbones import DEFAULT_HUB_ID
from vop.errors import UsageError, VopError
from vop.search.library import Library
from vop.search.manifest import SegmentationConfig
from vop.search.schema import clip_of
from vop.search.store import Store
from vop.search.sync import forget, index, ingest, preview, reader, restore
from vop.video.find import LISTED
from vop.video.frames import read_frames


@pytest.mark.usefixtures("real_processes")
def test_every_segment_is_embedded_from_its_own_frames(index_videos, folder, videos, tiny_folder):
    report = index_videos()
    assert (report.added, report.segments, report.failures) == (4, 6, [])
    assert report.hours == pytest.approx((26 + 3 * 4) / 3600, rel=0.02)
    model = vop.load(str(tiny_folder), num_frames=2, device="cpu")
    found = rows(folder)
    assert sorted(found) == [("a.mp4", 0), ("b.mp4", 0), ("b.mp4", 1), ("b.mp4", 2), ("c.mp4", 0), ("d.mp4", 0)]
    for (name, _), row in found.items():
        clip = {"start_seconds": row["start_seconds"], "end_seconds": row["end_seconds"]}
        frames = read_frames(videos[name[0]], num_frames=2, size=32, **clip)
        with torch.inference_mode():
            own = model.embed_frames(model.normalise(frames[None]))[0]
        torch.testing.assert_close(torch.tensor(row["embedding_1"]), own, rtol=0, atol=1e-5)
        assert row["strip"].startswith(b"\xff\xd8")


def test_a_search_finds_the_moment(index_videos, folder):
    index_videos()
    opened = Store.open(folder)
    wanted = embeddings(folder)["b.mp4", 2]
    best, *others = opened.search(wanted, k=10)
    assert Path(best.path).name == "b.mp4"
    assert best.end_seconds == pytest.approx(26, abs=0.3)
    assert best.score == pytest.approx(1, abs=1e-5)
    assert len({best.video, *(moment.video for moment in others)}) == 4  # a video is found once


def test_unchanged_files_are_not_indexed_again(index_videos, folder, no_decoding, monkeypatch):
    index_videos()
    version = Store.open(folder).table.version
    no_decoding()
    monkeypatch.setattr(reader, "content_id", lambda path: pytest.fail(f"{path} was hashed"))
    report = index_videos(model=None, num_frames=None, precision="auto")
    assert (report.added, report.changed, report.unchanged) == (0, 0, 4)
    assert Store.open(folder).table.count_rows() == 6
    assert Store.open(folder).table.version - version <= 1  # no rows were written


def test_a_new_modification_time_alone_changes_no_video(index_videos, folder, videos, no_decoding, monkeypatch):
    index_videos()
    before = embeddings(folder)
    os.utime(videos["a"], (1, 1))
    no_decoding()
    assert index_videos().unchanged == 4
    assert rows(folder)["a.mp4", 0]["mtime_ns"] == 10**9
    assert embeddings(folder).keys() == before.keys()
    monkeypatch.setattr(reader, "content_id", lambda path: pytest.fail(f"{path} was hashed again"))
    assert index_videos().unchanged == 4


def test_a_date_follows_an_earlier_time_and_a_name_with_a_date(index_videos, folder, videos, no_decoding):
    """A later time is that of a copy, and 1970 that of no clock. A name without a date says nothing."""
    os.utime(videos["a"], (10**9, 10**9))
    index_videos()
    no_decoding()

    def date_after(change) -> tuple[str, str]:
        change()
        index_videos()
        (row,) = (row for (name, _), row in rows(folder).items() if row["video"] == video)
        return row["date"], row["date_source"]

    video = rows(folder)["a.mp4", 0]["video"]
    dated, plain = (videos["a"].with_name(name) for name in ("2019-07-14 10.30.00Z.mp4", "plain.mp4"))
    assert date_after(lambda: os.utime(videos["a"], (2 * 10**9, 2 * 10**9))) == ("2001-09-09T01:46:40+00:00", "file")
    assert date_after(lambda: os.utime(videos["a"], (1, 1))) == ("2001-09-09T01:46:40+00:00", "file")
    assert date_after(lambda: os.utime(videos["a"], (9 * 10**8,) * 2)) == ("1998-07-09T16:00:00+00:00", "file")
    assert date_after(lambda: videos["a"].rename(dated)) == ("2019-07-14T10:30:00+00:00", "name")
    assert date_after(lambda: dated.rename(plain)) == ("2019-07-14T10:30:00+00:00", "name")


def test_a_changed_file_is_indexed_again(index_videos, folder, videos):
    index_videos()
    before = embeddings(folder)
    write_video(videos["b"], seed=77, seconds=4)
    report = index_videos()
    assert (report.changed, report.added, report.unchanged) == (1, 0, 3)
    after = embeddings(folder)
    assert after.keys() == before.keys() - {("b.mp4", 1), ("b.mp4", 2)}
    assert not np.allclose(after["b.mp4", 0], before["b.mp4", 0])
    np.testing.assert_array_equal(after["a.mp4", 0], before["a.mp4", 0])


def test_a_moved_file_keeps_its_rows(index_videos, folder, videos, no_decoding):
    index_videos()
    before = embeddings(folder)
    (videos["b"].parent / "deep").mkdir()
    videos["b"].rename(videos["b"].parent / "deep" / "new name.mp4")
    no_decoding()
    report = index_videos()
    assert (report.moved, report.added, report.deleted) == (1, 0, 0)
    after = embeddings(folder)
    np.testing.assert_array_equal(after["new name.mp4", 2], before["b.mp4", 2])
    assert len(after) == len(before)


def test_two_files_may_swap_names(index_videos, folder, videos):
    index_videos()
    before = embeddings(folder)
    spare = videos["a"].with_name("spare")
    videos["a"].rename(spare), videos["c"].rename(videos["a"]), spare.rename(videos["c"])
    index_videos()
    after = embeddings(folder)
    assert after.keys() == before.keys()
    np.testing.assert_allclose(after["a.mp4", 0], before["c.mp4", 0], atol=1e-6)
    np.testing.assert_allclose(after["c.mp4", 0], before["a.mp4", 0], atol=1e-6)


@pytest.mark.parametrize("commit_seconds", [0, 1e9])
def test_a_new_file_at_the_path_of_a_renamed_one(index_videos, folder, videos, monkeypatch, commit_seconds):
    """Both stay, whether or not they are committed together."""
    monkeypatch.setattr(ingest, "COMMIT_SECONDS", commit_seconds)
    index_videos(workers=1)
    content = rows(folder)["b.mp4", 0]["video"]
    videos["b"].rename(videos["b"].with_name("renamed.mp4"))
    write_video(videos["b"], seed=60)
    index_videos(workers=1)
    found = rows(folder)
    assert {key for key in found if key[0] in ("b.mp4", "renamed.mp4")} == {
        ("b.mp4", 0),
        *(("renamed.mp4", place) for place in range(3)),
    }
    assert found["renamed.mp4", 2]["video"] == content != found["b.mp4", 0]["video"]


@pytest.mark.parametrize("commit_seconds", [-1, 1e9])
def test_names_may_move_on(index_videos, folder, videos, monkeypatch, commit_seconds):
    """The small file is committed at the path of the large one before that is found at its own new path."""
    monkeypatch.setattr(ingest, "COMMIT_SECONDS", commit_seconds)
    index_videos(workers=1)
    before = rows(folder)
    videos["b"].rename(videos["b"].with_name("z.mp4"))
    videos["a"].rename(videos["b"])
    index_videos(workers=1)
    after = rows(folder)
    assert after["b.mp4", 0]["video"] == before["a.mp4", 0]["video"]
    assert [after["z.mp4", place]["video"] for place in range(3)] == [before["b.mp4", 0]["video"]] * 3
    assert len(after) == len(before)


def test_metadata_follows_the_content(index_videos, folder, videos, tmp_path):
    table = tmp_path / "authors.csv"
    table.write_text("path,author\nvideos/a.mp4,alice\nvideos/b.mp4,bob\n")
    index_videos(metadata=table)
    videos["b"].rename(videos["b"].with_name("z.mp4"))
    videos["a"].rename(videos["b"])
    index_videos()
    authors = {name: row["about_author"] for (name, _), row in rows(folder).items()}
    assert authors == {"b.mp4": "alice", "z.mp4": "bob", "c.mp4": None, "d.mp4": None}


def test_a_restored_video_leaves_the_path_of_a_copy(index_videos, folder, videos):
    index_videos()
    videos["a"].unlink()
    index_videos(prune=True, yes=True)
    shutil.copy(videos["b"], videos["a"])
    index_videos()
    assert restore(folder) == [str(videos["a"])]
    for _ in range(2):
        report = index_videos()
        assert [failed.path for failed in report.failures] == [str(videos["a"])]
        assert {name for name, _ in rows(folder)} == {"b.mp4", "c.mp4", "d.mp4"}


def test_a_deleted_copy_in_a_folder_of_copies_is_no_failure(index_videos, videos, tmp_path):
    backup = tmp_path / "backup"
    backup.mkdir()
    index_videos()
    for name in "ac":
        shutil.copy(videos[name], backup)
    index_videos(tmp_path / "videos", backup)
    (backup / "a.mp4").unlink()
    report = index_videos(tmp_path / "videos", backup)
    assert [failed.path for failed in report.failures] == [str(backup / "c.mp4")]


def test_a_copy_is_listed_and_replaces_a_deleted_original(index_videos, folder, videos, no_decoding, monkeypatch):
    copy = videos["a"].with_name("z.mp4")
    shutil.copy(videos["a"], copy)
    report = index_videos(workers=1)  # two would read them in any order
    assert report.added == 4
    (failure,) = Store.open(folder).failures()
    assert (failure.kind, failure.path) == ("duplicate", str(copy))
    assert str(videos["a"]) in failure.reason
    no_decoding()
    with monkeypatch.context() as patch:
        patch.setattr(reader, "content_id", lambda path: pytest.fail(f"{path} was hashed again"))
        assert [failed.path for failed in index_videos().failures] == [str(copy)]
    videos["a"].unlink()
    report = index_videos()
    assert (report.moved, report.deleted, report.failures) == (1, 0, [])
    assert ("z.mp4", 0) in rows(folder)
    assert ("a.mp4", 0) not in rows(folder)
    assert Store.open(folder).failures() == []


def test_a_copy_is_indexed_after_its_original_changed(index_videos, folder, videos):
    copy = videos["a"].with_name("z.mp4")
    shutil.copy2(videos["a"], copy)
    index_videos(workers=1)  # two would read them in any order
    write_video(videos["a"], seed=70)
    report = index_videos()
    assert (report.changed, report.added, report.failures) == (1, 1, [])
    assert ("z.mp4", 0) in rows(folder)


def test_one_file_with_two_paths_is_not_a_copy(index_videos, folder, videos, tmp_path):
    (tmp_path / "link").symlink_to(videos["a"].parent)
    index_videos()
    report = index_videos(tmp_path / "link")
    assert (report.unchanged, report.failures) == (4, [])
    assert index_videos(tmp_path / "videos" / ".." / "videos").unchanged == 4
    assert len(rows(folder)) == 6


def test_hard_links_are_indexed_by_one_name(index_videos, folder, videos, no_decoding):
    at = videos["a"].parent
    for name in ("0.mp4", "z.mp4"):
        os.link(videos["a"], at / name)
    report = index_videos()
    assert (report.added, report.unchanged, report.passed_over[LISTED], report.failures) == (4, 0, 2, [])
    paths = {path for path, _ in rows(folder)}
    shutil.copy2(videos["a"], at / "y.mp4")  # has its time, too
    (copy,) = index_videos().failures
    assert copy.path == str(at / "y.mp4")
    no_decoding()
    assert preview(folder, [at]).new == []
    report = index_videos()
    assert (report.unchanged, report.passed_over[LISTED]) == (4, 2)
    assert {path for path, _ in rows(folder)} == paths
    (name,) = paths & {"0.mp4", "a.mp4", "z.mp4"}
    (at / name).unlink()
    assert index_videos().moved == 1


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_video_that_became_a_link_is_removed(index_videos, folder, videos, link):
    index_videos()
    videos["a"].unlink()
    link(videos["c"], videos["a"])
    report = index_videos()
    assert (report.unchanged, report.passed_over[LISTED], report.failures) == (3, 1, [])
    assert {path for path, _ in rows(folder)} == {"b.mp4", "c.mp4", "d.mp4"}


def test_a_moved_run_can_be_given(index_videos, folder, videos, tmp_path, tiny_folder):
    vop.models.pretrained.create("vop", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / "run")
    index_videos(model=str(tmp_path / "run"))
    (tmp_path / "run").rename(tmp_path / "moved")
    write_video(videos["a"].with_name("e.mp4"), seed=80)
    assert index_videos(model=str(tmp_path / "moved")).added == 1
    assert Store.open(folder).models[0].name == str(tmp_path / "moved")
    assert index_videos(model=None).unchanged == 5


def test_kept_frames_are_deleted_with_their_videos(index_videos, folder, videos, tmp_path):
    def kept():
        return len(list((folder / "frames").rglob("*.safetensors")))

    index_videos(keep_frames=True)
    assert kept() == 6
    forget(folder, [videos["b"]], for_good=True)
    assert kept() == 3
    write_video(videos["a"], seed=90)
    videos["c"].unlink(), videos["b"].unlink()
    index_videos(prune=True, keep_frames=True)
    assert kept() == 3  # c can be restored with its frames
    with pytest.raises(UsageError, match="no video at or below"):
        forget(folder, [videos["c"]])
    assert forget(folder, [videos["c"]], for_good=True) == 1
    assert kept() == 2


def test_a_library_may_have_the_name_of_a_model(tmp_path, monkeypatch, videos):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="nothing-like-it"):
        index("mini", [tmp_path / "videos"], model="nothing-like-it")
    assert not (tmp_path / "mini").exists()
    assert index("mini", [videos["a"]], model="mini").added == 1
    assert index("mini", [videos["a"], videos["c"]], model="mini").added == 1


def test_metadata_is_written_in_several_commits(index_videos, folder, videos, tmp_path, monkeypatch):
    index_videos()
    monkeypatch.setattr(ingest, "COMMIT_ROWS", 1)
    (tmp_path / "about.csv").write_text("path,author\na.mp4,Bob\nb.mp4,Ann\nc.mp4,Eve\n")
    assert index_videos(*videos.values(), metadata=tmp_path / "about.csv").described == 3
    found = rows(folder)
    assert [found[f"{name}.mp4", 0]["about_author"] for name in "abcd"] == ["Bob", "Ann", "Eve", None]
    assert found["b.mp4", 2]["about_author"] == "Ann"


def test_deleted_files_stay_until_prune(index_videos, folder, videos, tmp_path):
    other = write_video(tmp_path / "elsewhere" / "e.mp4", seed=9)
    index_videos(tmp_path / "videos", tmp_path / "elsewhere")
    videos["a"].unlink(), other.unlink()
    report = index_videos(tmp_path / "videos")
    assert (report.deleted, report.removed) == (1, 0)
    assert ("a.mp4", 0) in rows(folder)
    report = index_videos(tmp_path / "videos", prune=True)
    assert (report.deleted, report.removed) == (0, 1)
    assert ("a.mp4", 0) not in rows(folder)
    assert ("e.mp4", 0) in rows(folder)  # its folder was not given


def test_forget_removes_a_video_but_not_its_file(index_videos, folder, videos, tmp_path):
    index_videos()
    with pytest.raises(UsageError, match="nowhere"):
        forget(folder, [tmp_path / "nowhere"])
    assert forget(folder, [videos["b"]]) == 1
    assert len(rows(folder)) == 3
    assert videos["b"].exists()


def test_metadata_is_updated_without_decoding(index_videos, folder, videos, tmp_path, no_decoding):
    table = tmp_path / "about.csv"
    table.write_text("path,author,stars\nvideos/a.mp4,Bob,5\nb.mp4,Ann,3\n")
    index_videos()
    no_decoding()
    report = index_videos(metadata=table)
    assert report.described == 2
    found = rows(folder)
    assert (found["a.mp4", 0]["about_author"], found["b.mp4", 2]["about_stars"]) == ("Bob", "3")
    assert found["c.mp4", 0]["about_author"] is None
    assert Store.open(folder).columns == ["author", "stars"]
    assert index_videos(metadata=table).described == 0
    table.write_text("path,author\nb.mp4,Eve\n")
    assert index_videos(metadata=table).described == 1
    videos["b"].rename(videos["b"].with_name("moved.mp4"))
    index_videos()
    assert rows(folder)["moved.mp4", 1]["about_stars"] == "3"


def test_settings_of_a_library_cannot_change(index_videos, folder, tmp_path):
    index_videos(segmentation=SegmentationConfig(window_seconds=5, overlap_seconds=1))
    assert len([key for key in rows(folder) if key[0] == "b.mp4"]) == 7
    index_videos(num_frames=None)
    with pytest.raises(UsageError, match="windows of 7 s"):
        index_videos(segmentation=SegmentationConfig(window_seconds=7))
    with pytest.raises(UsageError, match="num_frames .* is 2, not 5"):
        index_videos(num_frames=5)
    with pytest.raises(UsageError, match="keep_frames"):
        index_videos(keep_frames=True)


def test_segments_may_be_shots(index_videos, folder):
    index_videos(segmentation=SegmentationConfig(by="shots"))
    starts = sorted(row["start_seconds"] for (name, _), row in rows(folder).items() if name == "b.mp4")
    assert starts == pytest.approx(list(range(0, 26, 2)), abs=0.3)  # the pictures change every two seconds


def test_a_new_library_uses_the_default_backbone(folder, videos, tmp_path, monkeypatch):
    def open_model(name: str, **how: object) -> None:
        raise VopError(f"opens {name}")

    monkeypatch.setattr("vop.search.sync.commands.open_model", open_model)
    with pytest.raises(VopError, match=f"opens {DEFAULT_HUB_ID}"):
        index(folder, [tmp_path / "videos"])
    assert not (folder / "library.json").exists()


def test_another_model_is_refused(index_videos, folder, tmp_path, tiny_folder):
    index_videos()
    model = vop.models.pretrained.create("vop", str(tiny_folder), num_frames=2, device="cpu")
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(VopError, match="reembed"):
        index_videos(model=str(tmp_path / "run"))
    index_videos(model=f"{tiny_folder}/")  # the same model, spelled differently


def test_a_folder_that_is_not_a_library_is_refused(tmp_path, videos):
    with pytest.raises(UsageError, match="is not a library.*vop index LIBRARY"):
        index(tmp_path / "videos", [tmp_path / "library"], model="mini")
    assert not (tmp_path / "videos" / ".lock").exists()


def test_places_are_indexed_and_marks_follow_the_files(index_videos, folder, videos):
    """A program that writes a place into a file changes its content, but not the video."""
    index_videos()
    library = Library.open(folder)
    library.tag(videos["b"], add="lake", start_seconds=10, end_seconds=18)
    library.favourite(videos["c"])
    copied = videos["b"].with_name("copy.mp4")
    with av.open(str(videos["b"])) as source, av.open(str(copied), "w") as target:
        target.metadata["location"] = "+48.2000+016.4000/"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    copied.replace(videos["b"])
    videos["c"].rename(videos["c"].with_name("moved.mp4"))
    report = index_videos()
    assert (report.changed, report.moved) == (1, 1)
    (near,) = library.browse(near="48.2,16.4,1").videos
    assert (near.path, near.place.latitude, near.place.longitude) == (str(videos["b"]), 48.2, 16.4)
    assert [video.path for video in library.browse(tag="lake").videos] == [str(videos["b"])]
    assert [Path(mark.path).name for mark in library.marks()] == ["b.mp4", "moved.mp4"]
    assert [Path(video.path).name for video in library.browse(favourites=True).videos] == ["moved.mp4"]


def test_only_moments_with_the_tag_are_found_in_a_video(index_videos, folder, videos):
    index_videos()
    library = Library.open(folder)
    for place in range(3):
        start, end = clip_of(rows(folder)["b.mp4", place]["segment"])
        library.mark([videos["b"]], add=[f"tag {place}"], start_seconds=start, end_seconds=end)
        found = library.search("a dog", tag=[f"tag {place}"], per_video=5)
        assert [(moment.start_seconds, moment.end_seconds) for moment in found] == [(start, end)]


def test_a_query_without_letters_is_searched_in_pictures(index_videos, folder, videos):
    videos["a"].with_suffix(".srt").write_text("1\n00:00:00,000 --> 00:00:02,000\na cat\n")
    index_videos()
    library = Library.open(folder)
    assert len(library.search("🐶")) == 4
    together, alone = (library.search(query, words=False) for query in ([("a dog", 1), ("🐶", 1)], "a dog"))
    assert library.search([("a dog", 1), ("🐶", 1)])[0].score == pytest.approx(together[0].score)
    assert together[0].score != alone[0].score
