"""Libraries that a disk has damaged: every bit that changes something is found, and a repair keeps what is sound."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from search.libraries import a_file, make_library, rows_of, unit_vectors
from vop.cli import main
from vop.errors import UsageError, VopError
from vop.search import manifest
from vop.search.failures import UNREADABLE, failure
from vop.search.frames import SegmentFrames
from vop.search.schema import check_rows, damaged_rows
from vop.search.store import Store
from vop.search.sync import integrity
from vop.search.sync.integrity import check
from vop.search.sync.lock import library_lock

FLIPS = 200


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A library with rows in several files, some of them deleted, and failures."""
    folder = tmp_path_factory.mktemp("pristine") / "library"
    library = make_library(folder, [], columns=["place"])
    with library_lock(folder):
        for number in range(10):
            put(library, number)
        library.keep_up()
        for number in range(10, 13):
            put(library, number)
        library.remove(["/v/4.mp4"])
        library.put_failures([failure("/v/broken.mp4", UNREADABLE, "cut short")])
    return folder


def put(library: Store, number: int) -> None:
    file = a_file(f"/v/{number}.mp4", metadata={"place": f"town {number}"})
    library.put(rows_of(library, file, unit_vectors(3, seed=number)))


@pytest.fixture
def folder(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "library"))


def content(folder: Path) -> object:
    """Everything that a library says; the error, where it cannot say it."""
    try:
        library = Store.open(folder)
        return library.manifest, rows(library), library.failures()
    except Exception:  # of the database, where it is asked directly
        return "unreadable"


def rows(library: Store) -> list[dict]:
    return library.table.search().to_arrow().sort_by("segment").to_pylist()


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def test_a_sound_library(folder):
    report = check(folder)
    assert report.sound
    assert (report.videos, report.segments, report.without_checksum) == (12, 36, 0)
    assert report.files == len([path for path in files_of(folder / "database") if "hint" not in path.name])
    assert len(report.unavailable) == 12  # there is no such folder
    assert content(folder) == content(folder)


