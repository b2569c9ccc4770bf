from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from vop.datasets import load, rows
from vop.datasets.readers import READERS, reader
from vop.datasets.videofolder import VideoFolder
from vop.errors import DataError, UsageError

ROWS = [("a.mp4", "a dog runs"), ("b.mp4", "a cat sleeps"), ("a.mp4", "the dog, it barks")]


def write_table(path: Path, rows=ROWS, *, columns=("video", "caption")) -> Path:
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    if path.suffix in (".csv", ".tsv"):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([columns, *rows])
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


def pairs(split) -> list[tuple[str, str]]:
    return [(split.videos[t].id, caption) for t, caption in zip(split.targets, split.captions, strict=True)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_rows_with_the_same_video_are_its_captions(tmp_path, suffix):
    dataset = load(str(write_table(tmp_path / f"mine{suffix}")))
    assert dataset.name == "mine"
    assert list(dataset.splits) == ["train"]
    train = dataset.split("train")
    assert [video.id for video in train.videos] == ["a.mp4", "b.mp4"]
    assert [video.path for video in train.videos] == [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert pairs(train) == ROWS


@pytest.mark.parametrize("columns", [("Video Path", "Text"), ("file_name", "sentence"), ("video_id", "CAPTION")])
def test_usual_column_names_are_detected(tmp_path, columns):
    path = write_table(tmp_path / "mine.csv", [(1, *row) for row in ROWS], columns=("", *columns))
    assert pairs(load(str(path)).split("train")) == ROWS


def test_named_columns_win_over_detected_ones(tmp_path):
    path = write_table(
        tmp_path / "mine.csv", [("x.mp4", "wrong", *row) for row in ROWS], columns=("video", "text", "v", "c")
    )
    assert pairs(load(str(path), video_column="v", caption_column="c").split("train")) == ROWS


def test_columns_that_may_hold_captions_too_are_noted(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("video,title,Captions\na.mp4,one,two\nb.mp4,three,four\n")
    dataset = load(str(path))
    assert dataset.split("train").captions == ("two", "four")
    assert dataset.notes == ("captions are read from the column 'Captions', not 'title'; --caption-column chooses",)
    assert load(str(path), caption_column="title").notes == ()


def test_errors_for_columns_name_the_existing_ones(tmp_path):
    path = write_table(tmp_path / "mine.csv", columns=("vidoe", "capture"))
    with pytest.raises(DataError, match=r"mine\.csv: no column looks like the video; found: vidoe, capture"):
        load(str(path))
    with pytest.raises(DataError, match="no column looks like the caption; found: vidoe, capture"):
        load(str(path), video_column="vidoe")
    with pytest.raises(UsageError, match="unknown video column 'video': did you mean vidoe.*known: vidoe, capture"):
        load(str(path), video_column="video")


def test_empty_captions_are_left_out_and_counted(tmp_path):
    rows = [*ROWS, ("b.mp4", ""), ("c.mp4", "   ")]
    dataset = load(str(write_table(tmp_path / "mine.csv", rows)))
    assert pairs(dataset.split("train")) == ROWS
    assert dataset.notes == (
        "2 empty captions left out of train, first mine.csv: line 5",
        "1 video of train without captions left out, for example c.mp4",
    )


def test_a_table_with_only_empty_captions_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"mine\.csv: no row has a caption"):
        load(str(write_table(tmp_path / "mine.csv", [("a.mp4", "")])))


def test_a_row_without_a_video_is_refused(tmp_path):
    with pytest.raises(DataError, match="line 3: no video in the column 'video'"):
        load(str(write_table(tmp_path / "mine.csv", [ROWS[0], ("", "lost")])))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_that_is_not_utf8_is_refused(tmp_path, suffix):
    path = write_table(tmp_path / f"mine{suffix}", [*ROWS, ("c.mp4", "PLACE")])
    path.write_bytes(path.read_bytes().replace(b"PLACE", "caf\u00e9".encode("latin-1")))
    line = 5 if suffix == ".csv" else 4
    with pytest.raises(DataError, match=rf"mine{suffix}: line {line}: byte 0xe9 \(at \d+\) is not UTF-8"):
        load(str(path))


def test_csv_with_byte_order_mark_semicolons_and_line_breaks(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes('\ufeffvideo;caption\r\na.mp4;"one\r\ntwo; three"\r\n'.encode())
    assert pairs(load(str(path)).split("train")) == [("a.mp4", "one two; three")]


def test_an_unquoted_comma_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("video,caption\na.mp4,one, two\n")
    with pytest.raises(DataError, match="line 2: more values than columns"):
        load(str(path))


def test_the_error_for_broken_jsonl_names_the_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"video": "a.mp4", "caption": "x"}\n{"video": \n')
    with pytest.raises(DataError, match=r"mine\.jsonl: line 2: this is not JSON"):
        load(str(path))
    path.write_text('["a.mp4", "x"]\n')
    with pytest.raises(DataError, match="line 1: expected an object"):
        load(str(path))


FIELD_CASE = [("v/a.mp4", "x"), ("v/a.mp4", "y"), ("v/b.mp4", "z")]


def written(tmp_path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", '[{"video": "v/a.mp4", "caption": ["x", "y"]}, {"video": "v/b.mp4", "caption": "z"}]'),
        ("bom.json", '\ufeff[{"video": "v/a.mp4", "caption": ["x", "y"]}, {"video": "v/b.mp4", "caption": "z"}]'),
        (
            "wrapped.json",
            '{"info": {"year": 2016}, "videos": [{"path": "v/a.mp4", "captions": ["x", "y"]}, '
            '{"path": "v/b.mp4", "captions": ["z"]}]}',
        ),
        ("by-video.json", '{"v/a.mp4": ["x", "y"], "v/b.mp4": "z"}'),
        ("columns.json", '{"video": ["v/a.mp4", "v/a.mp4", "v/b.mp4"], "caption": ["x", "y", "z"]}'),
        (
            "to_json.json",
            '{"video": {"0": "v/a.mp4", "1": "v/b.mp4"}, "caption": {"0": ["x", "y"], "1": "z"}, '
            '"length": {"0": 1, "1": null}}',
        ),
        ("by-index.json", '{"7": {"video": "v/a.mp4", "text": ["x", "y"]}, "8": {"video": "v/b.mp4", "text": "z"}}'),
        ("facts.json", '{"v/a.mp4": {"captions": ["x", "y"], "length": 3}, "v/b.mp4": {"captions": ["z"]}}'),
        ("lines.json", '{"video": "v/a.mp4", "caption": ["x", "y"]}\n{"video": "v/b.mp4", "caption": "z"}\n'),
        ("python.csv", """video,caption\nv/a.mp4,"['x', 'y']"\nv/b.mp4,"['z']"\n"""),
        (
            "python.jsonl",
            """{"video": "v/a.mp4", "caption": "['x', 'y']"}\n{"video": "v/b.mp4", "caption": "('z',)"}""",
        ),
        ("json.csv", 'video,caption\nv/a.mp4,"[""x"", ""y""]"\nv/b.mp4,"[""z""]"\n'),
        ("semicolon.csv", "video;caption\nv/a.mp4;x\nv/a.mp4;y\nv/b.mp4;z\n"),
        ("commas in names.csv", "video;caption, in English, by hand;caption\nv/a.mp4;-;x\nv/a.mp4;-;y\nv/b.mp4;-;z\n"),
        ("spaces.csv", 'video, caption\nv/a.mp4, x\nv/a.mp4, "y"\nv/b.mp4, z\n'),
        ("tab.csv", "video\tcaption\nv/a.mp4\tx\nv/a.mp4\ty\nv/b.mp4\tz\n"),
        ("comma.tsv", "video,caption\nv/a.mp4,x\nv/a.mp4,y\nv/b.mp4,z\n"),
        ("bar.csv", "video|caption\nv/a.mp4|x\nv/a.mp4|y\nv/b.mp4|z\n"),
        ("sep.csv", "sep=;\r\nvideo;caption\r\nv/a.mp4;x\r\nv/a.mp4;y\r\nv/b.mp4;z\r\n"),
        ("blank.csv", "\n\nvideo,caption,,\nv/a.mp4,x,,\n\nv/a.mp4,y,,\nv/b.mp4,z,,\n"),
        ("utf16.csv", "video\tcaption\r\nv/a.mp4\tx\r\nv/a.mp4\ty\r\nv/b.mp4\tz\r\n".encode("utf-16")),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 24 else "",
)
def test_many_formats_give_the_same_table(tmp_path, name, content):
    """Three captions of two videos, as people and programs write them."""
    assert pairs(load(written(tmp_path, name, content)).split("train")) == FIELD_CASE


def test_lists_written_by_pandas_are_read(tmp_path):
    captions = ["a rose, it's red", 'he says "no"', "tab\there"]
    cell = str(captions).replace('"', '""')
    path = written(
        tmp_path, "pandas.csv", f'video,caption\na.mp4,"{cell}"\nb.mp4,"[]"\nc.mp4,[Music]\nd.mp4,("hi") he says\n'
    )
    expected = ["a rose, it's red", 'he says "no"', "tab here", "[Music]", '("hi") he says']
    assert list(load(path).split("train").captions) == [text.replace('""', '"') for text in expected]


@pytest.mark.parametrize("cell", ["{'one', \"it's two\"}", "frozenset({'one', \"it's two\"})"])
def test_sets_written_by_python_are_read_in_their_order(tmp_path, cell):
    path = write_table(tmp_path / "mine.csv", [("a.mp4", cell), ("b.mp4", "{one} or {two}")])
    assert list(load(str(path)).split("train").captions) == ["one", "it's two", "{one} or {two}"]


def test_whole_numbers_that_pandas_wrote_as_floats_are_names(tmp_path):
    path = write_table(tmp_path / "mine.csv", [("7.0", "one"), ("8.0", "two")])
    for name in ("7.mp4", "8.0.mp4", "8.mp4"):
        (tmp_path / name).touch()
    found = [video.path.name for video in load(str(path)).split("train").videos]
    assert found == ["7.mp4", "8.0.mp4"]


def test_spellings_of_a_path_are_one_video(tmp_path):
    path = write_table(tmp_path / "mine.csv", [("v/a.mp4", "one"), ("./v/a.mp4", "two"), ("v//a.mp4", "three")])
    (video,) = load(str(path)).split("train").videos
    assert (video.id, video.path) == ("v/a.mp4", tmp_path / "v" / "a.mp4")


@pytest.mark.parametrize(
    "cell",
    [
        "['a rose' 'a flower']",
        "['a rose'\n 'a flower']",
        "['a', nan]",
        "['a', 'b'",
        "array(['a'], dtype=object)",
        "[b'a']",
        "[['a', 'b']]",
        '[["a"], ["b"]]',
        "[('a', 'b')]",
        "[{'caption': 'a'}]",
        '[{"caption": "a"}]',
        "{'caption': 'a'}",
        "{'a', nan}",
        "frozenset({'a', 1})",
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_ambiguous_lists_of_captions_are_refused(tmp_path, cell, suffix):
    path = write_table(tmp_path / f"mine.{suffix}", [("a.mp4", "one"), ("b.mp4", cell)])
    with pytest.raises(DataError, match=r"(line|row) \d: the column 'caption' holds .*looks like a list.*as JSON"):
        load(str(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("[]", "the table is empty"),
        ("12", "this JSON is not a table; a table is a list of objects"),
        ('{"video": ["a"], "caption": ["x", "y"]}', "this JSON is not a table"),
        ('{"video": {"0": "a"}, "caption": {"1": "x"}}', "this JSON is not a table"),
        ('{"a": [{"video": "x"}], "b": [{"video": "y"}]}', "this JSON is not a table"),
        ('[{"video": "a", "caption": "x"}, "b"]', "entry 2: expected an object with named values, found 'b'"),
        ('[{"video": "a", "caption": "x"}, {"caption": "x"}]', "entry 2: no video in the column 'video'"),
        ('[{"video": "a", "caption": [["x"]]}]', r"entry 1: the caption is \['x'\] \(column 'caption'\)"),
        ('[{"video": "a", "video": "b", "caption": "x"}]', "the key 'video' 2 times"),
        ('[{"video": "a", "caption": "\\ud83d"}]', "entry 1: the caption .*is not valid Unicode"),
        ('[{"video": "a",\n "caption": }]', "line 2: this is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"video": ' + "1" * 5000 + ', "caption": "x"}]', "4300 digits"),
    ],
)
def test_json_that_is_not_a_table_is_refused(tmp_path, content, says):
    with pytest.raises(DataError, match=rf"mine\.json: .*{says}"):
        load(written(tmp_path, "mine.json", content))


@pytest.mark.parametrize("name", ["a\0b.mp4", "a man cuts an onion, " * 20, "x/" * 3000 + "a.mp4"])
def test_impossible_file_names_are_refused(tmp_path, name):
    path = write_table(tmp_path / "mine.jsonl", [("a.mp4", "x"), (name, "y")])
    with pytest.raises(DataError, match="line 2: the column 'video' holds .*, which cannot be a file name") as caught:
        load(str(path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("video,caption,caption\na,x,y\n", r"line 1: the header has the column 'caption' \(2 times\)"),
        ('video,caption\na,"x\nb,y\n', "line 3: unexpected end of data"),
        ("video,caption\nnan,x\n", "line 2: no video in the column 'video'"),
        ("v\0i\0d\0", "line 1 holds a zero byte"),
    ],
)
def test_unreadable_csv_is_refused(tmp_path, content, says):
    with pytest.raises(DataError, match=rf"mine\.csv: {says}"):
        load(written(tmp_path, "mine.csv", content))


def test_json_files_are_used_only_without_other_tables(tmp_path):
    write_table(tmp_path / "clips.csv")
    written(tmp_path, "dataset_infos.json", "{}")
    assert pairs(load(str(tmp_path)).split("train")) == ROWS
    written(tmp_path, "train.json", '{"a.mp4": "one"}')
    written(tmp_path, "test.json", '{"b.mp4": "two"}')
    assert {name: pairs(split) for name, split in load(str(tmp_path)).splits.items()} == {
        "train": [("a.mp4", "one")],
        "test": [("b.mp4", "two")],
    }


def parquet(path: Path, **columns) -> str:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def test_parquet_with_numbers_and_missing_values(tmp_path):
    """Whole numbers are names. pandas stores them as floats if one is missing."""
    captions = [["x", None], ["y"], None]
    path = parquet(tmp_path / "ids.parquet", id=[7, 12, 13], caption=captions, clip_bytes=[b"", b"", b""])
    assert pairs(load(path).split("train")) == [("7", "x"), ("12", "y")]
    assert load(path).notes[0] == "2 empty captions left out of train, first ids.parquet: row 0"
    path = parquet(tmp_path / "floats.parquet", id=[7.0, 12.0], caption=["x", "y"])
    assert pairs(load(path).split("train")) == [("7", "x"), ("12", "y")]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"id": [7.5], "caption": ["x"]}, "row 0: the column 'id' holds 7.5, a float; a video is a path"),
        ({"id": [7.0, float("nan")], "caption": ["x", "y"]}, "row 1: no video in the column 'id'"),
        ({"id": [True], "caption": ["x"]}, "row 0: the column 'id' holds True, a bool"),
        ({"video": [b"\x00"], "caption": ["x"]}, "row 0: the column 'video' holds .*, a bytes"),
        ({"video": ["a"], "caption": [1.5]}, r"row 0: the caption is 1\.5 \(column 'caption'\), which is not text"),
        ({"video": ["a"], "caption": [None]}, "no row has a caption"),
    ],
)
def test_other_parquet_values_are_refused(tmp_path, columns, says):
    with pytest.raises(DataError, match=says):
        load(parquet(tmp_path / "mine.parquet", **columns))


def test_a_repeated_parquet_column_is_refused(tmp_path):
    table = pyarrow.table([["a"], ["x"], ["y"]], names=["video", "caption", "caption"])
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    with pytest.raises(DataError, match="the header has the column 'caption'"):
        load(str(tmp_path / "mine.parquet"))


def test_too_many_parquet_rows_are_refused(tmp_path, monkeypatch):
    """A few bytes can encode any number of equal rows."""
    monkeypatch.setattr(rows, "MAX_ROWS", 1000)
    path = parquet(tmp_path / "mine.parquet", video=["a"] * 1001, caption=["x"] * 1001)
    with pytest.raises(DataError, match=r"1,001 rows .* 1,000 rows"):
        load(path)


def test_parquet_is_not_read_through_a_python_buffer(tmp_path, monkeypatch):
    """Arrow's threads may still hold the buffer when Python exits, which aborts the process."""
    opened = []
    real = pyarrow.parquet.ParquetFile
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", lambda source: opened.append(source) or real(source))
    load(str(write_table(tmp_path / "mine.parquet")))
    assert opened
    assert {type(source) for source in opened} == {str}


@pytest.mark.parametrize("name", ["mine.csv", "mine.json", "mine.jsonl", "mine.parquet"])
def test_pipes_and_devices_are_refused_without_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="this is a pipe, not a file"):
        load(str(tmp_path / name))
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="this is a device, not a file"):
        load(str(tmp_path / name))


