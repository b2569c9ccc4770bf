"""Readers of benchmarks, on small files in their published formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import check_annotations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vop.datasets import load
from vop.errors import DataError
from vop.utils.text import count

Content = dict[str, dict[str, list[str]]]  # split -> video id -> captions, or the sentences of the paragraph

CONTENT: Content = {
    "train": {"b_1": ["a dog runs", "it barks"], "a_2": ["a cat sleeps"]},
    "val": {"c.5": ["rain falls", "it pours"]},
    "test": {"e_7": ["snow falls"], "d_9": ["the sun sets", "night comes"]},
}


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_list(path: Path, ids) -> None:
    path.write_text("".join(f"{video_id}\n" for video_id in ids), encoding="utf-8")


def write_msvd(root: Path, content: Content) -> None:
    captions = {"elsewhere": ["of no split"]}
    for split, videos in content.items():
        write_list(root / f"{split}_list.txt", videos)
        captions |= videos
    write_json(root / "captions_msvd.json", captions)


def write_didemo(root: Path, content: Content) -> None:
    for split, videos in content.items():
        rows = [
            {"video": video_id, "description": text, "annotation_id": 7, "times": [[5, 5], [0, 0]], "num_segments": 6}
            for video_id, sentences in videos.items()
            for text in sentences
        ]
        write_json(root / f"{split}_data.json", rows)


def write_activitynet(root: Path, content: Content) -> None:
    for split, file, listing in (("train", "train", "train_ids"), ("test", "val_1", "val_ids")):
        rows = {
            video_id: {
                "duration": 9.5,
                "timestamps": [[0, 1]] * len(found),
                "sentences": [f" {text}" for text in found],
            }
            for video_id, found in reversed(content[split].items())
        }
        write_json(root / f"{file}.json", rows)
        write_json(root / f"{listing}.json", list(content[split]))


def write_lsmdc(root: Path, content: Content) -> None:
    files = {
        "train": "LSMDC16_annos_training.csv",
        "val": "LSMDC16_annos_val.csv",
        "test": "LSMDC16_challenge_1000_publictect.csv",
    }
    for split, videos in content.items():
        times = "\t".join(["00.00.01.000", "00.00.02.500"] * 2)
        lines = [f"{video_id}\t{times}\t{text}\n" for video_id, captions in videos.items() for text in captions]
        (root / files[split]).write_text("".join(lines), encoding="utf-8")


def write_vatex(root: Path, content: Content) -> None:
    def rows(videos):
        return [{"videoID": name, "enCap": captions, "chCap": ["狗"]} for name, captions in videos.items()]

    write_json(root / "vatex_training_v1.0.json", rows(content["train"]))
    write_json(root / "vatex_validation_v1.0.json", rows(content["test"] | content["val"]))
    for split in ("val", "test"):
        write_list(root / f"{split}_list.txt", content[split])


WRITERS: dict[str, Callable[[Path, Content], None]] = {
    "activitynet": write_activitynet,
    "didemo": write_didemo,
    "lsmdc": write_lsmdc,
    "msvd": write_msvd,
    "vatex": write_vatex,
}
PARAGRAPHS = {"activitynet", "didemo"}
NAMES = pytest.mark.parametrize("name", WRITERS)


def expected(name: str, content: Content) -> Content:
    """What a reader returns for `content`: joined paragraphs, and only the benchmark's splits."""
    splits = {split: videos for split, videos in content.items() if name != "activitynet" or split != "val"}
    if name not in PARAGRAPHS:
        return splits
    return {split: {key: [" ".join(texts)] for key, texts in videos.items()} for split, videos in splits.items()}


def as_content(dataset) -> Content:
    return {
        name: {
            video.id: [split.captions[row] for row in rows]
            for video, rows in zip(split.videos, split.captions_of, strict=True)
        }
        for name, split in dataset.splits.items()
    }


@pytest.fixture
def written(tmp_path) -> Callable[[str], Path]:
    """Write a benchmark in its published format, and return its folder."""

    def write(name: str) -> Path:
        WRITERS[name](tmp_path, CONTENT)
        return tmp_path

    return write


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)
sentences = st.lists(words, min_size=1, max_size=4).map(" ".join)
ids = st.from_regex(r"[A-Za-z0-9_-]{1,4}(\.[a-z0-9]{1,3}){0,2}", fullmatch=True)


@st.composite
def contents(draw) -> Content:
    """Three splits without a common video."""
    videos = iter(draw(st.lists(ids, min_size=6, max_size=6, unique=True)))
    captions = st.lists(sentences, min_size=1, max_size=3)
    return {split: {next(videos): draw(captions) for _ in range(2)} for split in ("train", "val", "test")}


