"""`vop library list`, `tree`, `tag`, `favourite` and `tags`."""

from __future__ import annotations

import json

import pytest

from search.libraries import a_file, make_library

PATHS = {"/v/lake.mp4": "2024-07-01", "/v/2023/dog.mp4": "2023-05-01", "/v/2023/deep/cat\x1b.mp4": "2022-01-01"}


@pytest.fixture
def library(tmp_path):
    files = [a_file(path, date=f"{day}T12:00:00+00:00") for path, day in PATHS.items()]
    return make_library(tmp_path / "library", files, segments=3).path


@pytest.fixture
def done(vop):
    """Runs a command that must succeed; returns its output."""

    def run(*words):
        status, out, err = vop(*words)
        assert status == 0, err
        return out

    return run


def test_videos_are_listed_by_date(done, library):
    document = json.loads(done("library", "list", library, "--json", "-k", "2"))
    assert [video["path"] for video in document["videos"]] == ["/v/lake.mp4", "/v/2023/dog.mp4"]
    assert document["total"] == 3
    assert document["next"]
    out = done("library", "list", library, "--order", "oldest", "--folder", "2023", "--skip", "1")
    assert "2023-05-01 12:00" in out
    assert "/v/2023/dog.mp4" in out
    assert "1 of 2 videos" in out
    assert "\\x1b" in done("library", "list", library)
    assert "0 of 0 videos" in done("library", "list", library, "--favourites")


def test_folders_are_a_tree(done, library):
    assert done("library", "tree", library).splitlines() == ["/v (3)", "  2023 (2)", "    deep (1)"]
    (root,) = json.loads(done("library", "tree", library, "--json"))["folders"]
    assert (root["total"], root["folders"][0]["folders"][0]["path"]) == (3, "/v/2023/deep")


def test_tags_are_given_listed_and_taken_over(done, library, tmp_path):
    assert "changed: 2 videos" in done("library", "tag", library, "/v/2023", "--add", "pets", "--add", "at home")
    done("library", "tag", library, "/v/lake.mp4", "--start", "0:10", "--end", "0:20", "--add", "jump")
    done("library", "favourite", library, "/v/lake.mp4")
    assert [line.split(maxsplit=1) for line in done("library", "tags", library).splitlines()] == [
        ["2", "at home"],
        ["1", "jump"],
        ["2", "pets"],
        ["1", "favourite"],
    ]
    assert json.loads(done("library", "tag", library, "/v/2023/dog.mp4", "--remove", "PETS", "--json")) == {
        "changed": 1
    }
    (result,) = json.loads(done("library", "list", library, "--tag", "pets", "--json"))["videos"]
    assert result["tags"] == ["at home", "pets"]
    done("library", "tags", library, "--export", tmp_path / "tags.csv")
    (tmp_path / "tags.json").write_text(done("library", "tags", library, "--json"))
    make_library(tmp_path / "other", [a_file("/w/lake.mp4", content="/v/lake.mp4")], segments=3)
    for file in ("tags.csv", "tags.json"):
        document = json.loads(done("library", "tags", tmp_path / "other", "--import", tmp_path / file, "--json"))
        assert document["tags"] == {"at home": 2, "jump": 1, "pets": 1}
    (video,) = json.loads(done("library", "list", tmp_path / "other", "--favourites", "--json"))["videos"]
    assert (video["path"], video["is_favourite"]) == ("/w/lake.mp4", True)
    done("library", "favourite", tmp_path / "other", "/w/lake.mp4", "--remove")
    assert json.loads(done("library", "tags", tmp_path / "other", "--json"))["favourites"] == 0


def test_videos_that_are_removed_for_good_keep_their_tags_unless_told_otherwise(done, library):
    done("library", "tag", library, "/v", "--add", "all")
    done("library", "forget", library, "/v/lake.mp4", "--for-good")
    done("library", "forget", library, "/v/2023/dog.mp4", "--for-good", "--and-tags")
    assert json.loads(done("library", "tags", library, "--json"))["tags"] == {"all": 2}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tag", "/v"], "--add TAG or --remove TAG"),
        (["tag", "/none", "--add", "x"], "no video at or below /none"),
        (["tag", "/v", "--add", "a;b"], "'a;b' cannot be a tag"),
        (["tag", "/v", "/v/lake.mp4", "--start", "1", "--add", "x"], "2 paths are given"),
        (["favourite", "/v/lake.mp4", "--start", "40"], "from 0 to 30 s"),
        (["list", "-k", "0"], "-k 0"),
        (["list", "--after", "soon"], "'soon'"),
        (["tags", "--import", "none.csv"], "none.csv does not exist"),
        (["forget", "/v", "--and-tags"], "--and-tags"),
    ],
)
def test_wrong_calls_exit_with_2(vop, library, words, said):
    action, *rest = words
    status, out, err = vop("library", action, library, *rest)
    assert (status, out) == (2, "")
    assert said in err