def test_captions_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"video": "a.mp4", "caption": 12}\n')
    with pytest.raises(DataError, match="line 1: the caption is 12"):
        load(str(path))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_row_may_have_a_list_of_captions(tmp_path, suffix):
    rows = [("a.mp4", ["one", "two"]), ("b.mp4", ["three"])]
    dataset = load(str(write_table(tmp_path / f"mine{suffix}", rows)))
    assert pairs(dataset.split("train")) == [("a.mp4", "one"), ("a.mp4", "two"), ("b.mp4", "three")]


@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl", "mine.parquet"])
def test_empty_and_broken_files_are_refused(tmp_path, name):
    path = tmp_path / name
    path.touch()
    with pytest.raises(DataError, match=name):
        load(str(path))
    path.write_bytes(b"\x00\x01PAR1 nonsense")
    with pytest.raises(DataError, match=name):
        load(str(path))


def test_a_split_column_divides_the_table(tmp_path):
    rows = [("a.mp4", "one", "train"), ("b.mp4", "two", "validation"), ("c.mp4", "three", "Test")]
    dataset = load(str(write_table(tmp_path / "mine.csv", rows, columns=("video", "caption", "split"))))
    assert {name: pairs(split)[0][1] for name, split in dataset.splits.items()} == {
        "train": "one",
        "val": "two",
        "test": "three",
    }
    path = write_table(tmp_path / "odd.csv", [("a.mp4", "one", "7")], columns=("video", "caption", "split"))
    with pytest.raises(DataError, match="line 2: the split is '7'; known: train"):
        load(str(path))