@NAMES
@settings(max_examples=25, deadline=None)
@given(content=contents())
def test_published_formats_are_read(name, content):
    with TemporaryDirectory() as folder:
        WRITERS[name](Path(folder), content)
        dataset = load(f"{name}:{folder}")
    assert as_content(dataset) == expected(name, content)
    assert {split: list(videos) for split, videos in as_content(dataset).items()} == {
        split: list(videos) for split, videos in expected(name, content).items()
    }
    assert dataset.name == name
    assert dataset.notes == ()
    for split in dataset.splits.values():
        assert all(split.captions_of)
        assert len({video.id for video in split.videos}) == len(split.videos)


@NAMES
def test_videos_are_found_in_subfolders_with_any_extension(name, written, tmp_path_factory):
    videos = tmp_path_factory.mktemp("videos")
    (videos / "film").mkdir()
    for file in ("film/a_2.webm", "film/e_7.AVI", "c.5.mkv"):
        (videos / file).touch()
    root = written(name)
    found = {video.id: video.path for video in load(f"{name}:{root}", videos=videos).videos}
    assert found["a_2"] == videos / "film" / "a_2.webm"
    assert found["e_7"] == videos / "film" / "e_7.AVI"
    assert found["b_1"] == videos / "b_1.mp4"
    assert found.get("c.5", videos / "c.5.mkv") == videos / "c.5.mkv"
    assert all(video.path.parent == root for video in load(f"{name}:{root}").videos)


