"""Tables of paths and addresses in place of folders."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from search.test_shards import planned
from vop.cli import main
from vop.errors import DataError, UsageError
from vop.search.sharding.plan import PlannedFile, cut
from vop.search.store import Store
from vop.search.sync import preview
from vop.search.sync.scanner import scan
from vop.search.sync.tables import read_videos
from vop.storage.address import Address

ROWS = [
    {"address": "s3://films/a.mp4", "duration": 12.5},
    {"address": "videos/b.mp4", "duration": None},
    {"address": "/far/c.mov", "duration": -1},
]


def as_csv(path: Path) -> Path:
    path.write_text("title;address;duration\nx;s3://films/a.mp4;12.5\ny;videos/b.mp4;\nz;/far/c.mov;-1\n")
    return path


def as_jsonl(path: Path) -> Path:
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def as_parquet(path: Path) -> Path:
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize(("write", "name"), [(as_csv, "a.csv"), (as_jsonl, "a.jsonl"), (as_parquet, "A.PARQUET")])
def test_formats(tmp_path, write, name):
    table = read_videos(write(tmp_path / name))
    assert table.places == (Address("s3", "films", "a.mp4"), tmp_path / "videos" / "b.mp4", Path("/far/c.mov"))
    assert table.seconds == {"s3://films/a.mp4": 12.5}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("title,length\nx,3\n", "title, length"),
        ("", "found: none"),
        ("path\n", "no video"),
        ("path,title\n,x\n", "line 2"),
        ("path\ns3://films//x.mp4\n", "line 2.*films//x"),
    ],
)
def test_bad_tables(tmp_path, content, named):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=rf"a\.csv.*{named}"):
        read_videos(tmp_path / "a.csv")


def test_files_of_a_table(tmp_path, videos, folder):
    """Only the listed files are found, also hidden ones; what does not exist is named."""
    hidden = videos["c"].rename(videos["c"].with_name(".c.mp4"))
    table = tmp_path / "a.csv"
    table.write_text("path\nvideos/a.mp4\nvideos/.c.mp4\nvideos/a.mp4\nvideos/none.mp4\n")
    found = preview(folder, [table])
    assert (found.new, list(found.missing)) == (
        [str(hidden), str(videos["a"])],
        [str(tmp_path / "videos" / "none.mp4")],
    )
    assert scan(folder, [table, videos["b"]]).given == {table, videos["b"]}
    table.write_text("path\nvideos/none.mp4\n")
    with pytest.raises(UsageError, match=r"none\.mp4"):
        preview(folder, [table])


def test_a_file_beside_videos_that_only_looks_like_a_table(tmp_path, videos, folder):
    """A shell may give it: vop index library holidays/*."""
    (tmp_path / "videos" / "gps.csv").write_text("lat,lon\n1,2\n")
    with pytest.raises(DataError, match="lat, lon"):
        preview(folder, [tmp_path / "videos" / "gps.csv"])
    found = preview(folder, sorted((tmp_path / "videos").iterdir()))
    assert len(found.new) == 4
    assert "lat, lon" in found.missing[str(tmp_path / "videos" / "gps.csv")]


def test_objects_of_a_table_are_not_listed(object_server, videos, folder, tmp_path, monkeypatch):
    object_server.make_bucket()
    for name in "ab":
        object_server.put(f"s3://films/2024/{name}.mp4", videos[name])
    table = tmp_path / "a.csv"
    table.write_text("path\ns3://films/2024/a.mp4\ns3://films/2024/b.mp4\n")
    monkeypatch.setattr("vop.search.sync.object_finder.list_objects", lambda address: pytest.fail(f"{address}"))
    found = scan(folder, [table], exclude=["b*"])
    assert [str(file.path) for file in found.files] == ["s3://films/2024/a.mp4"]
    assert found.found.left_out == {Address("s3", "films", "2024/b.mp4")}


@pytest.mark.slow
def test_a_library_of_a_table_in_shards(videos, folder, tmp_path, tiny_folder, capsys):
    pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
    table = tmp_path / "a.csv"
    table.write_text("path,duration\n" + "".join(f"videos/{name}.mp4,4\n" for name in "abc"))
    small = ["--model", tiny_folder, "--num-frames", 2, "--precision", "fp32", "--workers", 1, "--json"]
    words = list(map(str, ["index", folder, table, *small]))
    assert main([*words, "--shard", "1/1"]) == 0
    assert main(["library", "publish", str(folder)]) == 0
    capsys.readouterr()
    assert len(Store.open(folder).videos()) == 3

    table.write_text("path\nvideos/b.mp4\nvideos/c.mp4\n")  # a is not deleted: the table does not name it any more
    videos["b"].unlink()
    assert main([*words, "--prune"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unchanged"], report["removed"]) == (1, 1)
    assert Store.open(folder).videos().keys() == {str(videos["a"]), str(videos["c"])}


def test_shards_are_cut_by_durations():
    """Files of about the same size, of which a few are ten times as long."""
    files = [
        PlannedFile(**{**vars(file), "seconds": 1000.0 if place < 4 else 100.0})
        for place, file in enumerate(planned(*range(1000, 1040)))
    ]
    shards = cut(files, parts=4, content_id=str)
    assert [sum(file.seconds == 1000.0 for file in shard) for shard in shards] == [1, 1, 1, 1]
    seconds = sorted(sum(file.seconds for file in shard) for shard in shards)
    assert seconds[-1] - seconds[0] <= 200
    long = [PlannedFile(**{**vars(file), "seconds": 6 * 3600.0}) for file in planned(*range(10, 20))]
    assert len(cut(long, parts=1, content_id=str)) == 6  # 60 hours, at most 10 in each
    some = [*planned(2000, 2001), files[0], files[5]]
    assert [len(shard) for shard in cut(some, parts=4, content_id=str)] == [1, 1, 1, 1]