def test_a_folder_with_a_table_for_each_split(tmp_path):
    write_table(tmp_path / "train.csv")
    write_table(tmp_path / "test.jsonl", [("b.mp4", "seen"), ("d.mp4", "new")])
    dataset = load(str(tmp_path))
    assert len(dataset.split("train")) == 3
    assert len(dataset.split("test")) == 2
    assert dataset.notes == ("1 video is in both train and test, for example b.mp4",)


def test_a_folder_of_tables_without_split_names_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no table .*\.csv"):
        load(str(tmp_path))
    write_table(tmp_path / "one.csv")
    assert len(load(str(tmp_path)).split("train")) == 3
    write_table(tmp_path / "two.csv")
    with pytest.raises(DataError, match=r"several tables \(one\.csv, two\.csv\)"):
        load(str(tmp_path))


def test_the_name_of_a_single_file_gives_its_split(tmp_path):
    assert list(load(str(write_table(tmp_path / "test.csv"))).splits) == ["test"]


def test_videos_are_found_by_id_in_another_folder(tmp_path):
    videos = tmp_path / "videos"
    for name in ("x/a.webm", "b.MP4", "x/y/c.d.mkv", "a.txt"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).touch()
    rows = [("a", "1"), ("b", "2"), ("c.d", "3"), ("missing", "4"), ("x/a.webm", "5"), ("a.mp4", "6"), ("q/b.MP4", "7")]
    dataset = load(str(write_table(tmp_path / "mine.csv", rows)), videos=videos)
    found = [str(video.path.relative_to(videos)) for video in dataset.split("train").videos]
    assert found == ["x/a.webm", "b.MP4", "x/y/c.d.mkv", "missing.mp4", "x/a.webm", "x/a.webm", "q/b.MP4"]