class HereAndNow:
    """Takes the place of the processes, whose start takes most of a check's time."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def call(self, function, *args):
        return function(*args)


@pytest.mark.parametrize("part", range(4))
def test_every_flipped_bit_that_changes_something_is_found_and_repaired(pristine, tmp_path, monkeypatch, part):
    monkeypatch.setattr(integrity, "Processes", HereAndNow)
    draw = random.Random(part)
    sound = content(pristine)
    files = files_of(pristine)
    sizes = [file.stat().st_size for file in files]
    for number in range(FLIPS // 4):
        folder = Path(shutil.copytree(pristine, tmp_path / str(number)))
        path = draw.choice(files) if number % 2 else draw.choices(files, sizes)[0]
        flip(folder / path.relative_to(pristine), draw.randrange(path.stat().st_size * 8))
        is_other = content(folder) != sound
        report = check(folder)
        assert not (is_other and report.sound), path
        lost = {damage.path for damage in check(folder, repair=True).damaged_videos}
        assert check(folder).sound, path
        kept = [row for row in sound[1] if row["path"] not in lost]
        found = rows(Store.open(folder))
        if "unknown" in " ".join(lost) or not found:  # so much is damaged that not even the paths can be read
            assert "segments_0" in str(path)
            assert all(row in kept for row in found)
        else:
            assert found == kept, path
        shutil.rmtree(folder)


def test_damage_has_the_videos_name_also_after_the_rows_were_written_again(folder):
    library = Store.open(folder)
    library.table.update(where="segment LIKE '%-10000-20000' AND path = '/v/2.mp4'", values={"strip": b"other"})
    with library_lock(folder):
        library.keep_up()
    report = check(folder)
    assert not report.damaged_files
    assert [(damage.path, damage.reason) for damage in report.damaged_videos] == [
        ("/v/2.mp4", "some of its segments differ from what was written")
    ]


def test_what_was_taken_out_can_still_be_put_back_after_a_repair(folder):
    library = Store.open(folder)
    library.move_to_removed(["/v/5.mp4", "/v/6.mp4"])
    library.table.update(where="path = '/v/2.mp4'", values={"strip": b"other"})
    kept = library._database.open_table(f"removed_{library.manifest.table}")
    kept.update(where="path = '/v/6.mp4'", values={"strip": b"other"})
    assert check(folder, repair=True).repaired
    library = Store.open(folder)
    assert set(library.removed.videos()) == {"/v/5.mp4"}
    assert library.restore(["/v/5.mp4"]) == ["/v/5.mp4"]
    assert check(folder).sound


def test_damage_of_what_was_taken_out_is_said_and_ends_nothing_else(folder):
    library = Store.open(folder)
    with library_lock(folder):
        library.move_to_removed(["/v/5.mp4"])
    for path in (folder / "database" / f"removed_{library.manifest.table}.lance" / "data").iterdir():
        path.unlink()
    assert not check(folder).sound
    with pytest.raises(VopError, match="vop library check"):
        Store.open(folder).restorable()
    assert check(folder, repair=True).repaired
    assert check(folder).sound
    assert Store.open(folder).restorable() == []


def test_lost_lists_of_deleted_rows_come_back_from_their_copies(folder):
    before = content(folder)
    shutil.rmtree(folder / "database" / "segments_0.lance" / "_deletions")
    assert not check(folder).sound
    assert check(folder, repair=True).repaired
    assert content(folder) == before


def test_damage_of_the_failures_comes_back_from_its_copy(folder):
    before = Store.open(folder).failures()
    (path,) = (folder / "database" / "failures.lance" / "data").iterdir()
    flip(path, 100)
    assert check(folder, repair=True).repaired
    assert Store.open(folder).failures() == before


def test_a_table_that_another_description_belongs_to_is_not_dropped(folder):
    about = Store.open(folder).manifest
    manifest.write(about.with_(table="segments_9"), folder)
    with pytest.raises(VopError, match="segments_9, .*segments_0 does"):
        check(folder, repair=True)
    manifest.write(about, folder)
    assert len(rows(Store.open(folder))) == 36


def test_an_older_library_is_repaired(folder):
    library = Store.open(folder)
    library.table.drop_columns(["checksum", "num_segments", "volume"])
    library.table.delete("path = '/v/3.mp4' AND place = 0")
    assert check(folder, repair=True).repaired
    report = check(folder)
    assert (report.sound, report.segments, report.without_checksum) == (True, 33, 0)


def test_a_video_without_one_of_its_segments(folder):
    Store.open(folder).table.delete("path = '/v/3.mp4' AND place = 0")
    assert [damage.path for damage in check(folder).damaged_videos] == ["/v/3.mp4"]


def test_damaged_rows_are_not_written_again_under_a_new_checksum(folder):
    library = Store.open(folder)
    library.table.update(where="path = '/v/2.mp4'", values={"duration_seconds": 7.0})
    found = library.table.search().to_arrow()
    assert damaged_rows(found).sum() == 3
    with pytest.raises(VopError, match=r"3 of its segments are damaged, the first in /v/2\.mp4; .*vop library check"):
        check_rows(found, folder)


def test_a_new_column_of_metadata_is_no_damage(folder):
    Store.open(folder).add_columns(["stars"])
    assert check(folder).sound


def test_the_description_comes_back_from_its_copy(folder):
    before = Store.open(folder).manifest
    path = folder / "library.json"
    path.write_text(path.read_text().replace('"num_frames": 4', '"num_frames": 5'))
    with pytest.raises(VopError, match=r"content has changed.*vop library check .* --repair"):
        Store.open(folder)
    assert [damage.path for damage in check(folder).damaged_files] == ["library.json"]
    assert check(folder, repair=True).repaired
    assert Store.open(folder).manifest == before


@pytest.mark.parametrize("suffix", [".lance", ".manifest"])
def test_the_database_never_fails_in_words_of_its_own(folder, suffix):
    for path in (folder / "database").rglob(f"*{suffix}"):
        if path.is_file():
            path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(VopError, match=f"{folder}: its database cannot be read .*vop library check {folder}"):
        Store.open(folder).videos()


def test_a_killed_run_leaves_files_without_checksums_and_no_damage(folder):
    library = Store.open(folder)
    put(library, 20)
    library.keep_up()  # files that have checksums go
    report = check(folder)
    assert report.sound
    assert report.videos == 13


@pytest.mark.parametrize("lost", ["checksums.json", "database/failures.lance", "database/segments_0.lance/data"])
def test_lost_parts(folder, lost):
    path = folder / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    if lost == "checksums.json":
        assert check(folder).sound  # as an older library; rows have theirs
        return
    assert not check(folder).sound
    check(folder, repair=True)
    assert check(folder).sound
    assert len(rows(Store.open(folder))) == (36 if "failures" in lost else 0)


def test_an_older_library_passes_and_says_that_nothing_was_compared(folder):
    library = Store.open(folder)
    library.table.drop_columns(["checksum"])
    (folder / "checksums.json").unlink()
    report = check(folder)
    assert report.sound
    assert report.without_checksum == 36


def test_damaged_frames_are_removed(tmp_path):
    library = make_library(tmp_path / "library", [a_file("/v/a.mp4")])
    about = library.manifest.with_(keep_frames=True)
    frames = SegmentFrames.of(about, library.path)
    segment = library.table.search().to_arrow().column("segment")[0].as_py()
    frames.write(segment, unit_vectors(4 * 3 * 32 * 32, size=1).reshape(4, 3, 32, 32).astype("uint8"))
    assert frames.count_damaged(remove=False) == 0
    (path,) = library.path.rglob("*.safetensors")
    flip(path, 8 * path.stat().st_size - 1)
    assert frames.count_damaged(remove=True) == 1
    assert not path.exists()


def test_files_of_videos_against_the_index(tmp_path):
    there, changed = tmp_path / "there.mp4", tmp_path / "changed.mp4"
    for path in (there, changed):
        path.write_bytes(b"x" * 1000)
    os.utime(there, ns=(5, 5))  # as `a_file` says
    files = [a_file(str(path)) for path in (there, changed, tmp_path / "gone.mp4")]
    library = make_library(tmp_path / "library", [*files, a_file("/v/away.mp4")])
    report = check(library.path)
    assert report.changed == [str(changed)]
    assert report.deleted == [str(tmp_path / "gone.mp4")]
    assert report.unavailable == ["/v/away.mp4"]
    assert report.sound


def test_no_library(tmp_path):
    with pytest.raises(UsageError, match="no library exists"):
        check(tmp_path)


def test_the_command(folder, capsys):
    assert main(["library", "check", str(folder)]) == 0
    assert "sound" in capsys.readouterr().out
    library = Store.open(folder)
    library.table.update(where="path = '/v/2.mp4'", values={"strip": b"other"})
    assert main(["library", "check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["sound"]
    reason = "some of its segments differ from what was written"
    assert report["damaged_videos"] == [{"path": "/v/2.mp4", "reason": reason}]
    assert main(["library", "check", str(folder), "--repair"]) == 0
    out = capsys.readouterr().out
    assert "damaged: /v/2.mp4: some of its segments differ from what was written" in out
    assert "vop index" not in out  # there is no such file to index again
    assert main(["library", "check", str(folder)]) == 0


def test_a_reader_goes_on_while_old_versions_go(tmp_path):
    library = make_library(tmp_path / "library", [a_file("/v/a.mp4")])
    reader = Store.open(library.path)
    for number in range(10):
        stale = reader._database.open_table("segments_0")
        put_one(library, number)
        library.keep_up()
        reader.table = stale  # what a reader holds that is just at work
        assert reader.status().videos == number + 2
        assert len(reader.search(unit_vectors(1)[0], k=100)) == number + 2


def put_one(library: Store, number: int) -> None:
    library.put(rows_of(library, a_file(f"/w/{number}.mp4"), unit_vectors(1, seed=number)))


def test_a_library_takes_little_more_than_its_rows(tmp_path):
    many = make_library(tmp_path / "many", [])
    parts = [rows_of(many, a_file(f"/w/{number}.mp4"), unit_vectors(20, seed=number)) for number in range(40)]
    for part in parts:
        many.put(part)
    for part in parts[:20]:
        many.put(part, replacing=[part.column("path")[0].as_py()])
    with library_lock(many.path):
        many.keep_up()
    once = make_library(tmp_path / "once", [])
    with library_lock(once.path):
        once.put(pa.concat_tables(parts))
    assert size_of(many.path / "database") < 1.3 * size_of(once.path / "database")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
