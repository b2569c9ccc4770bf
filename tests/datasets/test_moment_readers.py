"""Sentences with times, in their published forms and in tables."""

from __future__ import annotations

import json

import pytest

from vop.datasets.moments import load_moments
from vop.errors import DataError, UsageError

ACTIVITYNET = {
    "v_one": {
        "duration": 55.2,
        "timestamps": [[0.28, 55.15], [13.79, 54.32]],
        "sentences": ["A lift. ", " He helps."],
    },
    "v_two": {"duration": 20, "timestamps": [[9.5, 3], [4, 4]], "sentences": ["In reverse.", "No time at all."]},
}
DIDEMO = [
    {"video": "a.mp4", "description": "a cat", "times": [[0, 0], [0, 1], [2, 2]], "num_segments": 6},
    {"video": "b.mp4", "description": "a dog", "times": [[5, 5]], "num_segments": 6},
]
QVHIGHLIGHTS = [
    {"qid": 1, "query": "a red car", "duration": 150, "vid": "x_1", "relevant_windows": [[0, 10], [20, 24]]},
    {"qid": 2, "query": "people", "duration": 150, "vid": "x_1", "relevant_windows": [[30, 40]]},
]
CHARADES = "AO8RW 0.0 6.9##a person puts  a book on a shelf.\n\n3MSZA 24.3 30.4##person turns a light on.\n"


def found(moments):
    return [
        (
            moments.videos[query.video].id,
            query.sentence,
            [(clip.start_seconds, clip.end_seconds) for clip in query.clips],
            query.agreeing,
        )
        for query in moments.queries
    ]


def test_activitynet(tmp_path):
    (tmp_path / "val_1.json").write_text(json.dumps(ACTIVITYNET))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v_one.mkv").touch()
    moments = load_moments(f"activitynet:{tmp_path}")
    assert (moments.name, moments.videos[0].path) == ("test", tmp_path / "videos" / "v_one.mkv")
    assert found(moments) == [
        ("v_one", "A lift.", [(0.28, 55.15)], 1),
        ("v_one", "He helps.", [(13.79, 54.32)], 1),
        ("v_two", "In reverse.", [(3, 9.5)], 1),
    ]


def didemo(times: list, video: str = "a.mp4") -> str:
    return json.dumps([{"video": video, "description": "b", "times": [times]}])


def test_didemo_needs_two_annotators_who_agree(tmp_path):
    (tmp_path / "test_data.json").write_text(json.dumps(DIDEMO))
    assert found(load_moments(f"didemo:{tmp_path}")) == [
        ("a.mp4", "a cat", [(0, 5), (0, 10), (10, 15)], 2),
        ("b.mp4", "a dog", [(25, 30)], 1),
    ]


def test_charades_sta(tmp_path):
    (tmp_path / "charades_sta_test.txt").write_text(CHARADES)
    assert found(load_moments(f"charades-sta:{tmp_path}")) == [
        ("AO8RW", "a person puts a book on a shelf.", [(0, 6.9)], 1),
        ("3MSZA", "person turns a light on.", [(24.3, 30.4)], 1),
    ]


def test_qvhighlights(tmp_path):
    lines = "\n".join(map(json.dumps, QVHIGHLIGHTS))
    (tmp_path / "highlight_val_release.jsonl").write_text(lines)
    moments = load_moments(f"qvhighlights:{tmp_path}")
    assert (moments.name, len(moments.videos)) == ("val", 1)
    assert found(moments) == [
        ("x_1", "a red car", [(0, 10), (20, 24)], 1),
        ("x_1", "people", [(30, 40)], 1),
    ]