def test_the_nearest_of_several_files_is_found(tmp_path):
    for name in ("z/a.mp4", "b/c/a.mp4", "y/a.avi", "y/a.mkv", "d/notes", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = VideoFolder(tmp_path)
    assert folder.find("a.mp4") == tmp_path / "z" / "a.mp4"
    assert folder.find("a") == tmp_path / "y" / "a.avi"
    assert folder.find("notes") == tmp_path / "notes.mp4"  # a file without a video's extension is not a video
    assert folder.nearest("notes") == str(tmp_path / "d" / "notes")
    (tmp_path / "notes").touch()
    assert VideoFolder(tmp_path).find("notes") == tmp_path / "notes"  # unless its path is the id


@pytest.fixture
def counted(monkeypatch) -> Counter:
    """Count the calls that list folders and look for files."""
    calls: Counter = Counter()

    def counting(name):
        real = getattr(os, name)

        def count(*arguments, **options):
            calls[name] += 1
            return real(*arguments, **options)

        return count

    for name in ("scandir", "stat"):
        monkeypatch.setattr(os, name, counting(name))
    return calls


def test_milliseconds_in_an_id_are_not_a_suffix(tmp_path):
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "film_00.01.000-00.54.360.avi").touch()
    folder = VideoFolder(tmp_path)
    assert folder.find("film_00.01.000-00.54.360") == tmp_path / "film" / "film_00.01.000-00.54.360.avi"
    assert folder.find("film_00.01.000-00.55.360") == tmp_path / "film_00.01.000-00.55.360.mp4"