@NAMES
def test_annotation_files_are_found_in_subfolders(name, tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    WRITERS[name](tmp_path / "x" / "y", CONTENT)
    assert as_content(load(f"{name}:{tmp_path}")) == expected(name, CONTENT)


@NAMES
def test_the_error_for_an_empty_folder_names_the_files(name, tmp_path, written):
    with pytest.raises(DataError, match="no .* in this folder or below it") as caught:
        load(f"{name}:{tmp_path}")
    named = re.findall(r"no (\S+\.\w+)", str(caught.value))
    assert named
    root = written(name)
    assert all((root / file).is_file() for file in named)


@pytest.mark.parametrize(
    ("name", "file", "split"),
    [
        ("msvd", "val_list.txt", "val"),
        ("didemo", "train_data.json", "train"),
        ("activitynet", "train.json", "train"),
        ("lsmdc", "LSMDC16_annos_val.csv", "val"),
        ("vatex", "vatex_training_v1.0.json", "train"),
        ("vatex", "val_list.txt", "val"),
    ],
)
def test_a_split_whose_file_is_missing_is_noted(written, name, file, split):
    root = written(name)
    (root / file).unlink()
    dataset = load(f"{name}:{root}")
    assert dataset.splits.keys() == expected(name, CONTENT).keys() - {split}
    assert dataset.notes == (f"no {split} split: {file} does not exist",)


@NAMES
def test_a_video_in_two_splits_is_noted(name, tmp_path):
    content = CONTENT | {"test": CONTENT["test"] | {"a_2": CONTENT["train"]["a_2"]}}
    WRITERS[name](tmp_path, content)
    assert load(f"{name}:{tmp_path}").notes == ("1 video is in both train and test, for example a_2",)


@NAMES
def test_empty_captions_are_left_out_and_counted(name, tmp_path):
    content = CONTENT | {"train": {"b_1": ["", "it barks"], "a_2": [" "]}}
    WRITERS[name](tmp_path, content)
    dataset = load(f"{name}:{tmp_path}")
    assert as_content(dataset)["train"] == {"b_1": ["it barks"]}
    empty = 1 if name in PARAGRAPHS else 2
    assert dataset.notes[0] == f"{count('empty caption', empty)} left out of train"
    assert dataset.notes[1].startswith("1 of 2 training videos have no captions in ")


@NAMES
def test_a_split_with_only_empty_captions_is_refused(name, tmp_path):
    WRITERS[name](tmp_path, CONTENT | {"test": {"e_7": [" "]}})
    with pytest.raises(DataError, match="(the file contains no captions|none of its 1 video has a caption in)"):
        load(f"{name}:{tmp_path}")


LISTS = [
    ("msvd", "test_list.txt", "captions_msvd.json"),
    ("didemo", "test_list.txt", "test_data.json"),
    ("activitynet", "val_ids.json", "val_1.json"),
    ("vatex", "test_list.txt", "vatex_validation_v1.0.json"),
]


def relist(root: Path, file: str, ids: list[str]) -> None:
    (write_json if file.endswith(".json") else write_list)(root / file, ids)


@pytest.mark.parametrize(("name", "file", "captions"), LISTS)
def test_lists_choose_and_order_the_videos(written, name, file, captions):
    root = written(name)
    relist(root, file, ["d_9", "unknown", "e_7"])
    dataset = load(f"{name}:{root}")
    assert [video.id for video in dataset.split("test").videos] == ["d_9", "e_7"]
    assert dataset.notes == (f"1 of 3 test videos have no captions in {captions}",)
    relist(root, file, ["d_9"])
    assert [video.id for video in load(f"{name}:{root}").split("test").videos] == ["d_9"]


@pytest.mark.parametrize(("name", "file", "captions"), LISTS)
def test_lists_of_unknown_or_repeated_videos_are_refused(written, name, file, captions):
    root = written(name)
    relist(root, file, ["unknown", "lost"])
    message = f"{file}: none of its 2 videos has a caption in .*{captions}, for example 'unknown'"
    with pytest.raises(DataError, match=message):
        load(f"{name}:{root}")
    relist(root, file, ["d_9", "e_7", "d_9"])
    place = "entry" if file.endswith(".json") else "line"
    with pytest.raises(DataError, match=f"{file}: {place} 3: 'd_9' is listed twice, first at {place} 1"):
        load(f"{name}:{root}")
    relist(root, file, [])
    with pytest.raises(DataError, match=f"{file}: the file contains no ids"):
        load(f"{name}:{root}")


def test_a_list_in_the_folder_of_the_captions_wins(tmp_path):
    (tmp_path / "msvd").mkdir()
    write_msvd(tmp_path / "msvd", CONTENT)
    write_list(tmp_path / "test_list.txt", ["of another benchmark"])
    assert as_content(load(f"msvd:{tmp_path}")) == CONTENT


FILES = [
    ("msvd", "captions_msvd.json"),
    ("msvd", "val_list.txt"),
    ("didemo", "val_data.json"),
    ("activitynet", "val_1.json"),
    ("lsmdc", "LSMDC16_annos_training.csv"),
    ("vatex", "vatex_validation_v1.0.json"),
]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_text_that_is_not_utf8_is_refused(written, name, file):
    path = written(name) / file
    content = path.read_bytes()
    path.write_bytes(content + "\ncaf\u00e9".encode("latin-1"))
    line, place = content.count(b"\n") + 2, len(content) + 4
    with pytest.raises(DataError, match=rf"{file}: line {line}: byte 0xe9 \(at {place}\) is not UTF-8"):
        load(f"{name}:{path.parent}")


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("msvd", "captions_msvd.json", '["a"]', r"expected an object, got \['a'\]"),
        ("msvd", "captions_msvd.json", '{"b_1": "one"}', "b_1: expected a list, got 'one'"),
        ("msvd", "captions_msvd.json", '{"b_1": ["one", 2]}', "b_1: text 2: expected a text, got 2"),
        ("msvd", "captions_msvd.json", '{"b_1": ["x"], "b_1": []}', "an object has the key 'b_1' 2 times"),
        ("msvd", "captions_msvd.json", '{"b_1":\n [', "line 2: this is not JSON"),
        ("didemo", "test_data.json", '{"video": "a"}', r"expected a list, got \{'video': 'a'\}"),
        ("didemo", "test_data.json", '[{"video": "a", "text": "b"}]', "entry 1: no 'description'; found: video, text"),
        ("didemo", "test_data.json", '[{"description": "b"}]', "entry 1: no 'video'; found: description"),
        ("didemo", "test_data.json", '[{"video": " ", "description": "b"}]', "entry 1: the video is ' '"),
        ("didemo", "test_data.json", '[{"video": 3, "description": "b"}]', "entry 1: video: expected a text, got 3"),
        ("didemo", "test_data.json", "[]", "the file contains no captions"),
        ("activitynet", "val_1.json", '[{"sentences": []}]', r"expected an object, got \[\{'sentences': \[\]\}\]"),
        ("activitynet", "val_1.json", '{"v_1": {"duration": 1}}', "v_1: no 'sentences'; found: duration"),
        ("activitynet", "val_1.json", '{"v_1": {"sentences": [1]}}', "v_1: sentences: text 1: expected a text, got 1"),
        ("activitynet", "val_ids.json", '{"v_1": 1}', r"expected a list, got \{'v_1': 1\}"),
        ("activitynet", "val_ids.json", '["e_7", 4]', "entry 2: expected a text, got 4"),
        ("activitynet", "val_ids.json", '["e_7", ""]', "entry 2: the id is ''"),
        (
            "lsmdc",
            "LSMDC16_annos_val.csv",
            "a.1,0,1,0,1,he runs\n",
            "line 1: expected a clip id, .* got 'a.1,0,1",
        ),
        ("lsmdc", "LSMDC16_annos_val.csv", "a.1\t0\t1\t0\t1\tx\n\t0\t1\t0\t1\tlost\n", "line 2: expected a clip id"),
        ("lsmdc", "LSMDC16_annos_val.csv", "\n", "the file contains no captions"),
        ("vatex", "vatex_training_v1.0.json", '{"videoID": "a"}', r"expected a list, got \{'videoID': 'a'\}"),
        ("vatex", "vatex_training_v1.0.json", '[{"videoID": "a"}]', "entry 1: no 'enCap'; found: videoID"),
        ("vatex", "vatex_training_v1.0.json", '["a"]', "entry 1: expected an object, got 'a'"),
        (
            "vatex",
            "vatex_training_v1.0.json",
            '[{"videoID": "a", "enCap": [null]}]',
            "entry 1: enCap: text 1: .* None",
        ),
        (
            "vatex",
            "vatex_training_v1.0.json",
            '[{"videoID": "a", "enCap": ["x"]}, {"videoID": "a", "enCap": ["y"]}]',
            "entry 2: 'a' is listed twice, first at entry 1",
        ),
    ],
)
def test_files_in_other_formats_are_refused(written, name, file, content, message):
    path = written(name) / file
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: {message}"):
        load(f"{name}:{path.parent}")


