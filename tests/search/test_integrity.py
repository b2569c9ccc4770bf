"""Damaged libraries: every flipped bit that changes something is found, and a repair keeps the sound rows."""

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

FLIPS = 120


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
    """Return everything that a library holds, or "unreadable"."""
    try:
        library = Store.open(folder)
        return library.manifest, rows(library), library.failures()
    except Exception:  # raised by the database
        return "unreadable"


def rows(library: Store) -> list[dict]:
    return library.table.search().to_arrow().sort_by("segment").to_pylist()


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.usefixtures("real_processes")
def test_a_sound_library_passes(folder):
    report = check(folder)
    assert report.sound
    assert (report.videos, report.segments, report.without_checksum) == (12, 36, 0)
    assert report.files == len([path for path in files_of(folder / "database") if "hint" not in path.name])
    assert len(report.unavailable) == 12  # their folder does not exist
    assert content(folder) == content(folder)


class InThisProcess:
    """Replaces the processes that read the tables; their start takes most of the time of a check."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def call(self, function, *args):
        return function(*args)


@pytest.fixture(autouse=True)
def _read_in_this_process(request, monkeypatch):
    if "real_processes" not in request.fixturenames:
        monkeypatch.setattr(integrity, "Processes", InThisProcess)


@pytest.mark.parametrize("part", range(2))
def test_harmful_bit_flips_are_found_and_repaired(pristine, tmp_path, part):
    draw = random.Random(part)
    sound = content(pristine)
    files = files_of(pristine)
    sizes = [file.stat().st_size for file in files]
    for number in range(FLIPS // 2):
        folder = Path(shutil.copytree(pristine, tmp_path / str(number)))
        path = draw.choice(files) if number % 2 else draw.choices(files, sizes)[0]
        flip(folder / path.relative_to(pristine), draw.randrange(path.stat().st_size * 8))
        is_changed = content(folder) != sound
        report = check(folder, repair=True)
        assert not (is_changed and report.sound), path
        lost = {damage.path for damage in report.damaged_videos}
        assert check(folder).sound, path
        kept = [row for row in sound[1] if row["path"] not in lost]
        found = rows(Store.open(folder))
        if "unknown" in " ".join(lost) or not found:  # the damage includes the paths
            assert "segments_0" in str(path)
            assert all(row in kept for row in found)
        else:
            assert found == kept, path
        shutil.rmtree(folder)


def test_damage_names_the_video_after_compaction(folder):
    library = Store.open(folder)
    library.table.update(where="segment LIKE '%-10000-20000' AND path = '/v/2.mp4'", values={"strip": b"other"})
    with library_lock(folder):
        library.keep_up()
    report = check(folder)
    assert not report.damaged_files
    assert [damage.path for damage in report.damaged_videos] == ["/v/2.mp4"]


def test_removed_videos_can_be_restored_after_a_repair(folder):
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


def test_damaged_removed_videos_are_reported_and_repaired(folder):
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


def test_lost_deletion_files_are_restored_from_copies(folder):
    before = content(folder)
    shutil.rmtree(folder / "database" / "segments_0.lance" / "_deletions")
    assert not check(folder).sound
    assert check(folder, repair=True).repaired
    assert content(folder) == before


def test_damaged_failures_are_restored_from_a_copy(folder):
    before = Store.open(folder).failures()
    (path,) = (folder / "database" / "failures.lance" / "data").iterdir()
    flip(path, 100)
    assert check(folder, repair=True).repaired
    assert Store.open(folder).failures() == before


def test_a_table_of_another_manifest_is_not_dropped(folder):
    before = Store.open(folder).manifest
    manifest.write(before.with_(table="segments_9"), folder)
    with pytest.raises(VopError, match="segments_9, .*segments_0 does"):
        check(folder, repair=True)
    manifest.write(before, folder)
    assert len(rows(Store.open(folder))) == 36


def test_an_older_library_is_repaired(folder):
    library = Store.open(folder)
    library.table.drop_columns(["checksum", "num_segments", "volume"])
    library.table.delete("path = '/v/3.mp4' AND place = 0")
    assert check(folder, repair=True).repaired
    report = check(folder)
    assert (report.sound, report.segments, report.without_checksum) == (True, 33, 0)


def test_a_missing_segment_is_found(folder):
    Store.open(folder).table.delete("path = '/v/3.mp4' AND place = 0")
    assert [damage.path for damage in check(folder).damaged_videos] == ["/v/3.mp4"]


def test_damaged_rows_do_not_get_a_new_checksum(folder):
    library = Store.open(folder)
    library.table.update(where="path = '/v/2.mp4'", values={"duration_seconds": 7.0})
    found = library.table.search().to_arrow()
    assert damaged_rows(found).sum() == 3
    with pytest.raises(VopError, match=r"3 of its segments are damaged, the first in /v/2\.mp4; .*vop library check"):
        check_rows(found, folder)


def test_a_new_metadata_column_is_not_damage(folder):
    Store.open(folder).add_columns(["stars"])
    assert check(folder).sound


def test_the_manifest_is_restored_from_a_copy(folder):
    before = Store.open(folder).manifest
    path = folder / "library.json"
    path.write_text(path.read_text().replace('"num_frames": 4', '"num_frames": 5'))
    with pytest.raises(VopError, match=r"content has changed.*vop library check .* --repair"):
        Store.open(folder)
    assert [damage.path for damage in check(folder).damaged_files] == ["library.json"]
    assert check(folder, repair=True).repaired
    assert Store.open(folder).manifest == before


@pytest.mark.parametrize("suffix", [".lance", ".manifest"])
def test_database_errors_become_vop_errors(folder, suffix):
    for path in (folder / "database").rglob(f"*{suffix}"):
        if path.is_file():
            path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(VopError, match=f"{folder}: its database cannot be read .*vop library check {folder}"):
        Store.open(folder).videos()


def test_files_without_checksums_are_not_damage(folder):
    library = Store.open(folder)
    put(library, 20)
    library.keep_up()  # deletes files that have checksums
    report = check(folder)
    assert report.sound
    assert report.videos == 13


@pytest.mark.parametrize("lost", ["checksums.json", "database/failures.lance", "database/segments_0.lance/data"])
def test_lost_files_are_found_and_repaired(folder, lost):
    path = folder / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    if lost == "checksums.json":
        assert check(folder).sound  # as in older libraries; the rows have their own
        return
    assert not check(folder).sound
    check(folder, repair=True)
    assert check(folder).sound
    assert len(rows(Store.open(folder))) == (36 if "failures" in lost else 0)


def test_a_library_without_checksums_passes(folder):
    library = Store.open(folder)
    library.table.drop_columns(["checksum"])
    (folder / "checksums.json").unlink()
    report = check(folder)
    assert report.sound
    assert report.without_checksum == 36


def test_damaged_frames_are_removed(tmp_path):
    library = make_library(tmp_path / "library", [a_file("/v/a.mp4")])
    frames = SegmentFrames.of(library.manifest.with_(keep_frames=True), library.path)
    segment = library.table.search().to_arrow().column("segment")[0].as_py()
    frames.write(segment, unit_vectors(4 * 3 * 32 * 32, size=1).reshape(4, 3, 32, 32).astype("uint8"))
    assert frames.count_damaged(remove=False) == 0
    (path,) = library.path.rglob("*.safetensors")
    flip(path, 8 * path.stat().st_size - 1)
    assert frames.count_damaged(remove=True) == 1
    assert not path.exists()


def test_changed_and_deleted_files_are_reported(tmp_path):
    there, changed = tmp_path / "there.mp4", tmp_path / "changed.mp4"
    for path in (there, changed):
        path.write_bytes(b"x" * 1000)
    os.utime(there, ns=(5, 5))  # the time in `a_file`
    files = [a_file(str(path)) for path in (there, changed, tmp_path / "gone.mp4")]
    library = make_library(tmp_path / "library", [*files, a_file("/v/away.mp4")])
    report = check(library.path)
    assert report.changed == [str(changed)]
    assert report.deleted == [str(tmp_path / "gone.mp4")]
    assert report.unavailable == ["/v/away.mp4"]
    assert report.sound


def test_a_missing_library_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no library exists"):
        check(tmp_path)


def test_the_command_reports_and_repairs_damage(folder, capsys):
    assert main(["library", "check", str(folder)]) == 0
    assert "sound" in capsys.readouterr().out
    library = Store.open(folder)
    library.table.update(where="path = '/v/2.mp4'", values={"strip": b"other"})
    assert main(["library", "check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["sound"]
    (damaged,) = report["damaged_videos"]
    assert damaged["path"] == "/v/2.mp4"
    assert main(["library", "check", str(folder), "--repair"]) == 0
    out = capsys.readouterr().out
    assert f"damaged: /v/2.mp4: {damaged['reason']}" in out
    assert "vop index" not in out  # the file does not exist
    assert main(["library", "check", str(folder)]) == 0


def test_a_reader_works_while_old_versions_are_deleted(tmp_path):
    library = make_library(tmp_path / "library", [a_file("/v/a.mp4")])
    reader = Store.open(library.path)
    for number in range(10):
        stale = reader._database.open_table("segments_0")
        put_one(library, number)
        library.keep_up()
        reader.table = reader._nearest._table = stale  # as in a reader that is at work
        assert reader.status().videos == number + 2
        assert len(reader.search(unit_vectors(1)[0], k=100)) == number + 2


def put_one(library: Store, number: int) -> None:
    library.put(rows_of(library, a_file(f"/w/{number}.mp4"), unit_vectors(1, seed=number)))


def test_a_library_is_little_larger_than_its_rows(tmp_path):
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