def test_a_folder_of_many_videos_is_walked_once(tmp_path, counted):
    for film in range(10):
        (tmp_path / f"film{film}").mkdir()
        for clip in range(20):
            (tmp_path / f"film{film}" / f"film{film}_00.{clip:02d}.000-00.{clip:02d}.900.avi").touch()
    counted.clear()
    folder = VideoFolder(tmp_path)
    ids = [f"film{film}_00.{clip:02d}.000-00.{clip:02d}.900" for film in range(10) for clip in range(20)]
    found = [folder.find(video_id) for video_id in ids]
    missing = [folder.find(f"{video_id}x") for video_id in ids]
    assert counted["scandir"] == 11
    assert counted["stat"] == 12  # the first id before the walk, then each folder
    assert [path.parent.name for path in found] == [video_id.partition("_")[0] for video_id in ids]
    assert all(path.is_file() for path in found)
    assert missing == [tmp_path / f"{video_id}x.mp4" for video_id in ids]


def test_ids_that_are_paths_need_no_walk(tmp_path, counted):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    write_table(tmp_path / "mine.csv")
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    counted.clear()
    load(str(tmp_path / "mine.csv"))
    assert counted["scandir"] == 0


def test_links_are_followed_without_cycles(tmp_path, counted):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").touch()
    root = tmp_path / "data"
    (root / "x").mkdir(parents=True)
    (root / "x" / "back").symlink_to(root, target_is_directory=True)
    (root / "x" / "videos").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    counted.clear()
    assert VideoFolder(root).find("a") == root / "x" / "videos" / "a.mp4"
    assert counted["scandir"] <= 4