def test_qvhighlights_without_a_sentence_are_left_out(tmp_path):
    lines = [{**QVHIGHLIGHTS[0], "query": " "}, QVHIGHLIGHTS[1]]
    (tmp_path / "highlight_val_release.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [query.sentence for query in load_moments(f"qvhighlights:{tmp_path}").queries] == ["people"]


def test_a_table(tmp_path):
    rows = "video;caption;start;end\nfilm.mp4;a dog runs;3.5;8\nfilm.mp4;a dog runs;20;22\nfilm.mp4;a cat;1;2\n"
    (tmp_path / "moments.csv").write_text(rows)
    moments = load_moments(str(tmp_path / "moments.csv"), videos=tmp_path / "films")
    assert moments.videos[0].path == tmp_path / "films" / "film.mp4"
    assert found(moments) == [("film.mp4", "a dog runs", [(3.5, 8), (20, 22)], 1), ("film.mp4", "a cat", [(1, 2)], 1)]


def test_the_split_column_of_a_table_names_the_split(tmp_path):
    table = tmp_path / "moments.csv"
    table.write_text("video,caption,start,end,split\na.mp4,a dog,1,2,train\nb.mp4,a cat,3,4,validation\n")
    assert found(load_moments(str(table), split="train")) == [("a.mp4", "a dog", [(1, 2)], 1)]
    first = load_moments(str(table))
    assert (first.name, found(first)) == ("val", [("b.mp4", "a cat", [(3, 4)], 1)])
    for lacking in ("test", "banana"):
        with pytest.raises(DataError, match=rf"moments.csv has no '{lacking}' split.*it has: train, val"):
            load_moments(str(table), split=lacking)
    table.write_text("video,caption,start,end,split\na.mp4,a dog,1,2,banana\n")
    with pytest.raises(DataError, match="line 2.*'banana'.*training"):
        load_moments(str(table))


def test_the_file_name_of_a_table_without_that_column_names_the_split(tmp_path):
    for name, split in (("moments.csv", "test"), ("val.csv", "val")):
        (tmp_path / name).write_text("video,caption,start,end\na.mp4,a dog,1,2\n")
        assert load_moments(str(tmp_path / name)).name == split
        with pytest.raises(DataError, match=f"it has: {split}"):
            load_moments(str(tmp_path / name), split="banana")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("charades_sta_test.txt", "AO8RW 0.0##no end", ["line 1", "VIDEO START END##SENTENCE"]),
        ("charades_sta_test.txt", "", ["no sentences with times"]),
        ("val_1.json", '{"v": {"timestamps": [[1, 2]], "sentences": ["a", "b"]}}', ["v", "2 sentences", "1 timestamp"]),
        ("val_1.json", '{"v": {"timestamps": [[1, "x"]], "sentences": ["a"]}}', ["v", "two times", "'x'"]),
        ("val_1.json", '{"v": {"timestamps": [[-1, 2]], "sentences": ["a"]}}', ["v", "0 or more", "-1"]),
        ("highlight_val_release.jsonl", "{", ["line 1"]),
        ("test_data.json", '[{"video": "a", "description": "b"}]', ["entry 1", "times"]),
        ("val_1.json", '{"v": {"timestamps": ["12"], "sentences": ["a"]}}', ["v", "a list", "'12'"]),
        ("val_1.json", '{"v": {"timestamps": [["1", "2"]], "sentences": ["a"]}}', ["v", "two times", "['1', '2']"]),
        ("val_1.json", '{" ": {"timestamps": [[1, 2]], "sentences": ["a"]}}', ["the video is ' '"]),
        ("test_data.json", didemo([3, 1]), ["entry 1", "[3, 1]", "whole numbers"]),
        ("test_data.json", didemo([0.5, 0.7]), ["entry 1", "[0.5, 0.7]", "whole numbers"]),
        ("test_data.json", didemo([True, False]), ["entry 1", "two times", "[True, False]"]),
        ("test_data.json", didemo([10**400, 1]), ["entry 1", "two times"]),
        ("test_data.json", didemo([1, 1], video=""), ["entry 1", "the video is ''"]),
        ("highlight_val_release.jsonl", json.dumps({**QVHIGHLIGHTS[0], "vid": ""}), ["line 1", "the video is ''"]),
        (
            "highlight_val_release.jsonl",
            json.dumps({**QVHIGHLIGHTS[0], "relevant_windows": [[9, 4]]}),
            ["line 1", "start, 9", "end, 4"],
        ),
        ("moments.csv", "video,caption,start,end\na.mp4,b,10,5\n", ["line 2", "start, 10", "end, 5"]),
        ("moments.csv", "video,caption,start,end\na.mp4,b,5,5.0\n", ["line 2", "the end is the start, 5"]),
        ("moments.csv", "video,caption,start\na.mp4,b,1\n", ["end", "video, caption, start"]),
        ("moments.csv", "video,caption,start,end\na.mp4,b,1,soon\n", ["line 2", "two times", "soon"]),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, name, content, parts):
    (tmp_path / name).write_text(content)
    benchmark = {"ch": "charades-sta:", "va": "activitynet:", "hi": "qvhighlights:", "te": "didemo:"}.get(name[:2])
    spec = f"{benchmark}{tmp_path}" if benchmark else str(tmp_path / name)
    with pytest.raises(DataError) as error:
        load_moments(spec)
    assert all(part in str(error.value) for part in [*parts, str(tmp_path / name)])


def test_unknown_names_and_splits(tmp_path):
    with pytest.raises(UsageError, match="charades-sta"):
        load_moments(f"charades:{tmp_path}")
    (tmp_path / "charades_sta_test.txt").write_text(CHARADES)
    with pytest.raises(DataError, match="'val'.*test"):
        load_moments(f"charades-sta:{tmp_path}", split="val")
