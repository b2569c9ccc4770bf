"""Metadata in CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.libraries import SIZE, a_file, make_library
from vop.errors import DataError, UsageError
from vop.search.filters import Filters
from vop.search.sync.metadata import read_metadata


def read(folder: Path, text: str | bytes, *, name: str = "table.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_metadata(path)


def test_videos_match_by_path_or_by_name(tmp_path):
    table = read(tmp_path, "path,author\n/v/a.mp4,ann\nsub/b.mp4,bob\n../c.mp4,cid\n./d.mp4,dora\ne.mp4,eve\n")
    assert table.columns == ("author",)
    known = {"/v/a.mp4": "ann", tmp_path / "sub/b.mp4": "bob", tmp_path.parent / "c.mp4": "cid"}
    known |= {tmp_path / "d.mp4": "dora", tmp_path / "e.mp4": "eve", "/anywhere/at/all/e.mp4": "eve"}
    for path, author in known.items():
        assert table.of(Path(path)) == {"author": author}, path
    for path in ("/w/a.mp4", "/v/b.mp4", "/v/sub/b.mp4", "/v/d.mp4", "/v/E.mp4"):
        assert table.of(Path(path)) == {}, path


def test_a_matching_path_overrides_a_matching_name(tmp_path):
    table = read(tmp_path, "path,author\na.mp4,any\n/v/a.mp4,this\n")
    assert table.of(Path("/v/a.mp4")) == {"author": "this"}
    assert table.of(Path("/w/a.mp4")) == {"author": "any"}


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="directory; give a CSV file"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("head", ["Video,author,title", "author, FILE ,title", "author,title,video_path"])
def test_the_video_column_is_detected(tmp_path, head):
    names = [name.strip() for name in head.split(",")]
    values = {"author": "bob", "title": "dogs"}
    table = read(tmp_path, f"{head}\n{','.join(values.get(name, 'a.mp4') for name in names)}\n")
    assert table.of(Path("/v/a.mp4")) == values


def test_a_column_path_overrides_a_column_name(tmp_path):
    table = read(tmp_path, "name,path\nDogs,a.mp4\n")
    assert table.of(Path("/v/a.mp4")) == {"name": "Dogs"}


def test_quotes_spaces_and_a_byte_order_mark_are_read(tmp_path):
    text = '\ufeffpath, author ,"two words"\r\n"a, ""b"".mp4", "bob","new\nline 😀"\r\n\r\nc.mp4,, x \r\n'
    table = read(tmp_path, text)
    assert table.columns == ("author", "two words")
    assert table.of(Path('/v/a, "b".mp4')) == {"author": "bob", "two words": "new\nline 😀"}
    assert table.of(Path("/v/c.mp4")) == {"author": "", "two words": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv: no column names the video; expected one of path, video.* \[\]"),
        ("title,author\nx,y\n", r"no column names the video.* \['title', 'author'\]"),
        ("path\na.mp4\n", "the only column is 'path'"),
        ("path,author,author\na.mp4,x,y\n", "'author' is not allowed as a column.*unique"),
        ("path,author, author\na.mp4,x,y\n", "'author' is not allowed as a column"),
        ("path,path,author\na.mp4,b.mp4,y\n", "'path' is not allowed as a column"),
        ("path,author,\na.mp4,x,\n", "'' is not allowed as a column"),
        ("path,a`b\na.mp4,x\n", "'a`b' is not allowed as a column"),
        ("path,e.mail\na.mp4,x\n", r"'e\.mail' is not allowed as a column"),
        ("path,author\na.mp4,x\nb.mp4\n", "line 3: 1 value .*2"),
        ("path,author\na.mp4,x,y\n", "line 2: 3 values .*2"),
        ('path,author\na.mp4,"two\nlines"\n\nb.mp4,x,y\n', "line 5: 3 values .*2"),
        ("path,author\na.mp4,x\n ,y\n", "line 3: the video"),
        ('path,author\na.mp4,x\nb.mp4,"y" z\n', "line 3: not CSV"),
        ('path,author\na.mp4,"x\n', "line 2: not CSV"),
        ("path,author\na.mp4," + 200_000 * "x", "line 2: not CSV"),
        (b"path,author\na.mp4,caf\xe9\n", r"not a CSV file in UTF-8 \(.*0xe9"),
        (b"\x00\x00\x00\x20ftypisom\xff\xfe\x00", r"table\.csv: not a CSV file in UTF-8"),
        (b"\x00\x01\x02", r"no column names the video.*\\x00\\x01\\x02"),
    ],
)
def test_invalid_tables_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.csv does not exist"):
        read_metadata(tmp_path / "gone.csv")


def test_a_table_may_have_no_videos(tmp_path):
    table = read(tmp_path, "path,author\n")
    assert (table.columns, table.of(Path("/v/a.mp4"))) == (("author",), {})


@pytest.mark.parametrize(
    "name", ["two words", 'it\'s "odd" %_ü😀', "Author", "a-b/c\\d", "select", "x=y", ">=", "a>b {1}"]
)
def test_allowed_column_names_can_be_stored_and_filtered(tmp_path, name):
    """A name is used in SQL and in the schema of the database."""
    quoted = name.replace('"', '""')
    table = read(tmp_path, f'path,"{quoted}",author\na.mp4,x,y\n')
    files = [a_file("/v/a.mp4", metadata=table.of(Path("/v/a.mp4"))), a_file("/v/b.mp4")]
    library = make_library(tmp_path / "library", files, columns=table.columns)
    assert library.columns == [name, "author"]
    (moment,) = library.search(np.eye(SIZE, dtype=np.float32)[0], filters=Filters(where=[f"{name}=x"]))
    assert moment.columns == {name: "x", "author": "y"}
    (row,) = library.rows_of([moment.video]).to_pylist()
    assert row[f"about_{name}"] == "x"