def test_datasets_of_the_hub_are_read(tmp_path, monkeypatch):
    write_table(tmp_path / "train.csv")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, repo_type: str(tmp_path))
    dataset = load("hf:someone/clips")
    assert dataset.name == "someone/clips"
    assert len(dataset.split("train")) == 3


def test_the_hub_needs_a_network(monkeypatch):
    def fail(name, repo_type):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(DataError, match="hf:someone/clips: .*no route to host.*give the path of a local copy"):
        load("hf:someone/clips")


def write_msrvtt(root: Path, *, listing="MSRVTT_train.9k.csv") -> Path:
    root.mkdir(parents=True)
    (root / listing).write_text("video_id\nvideo0\nvideo7\nvideo10\n")
    (root / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\n"
        "ret0,msr9770,video9770,a person is connecting something to system\n"
        'ret1,msr9771,video9771,"a girl, a boy"\n'
    )
    sentences = [
        {"caption": f"{word} of {video}", "video_id": video, "sen_id": 1}
        for word in ("first", "second")
        for video in ("video10", "video0", "video9770", "video7")
    ]
    videos = [{"video_id": video, "split": "train"} for video in ("video0", "video7", "video10", "video9770")]
    (root / "MSRVTT_data.json").write_text(json.dumps({"sentences": sentences, "videos": videos}))
    return root