def test_msvd_refuses_pickled_captions(written):
    root = written("msvd")
    (root / "captions_msvd.json").rename(root / "raw-captions.pkl")
    with pytest.raises(
        DataError, match=r"raw-captions\.pkl: this is a pickle.*give the captions as captions_msvd\.json"
    ):
        load(f"msvd:{root}")


def test_didemo_joins_captions_in_file_order(tmp_path):
    rows = [("1@N0_2.mov", "second moment"), ("3@N0_4.avi", "a boat"), ("1@N0_2.mov", "\tfirst\n moment ")]
    write_json(tmp_path / "test_data.json", [{"video": name, "description": text} for name, text in rows])
    for file in ("1@N0_2.mp4", "3@N0_4.avi.mp4"):
        (tmp_path / file).touch()
    test = load(f"didemo:{tmp_path}").split("test")
    assert test.captions == ("second moment first moment", "a boat")
    assert [video.path.name for video in test.videos] == ["1@N0_2.mp4", "3@N0_4.avi.mp4"]


def test_lsmdc_with_dotted_ids_quotes_and_repeated_clips(tmp_path):
    first, second = "0001_UGLY_00.00.51.926-00.00.54.129", "0001_UGLY_00.00.59.803-00.01.03.091"
    lines = [(first, 'He says "go.'), (second, 'She\'s "here", alone.'), (first, 'He nods."')]
    text = "\r\n".join(f"{clip}\t0\t1\t0\t1\t{sentence}" for clip, sentence in lines)
    (tmp_path / "LSMDC16_annos_training.csv").write_bytes(text.encode())
    (tmp_path / "0001_UGLY").mkdir()
    (tmp_path / "0001_UGLY" / f"{second}.avi").touch()
    train = load(f"lsmdc:{tmp_path}").split("train")
    assert [video.id for video in train.videos] == [first, second]
    assert train.captions == ('He says "go.', 'She\'s "here", alone.', 'He nods."')
    assert train.targets == (0, 1, 0)
    assert train.videos[1].path == tmp_path / "0001_UGLY" / f"{second}.avi"


def test_vatex_counts_videos_without_captions(tmp_path):
    write_vatex(tmp_path, CONTENT | {"train": {"b_1": ["one", "two"], "a_2": []}})
    dataset = load(f"vatex:{tmp_path}")
    assert as_content(dataset)["train"] == {"b_1": ["one", "two"]}
    assert dataset.notes == (
        "1 empty caption left out of train",
        "1 of 2 training videos have no captions in vatex_training_v1.0.json",
    )


def test_vatex_without_lists_tests_on_the_whole_validation_file(written):
    root = written("vatex")
    for split in ("val", "test"):
        (root / f"{split}_list.txt").unlink()
    dataset = load(f"vatex:{root}")
    assert list(dataset.splits) == ["train", "test"]
    assert as_content(dataset)["test"] == CONTENT["test"] | CONTENT["val"]
    (note,) = dataset.notes
    assert note.startswith("no val_list.txt and no test_list.txt: all of vatex_validation_v1.0.json is the test split")


def test_annotations_are_checked_against_published_counts(tmp_path, capsys, monkeypatch):
    for name, write in WRITERS.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name, CONTENT)
    assert check_annotations.main([str(tmp_path / "msvd")]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"msvd +val +1 +2 +100 / 4,290 +NO", printed)
    counts = {("msvd", split): (len(found), sum(map(len, found.values()))) for split, found in CONTENT.items()}
    monkeypatch.setattr(check_annotations, "EXPECTED", counts)
    assert check_annotations.main([str(tmp_path / "msvd")]) == 0
    assert re.search(r"msvd +val +1 +2 +1 / 2 +yes", capsys.readouterr().out)
    (tmp_path / "msvd" / "test_list.txt").write_text("unknown\n")
    assert check_annotations.main([str(tmp_path / "msvd")]) == 1
    assert "none of its 1 video has a caption" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert check_annotations.main([str(tmp_path / "empty")]) == 1