@pytest.mark.parametrize(("name", "listing"), [("msrvtt-9k", "9k"), ("msrvtt-7k", "7k")])
def test_msrvtt_is_read(tmp_path, name, listing):
    write_msrvtt(tmp_path / "msrvtt_data", listing=f"MSRVTT_train.{listing}.csv")
    (tmp_path / "videos" / "all").mkdir(parents=True)
    (tmp_path / "videos" / "all" / "video7.avi").touch()
    dataset = load(f"{name}:{tmp_path}")
    train, test = dataset.split("train"), dataset.split("test")
    assert [video.id for video in train.videos] == ["video0", "video7", "video10"]
    assert sorted(pairs(train)) == sorted(
        (video, f"{word} of {video}") for video in ("video0", "video7", "video10") for word in ("first", "second")
    )
    assert pairs(test) == [
        ("video9770", "a person is connecting something to system"),
        ("video9771", "a girl, a boy"),
    ]
    assert train.videos[1].path == tmp_path / "videos" / "all" / "video7.avi"
    assert train.videos[0].path == tmp_path / "video0.mp4"
    assert dataset.notes == ()


def write_official(root: Path) -> Path:
    """Write MSR-VTT as the challenge published it: two files with captions and the split of every video."""
    root = write_msrvtt(root)
    data = json.loads((root / "MSRVTT_data.json").read_text())
    (root / "MSRVTT_data.json").unlink()
    splits = {"video0": "train", "video7": "validate", "video10": "test", "video9770": "test"}
    for file, held in (("train_val", ("train", "validate")), ("test", ("test",))):
        videos = [
            {"category": 9, "url": "https://a.example/x", "video_id": name, "start time": 1.5, "split": split, "id": n}
            for n, (name, split) in enumerate(splits.items())
            if split in held
        ]
        sentences = [row for row in data["sentences"] if splits[row["video_id"]] in held]
        content = {"info": {"year": "2016", "version": "1.0"}, "videos": videos, "sentences": sentences}
        (root / f"{file}_videodatainfo.json").write_text(json.dumps(content))
    return root


def test_msrvtt_is_read_from_the_challenges_files(tmp_path):
    root = write_official(tmp_path / "data")
    usual = load(f"msrvtt-9k:{write_msrvtt(tmp_path / 'usual')}")
    dataset = load(f"msrvtt-9k:{root}")
    assert sorted(pairs(dataset.split("train"))) == sorted(pairs(usual.split("train")))
    assert pairs(dataset.split("test")) == pairs(usual.split("test"))
    assert dataset.notes == ()
    (root / "test_videodatainfo.json").unlink()
    assert load(f"msrvtt-9k:{root}").notes == (
        "1 of 3 training videos have no captions in train_val_videodatainfo.json",
    )


def test_msrvtt_without_a_list_from_the_challenges_files(tmp_path):
    root = write_official(tmp_path / "data")
    (root / "MSRVTT_train.9k.csv").unlink()
    dataset = load(f"msrvtt-9k:{root}")
    assert {video.id for video in dataset.split("train").videos} == {"video0", "video7", "video10"}
    assert "no MSRVTT_train.9k.csv: all videos of train_val_videodatainfo.json and test_" in dataset.notes[0]
    assert {video.id for video in load(f"msrvtt-7k:{root}").split("train").videos} == {"video0", "video7"}
    (root / "test_videodatainfo.json").unlink()
    with pytest.raises(DataError, match=r"no MSRVTT_train\.9k\.csv .*needs test_videodatainfo\.json too"):
        load(f"msrvtt-9k:{root}")


def test_a_file_of_the_msrvtt_challenge_is_read_as_a_table(tmp_path):
    root = write_official(tmp_path / "data")
    dataset = load(str(root / "train_val_videodatainfo.json"), videos=tmp_path)
    assert {name: pairs(split) for name, split in dataset.splits.items()} == {
        "train": [("video0", "first of video0"), ("video0", "second of video0")],
        "val": [("video7", "first of video7"), ("video7", "second of video7")],
    }
    assert list(load(str(root / "test_videodatainfo.json")).splits) == ["test"]


def test_msrvtt_notes_left_out_captions_and_videos(tmp_path):
    root = write_msrvtt(tmp_path / "data")
    data = json.loads((root / "MSRVTT_data.json").read_text())
    data["sentences"] = [row for row in data["sentences"] if row["video_id"] != "video7"]
    data["sentences"][0]["caption"] = " "
    (root / "MSRVTT_data.json").write_text(json.dumps(data))
    dataset = load(f"msrvtt-9k:{root}")
    assert [video.id for video in dataset.split("train").videos] == ["video0", "video10"]
    assert dataset.notes == (
        "1 empty caption left out of train",
        "1 of 3 training videos have no captions in MSRVTT_data.json",
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("MSRVTT_data.json", None, "no MSRVTT_data.json in this folder or below"),
        ("MSRVTT_data.json", "[]", "expected the key 'sentences'"),
        ("MSRVTT_data.json", '{"sentences": [{"video": 1}]}', "expected the key 'sentences'"),
        ("MSRVTT_data.json", '{"sentences": \n[', "line 2: this is not JSON"),
        ("MSRVTT_train.9k.csv", "id\nvideo0\n", "no column 'video_id'; found: id"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,text\nvideo1,a\n", "no column 'sentence'; found: video_id, text"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\nvideo1,\n", "line 2: a value is missing"),
        (
            "MSRVTT_JSFUSION_test.csv",
            "video_id,sentence\nv1,a\nv1,b\n",
            "line 3: 'v1' is listed twice, first at line 2",
        ),
        ("MSRVTT_data.json", '{"sentences": [{"video_id": "v1", "caption": 4}]}', "sentence 1: expected a text, got 4"),
    ],
)
def test_msrvtt_files_in_other_formats_are_refused(tmp_path, name, content, message):
    root = write_msrvtt(tmp_path / "data")
    (root / name).unlink()
    if content is not None:
        (root / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load(f"msrvtt-9k:{root}")


def test_unknown_specs_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"clips\.xlsx: .*\.csv, \.tsv, \.json, \.jsonl or \.parquet"):
        load(written(tmp_path, "clips.xlsx", b"PK"))
    with pytest.raises(UsageError, match=r"unknown data set 'msrvtt-8k': did you mean msrvtt-[97]k"):
        load(f"msrvtt-8k:{tmp_path}")
    with pytest.raises(UsageError, match="msrvtt-9k needs the folder of its files: msrvtt-9k:DIR"):
        load("msrvtt-9k")
    with pytest.raises(DataError, match=f"{tmp_path}/nowhere"):
        load(f"msrvtt-9k:{tmp_path}/nowhere")
    with pytest.raises(DataError, match=r"missing\.csv: the file does not exist"):
        load(str(tmp_path / "missing.csv"))
    with pytest.raises(UsageError, match="msrvtt-9k is not a table"):
        load(f"msrvtt-9k:{tmp_path}", caption_column="text")


def test_every_registered_reader_can_be_imported():
    assert len(READERS) >= 8
    assert all(callable(reader(name)) for name in READERS)


@pytest.mark.parametrize("caption", ["[2020]", "[12, 13]", "['80s music] plays", '["Stop"] sign', "[music] plays"])
def test_a_caption_in_brackets_is_a_single_caption(tmp_path, caption):
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video", "caption"), ("a.mp4", caption), ("", ""), ("  ",)])
    assert list(load(str(tmp_path / "t.csv")).split("train").captions) == [caption]


def test_long_cells_that_are_not_lists_are_read_quickly(tmp_path):
    text = "['a'" + " " * 200_000 + "x"
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video", "caption"), ("a.mp4", text)])
    assert len(load(str(tmp_path / "t.csv")).split("train")) == 1


@pytest.mark.parametrize(
    ("value", "videos"),
    [
        ({"a": {"id": 7, "caption": "x"}, "b": {"id": 8, "caption": "y"}}, ["a", "b"]),
        ({"0": {"id": "a", "caption": "x"}, "1": {"id": "b", "caption": "y"}}, ["a", "b"]),
        ({"k": {"video": "a", "caption": "x"}, "l": {"video": "b", "caption": "y"}}, ["a", "b"]),
        ({"video": "a", "caption": "x", "seconds": 3}, ["a"]),
    ],
)
def test_keys_of_json_objects_may_name_the_videos(tmp_path, value, videos):
    (tmp_path / "t.json").write_text(json.dumps(value), encoding="utf-8")
    assert [Path(video.id).stem for video in load(str(tmp_path / "t.json")).split("train").videos] == videos
