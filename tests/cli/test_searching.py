"""`vop index`, `vop search` and `vop library`, in this process."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.owners_videos import write_folder, write_video
from vop.cli import main
from vop.cli.search import clock
from vop.models.pretrained import create
from vop.search.library import Library
from vop.search.results import IndexingStatus
from vop.search.state import StateFile

RESULT = {"path", "start_seconds", "end_seconds", "score"}


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> dict[str, Path]:
    return write_folder(tmp_path_factory.mktemp("owner") / "videos")


@pytest.fixture(scope="session")
def library(videos, tiny_folder, tmp_path_factory) -> Path:
    """A library that no test changes, with metadata."""
    folder = tmp_path_factory.mktemp("libraries") / "library"
    table = folder.with_name("about.csv")
    table.write_text("video,author,stars\na.mp4,Bob,5\nb.mp4,Ann,3\n")
    words = ["index", folder, videos["a"].parent, "--model", tiny_folder, "--num-frames", "2", "--metadata", table]
    assert main([*map(str, words), "--precision", "fp32"]) == 0
    return folder


def names(out: str) -> list[str]:
    return [Path(result["path"]).name for result in json.loads(out)["results"]]


class TestIndex:
    @pytest.mark.usefixtures("real_processes")
    def test_prints_a_summary(self, vop, videos, tiny_folder, tmp_path):
        broken = tmp_path / "broken.mp4"
        broken.write_text("nothing")
        words = [tmp_path / "library", videos["a"].parent, broken, "--num-frames", "2"]
        status, out, err = vop("index", *words, "--model", tiny_folder)
        assert status == 0
        assert "4 added" in out
        assert "6 segments" in out
        assert "vop library failures" in out
        assert "5 of 5 files" in err
        status, out, _ = vop("index", *words)
        assert "4 unchanged" in out

    def test_json_is_alone_on_standard_output(self, vop, videos, tiny_folder, tmp_path):
        words = [tmp_path / "library", videos["a"], "--model", tiny_folder, "--num-frames", "2", "--json"]
        status, out, _ = vop("index", *words)
        assert status == 0
        assert json.loads(out)["added"] == 1

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--window", "0"], "window_seconds is 0.0"),
            (["--overlap", "10"], "overlap_seconds is 10.0"),
            (["--segment", "scenes"], "'scenes'"),
            (["--batch-size", "0"], "batch_size is 0"),
            (["--model", "nothing-here"], "nothing-here"),
            (["--metadata", "nothing.csv"], "nothing.csv"),
        ],
    )
    def test_invalid_options_are_refused(self, vop, videos, tmp_path, words, said):
        status, out, err = vop("index", tmp_path / "library", videos["a"], "--model", "mini", *words)
        assert (status, out) == (2, "")
        assert said in err
        assert not (tmp_path / "library" / "library.json").exists()

    def test_missing_paths_among_others_are_skipped(self, vop, videos, tiny_folder, tmp_path):
        words = ["index", tmp_path / "library", videos["a"], tmp_path / "nowhere", "--model", tiny_folder]
        status, out, err = vop(*words, "--num-frames", "2")
        assert status == 0
        assert "1 added" in out
        assert f"skipped, because they cannot be indexed: {tmp_path / 'nowhere'}" in out
        assert "nowhere' cannot be indexed and is skipped: No such file or directory" in err
        document = json.loads(vop(*words, "--json")[1])
        assert document["missing"] == {str(tmp_path / "nowhere"): "No such file or directory"}

    def test_missing_paths_are_refused(self, vop, library, tmp_path):
        status, _, err = vop("index", library, tmp_path / "nowhere")
        assert status == 2
        assert "nowhere" in err


class TestPruning:
    """Suggested commands are run as printed."""

    @pytest.fixture
    def at(self, tmp_path, vop, tiny_folder) -> Path:
        """The folder of seven indexed videos, six of them deleted."""
        at = tmp_path / "my videos"
        paths = [write_video(at / f"{number}.mp4", seed=number, seconds=2) for number in range(7)]
        words = ["index", tmp_path / "my library", at, "--model", tiny_folder, "--num-frames", "2"]
        assert vop(*words)[0] == 0
        for path in paths[:6]:
            path.unlink()
        return at

    @pytest.fixture
    def printed(self, vop):
        """Runs the first command in a text with this beginning."""

        def run(text: str, beginning: str):
            words = shlex.split(text[text.index(beginning) :].split(";")[0].splitlines()[0])
            return vop(*words[1:])

        return run

    def test_removing_a_large_share_needs_yes(self, vop, printed, at, tmp_path):
        library = tmp_path / "my library"
        out = vop("index", library, at)[1]
        assert "still in the library: 6 videos" in out
        status, _, err = printed(out, "vop index")
        assert status == 2
        assert "6 videos" in err
        status, out, _ = printed(err, "vop index")
        assert status == 0
        assert "deleted, would be removed: 6 files" in out
        assert out.count(".mp4") == 6
        assert json.loads(vop("library", "info", library, "--json")[1])["videos"] == 7
        status, out, _ = printed(err[err.index("; to remove them") :], "vop index")
        assert status == 0
        assert "6 removed" in out
        assert ": 6 videos" in printed(out, "vop library restore")[1]
        assert json.loads(vop("library", "info", library, "--json")[1])["videos"] == 7

    def test_json_reports_unconfirmed_removals(self, vop, at, tmp_path):
        words = ["index", tmp_path / "my library", at, "--prune", "--json"]
        status, out, _ = vop(*words)
        assert (status, len(json.loads(out)["unconfirmed"])) == (2, 6)
        found = json.loads(vop(*words, "--dry-run")[1])
        assert (found["dry_run"], found["needs_yes"], len(found["deleted"])) == (True, True, 6)
        assert json.loads(vop(*words, "--yes")[1])["removed"] == 6

    @pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 1), ("n\n", 2, 7), ("", 2, 7)])
    def test_terminals_ask_for_confirmation(self, vop, at, tmp_path, monkeypatch, answer, status, left):
        stdin = io.StringIO(answer)
        stdin.isatty = lambda: True
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        got, _, err = vop("index", tmp_path / "my library", at, "--prune")
        assert got == status
        assert "Remove 6 videos from the library? [y/N]" in err
        assert json.loads(vop("library", "info", tmp_path / "my library", "--json")[1])["videos"] == left

    def test_missing_folders_can_be_forgotten_and_restored(self, vop, printed, at, tmp_path):
        at.rename(tmp_path / "unplugged")
        write_video(tmp_path / "other" / "x.mp4", seed=70)
        status, out, _ = vop("index", tmp_path / "my library", at, tmp_path / "other", "--prune", "--yes")
        assert status == 0
        assert "unavailable: 7 videos" in out
        status, out, _ = printed(out, "vop library forget")
        assert (status, ": 7 videos; " in out) == (0, True)
        assert ": 7 videos" in printed(out, "vop library restore")[1]


def test_excluded_names_can_be_dropped(vop, videos, tiny_folder, tmp_path):
    library = tmp_path / "library"
    words = ["index", library, videos["a"].parent]
    out = vop(*words, "--model", tiny_folder, "--num-frames", "2", "--exclude", "b.*", "--exclude", "c.mp4")[1]
    assert "2 added" in out
    assert "2 × excluded" in out
    assert vop("library", "exclude", library)[1] == "b.*\nc.mp4\n"
    assert "excluded: b.*, c.mp4" in vop("library", "info", library)[1]
    assert "2 unchanged" in vop(*words)[1]
    assert json.loads(vop("library", "exclude", library, "--drop", "c.mp4", "--json")[1]) == {"exclude": ["b.*"]}
    assert "1 added" in vop(*words)[1]
    assert vop("library", "exclude", library, "--drop", "z")[0] == 2


def test_unmatched_metadata_rows_are_listed(vop, videos, tiny_folder, tmp_path):
    (tmp_path / "about.csv").write_text("path,author\na.mp4,Ann\ntypo.mp4,Bob\n")
    words = ["index", tmp_path / "library", videos["a"], "--metadata", tmp_path / "about.csv"]
    out = vop(*words, "--model", tiny_folder, "--num-frames", "2")[1]
    assert "1 row:\n  typo.mp4\n" in out
    assert json.loads(vop(*words, "--json")[1])["unmatched"] == ["typo.mp4"]


def test_all_commands_count_failures_the_same(vop, videos, tiny_folder, tmp_path):
    at = tmp_path / "videos"
    at.mkdir()
    for name in ("a.mp4", "a copy.mp4"):
        shutil.copy2(videos["a"], at / name)
    for name in ("x.mp4", "y.mp4"):
        (at / name).write_text(name)
    library = tmp_path / "library"
    words = ["index", library, at, "--model", tiny_folder, "--num-frames", "2"]
    line = f"2 unreadable, 1 duplicate: vop library failures {library}\n"
    assert line in vop(*words)[1]
    assert line in vop("index", library, videos["c"])[1]  # of the whole library
    assert line in vop("library", "info", library)[1]
    assert line.partition(": vop")[0] + "\n" in vop("library", "failures", library)[1]
    documents = [json.loads(vop(*call, "--json")[1]) for call in (words, ["library", "info", library])]
    listed = json.loads(vop("library", "failures", library, "--json")[1])
    for document in (*documents, listed):
        assert [document[kind] for kind in ("unreadable", "partial", "duplicates")] == [2, 0, 1]
    assert len(documents[0]["failures"]) == len(listed["failures"]) == 3


class TestSearch:
    def test_words_find_k_moments(self, vop, library):
        status, out, _ = vop("search", library, "a dog", "-k", "2")
        assert status == 0
        assert out.count(".mp4") == 2

    def test_json_lists_moments_by_score(self, vop, library):
        status, out, _ = vop("search", library, "a dog", "--json")
        assert status == 0
        results = json.loads(out)["results"]
        assert len(results) == 4
        assert results[0].keys() >= RESULT
        assert [result["score"] for result in results] == sorted((r["score"] for r in results), reverse=True)

    def test_weaker_matches_stand_behind_a_line(self, vop, library, monkeypatch):
        results = json.loads(vop("search", library, "a dog", "--json")[1])["results"]
        shares = [result["confidence"] for result in results]
        assert all(0 <= share <= 1 for share in shares)
        for least in (0.0, shares[0], 1.1):
            monkeypatch.setattr("vop.search.confidence.WEAK_BELOW", least)
            lines = vop("search", library, "a dog")[1].splitlines()
            strong = sum(share >= least for share in shares)
            places = [number for number, line in enumerate(lines) if "weaker matches" in line]
            assert places == ([1 + strong] if strong < len(shares) else [])  # after the heading
            assert ("nothing matches well" in "".join(lines)) == (strong == 0)
        assert f"{shares[0]:.2f}" in lines[2]

    def test_min_confidence_drops_results(self, vop, library):
        results = json.loads(vop("search", library, "a dog", "--json")[1])["results"]
        shares = [result["confidence"] for result in results]
        words = ["search", library, "a dog", "--min-confidence"]
        assert len(names(vop(*words, shares[0], "--json")[1])) == sum(share >= shares[0] for share in shares)
        if max(shares) < 1:
            assert "no result has a confidence of 1 or more" in vop(*words, "1")[1]
        status, _, err = vop(*words, "7")
        assert (status, "min_confidence is 7" in err) == (2, True)

    def test_weights_change_the_results(self, vop, library):
        plain = vop("search", library, "a dog", "--json")[1]
        against = vop("search", library, "-w", "-1", "a dog", "--json")[1]
        both = vop("search", library, "a dog", "-w", "-0.5", "a park", "--json")[1]
        assert names(against) != names(plain)
        scores = {r["path"]: r["score"] for r in json.loads(plain)["results"]}
        assert {r["path"]: r["score"] for r in json.loads(both)["results"]} != scores

    def test_moments_of_a_video_find_themselves(self, vop, library, videos):
        status, out, _ = vop("search", library, "--video", videos["b"], "--start", "16", "--end", "26", "--json")
        assert status == 0
        best = json.loads(out)["results"][0]
        assert Path(best["path"]).name == "b.mp4"
        assert best["start_seconds"] == pytest.approx(16, abs=0.3)
        assert best["score"] == pytest.approx(1, abs=1e-4)

    def test_pictures_are_queries(self, vop, library, tmp_path):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "grey.png")
        status, out, _ = vop("search", library, "--picture", tmp_path / "grey.png", "--json")
        assert status == 0
        assert len(names(out)) == 4

    @pytest.mark.usefixtures("real_processes")
    def test_captions_are_ranked_for_a_video(self, vop, library, videos, tmp_path):
        (tmp_path / "captions.txt").write_text("a dog\n\na cat\nrain\n")
        words = ["search", library, "--video", videos["a"], "--captions", tmp_path / "captions.txt", "-k", "2"]
        status, out, _ = vop(*words, "--json")
        assert status == 0
        found = json.loads(out)["results"]
        assert len(found) == 2
        assert {caption["line"] for caption in found} < {1, 3, 4}
        assert found[0]["score"] >= found[1]["score"]
        assert found[0]["caption"] in vop(*words)[1]

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (["--name", "B.mp4"], ["b.mp4"]),
            (["--name", "[ab]*"], []),
            (["--folder", "videos"], ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]),
            (["--folder", "video"], []),
            (["--min-seconds", "10"], ["b.mp4"]),
            (["--max-seconds", "10", "--where", "author=Bob"], ["a.mp4"]),
            (["--where", "stars<4"], ["b.mp4"]),
            (["--before", "1990-01-01"], []),
            (["--after", "1990-01-01", "--name", "c"], ["c.mp4"]),
            (["--after", "1990", "--before", "1990-07"], []),
            (["--after", "1990-07", "--name", "c"], ["c.mp4"]),
        ],
    )
    def test_filters_restrict_results(self, vop, library, words, found):
        status, out, _ = vop("search", library, "a dog", *words, "--json")
        assert status == 0
        assert sorted(names(out)) == found

    def test_relative_folders_filter(self, vop, library, videos, monkeypatch):
        monkeypatch.chdir(videos["a"].parent)
        assert len(names(vop("search", library, "a dog", "--folder", ".", "--json")[1])) == 4
        assert len(names(vop("search", library, "a dog", "--folder", "../videos/", "--json")[1])) == 4
        assert names(vop("search", library, "a dog", "--folder", "./deeper", "--json")[1]) == []

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_relative_folders_match_any_unicode_form(self, vop, library, videos, tmp_path, monkeypatch, form):
        (tmp_path / unicodedata.normalize("NFD", "été")).symlink_to(videos["a"].parent)
        monkeypatch.chdir(tmp_path)
        folder = unicodedata.normalize(form, "./été")
        assert len(names(vop("search", library, "a dog", "--folder", folder, "--json")[1])) == 4

    def test_sentences_and_a_video_are_combined(self, vop, library, videos):
        def scores(*words):
            status, out, _ = vop("search", library, *words, "--json")
            assert status == 0
            return {result["path"]: result["score"] for result in json.loads(out)["results"]}

        opened = Library.open(library, precision="auto")
        for given, weight in (((), 0.5), (("--example-weight", "2"), 2.0)):
            wanted = opened.search([("a dog", 1.0), (videos["a"], weight)])
            assert scores("a dog", "--video", videos["a"], *given) == {
                moment.path: pytest.approx(moment.score, abs=1e-5) for moment in wanted
            }
        assert scores("a dog", "--video", videos["a"]) != scores("a dog")

    def test_results_can_be_sorted_by_date(self, vop, library):
        results = json.loads(vop("search", library, "a dog", "--order", "oldest", "--json")[1])["results"]
        assert [result["date"] for result in results] == sorted(result["date"] for result in results)

    def test_filters_without_results_are_reported(self, vop, library):
        assert "no video passes the filters" in vop("search", library, "a dog", "--name", "zzz")[1]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "the query is empty"),
            (["  "], "empty sentence"),
            (["a dog", "-k", "0"], "-k 0"),
            (["-w", "much", "a dog"], "'much'"),
            (["--picture", "x.jpg", "--video", "x.mp4"], "only one of them"),
            (["a dog", "--video", "x.mp4", "--captions", "x.txt"], "leave out the sentences"),
            (["a dog", "--example-weight", "2"], "--example-weight"),
            (["--video", "x.mp4", "--example-weight", "2"], "--example-weight"),
            (["-w", "0", "a dog", "--video", "x.mp4", "--example-weight", "0"], "all weights"),
            (["a dog", "--near", "1,2"], "near is '1,2'"),
            (["a dog", "--captions", "x.txt"], "--captions"),
            (["a dog", "--where", "colour=red"], "'colour'"),
            (["a dog", "--after", "yesterday"], "'yesterday'"),
            (["a dog", "--use", "2"], "--use 2"),
            (["a dog", "--min-seconds", "-1"], "min_seconds is -1.0"),
        ],
    )
    def test_invalid_options_are_refused(self, vop, library, words, said):
        status, out, err = vop("search", library, *words)
        assert (status, out) == (2, "")
        assert said in err

    def test_files_that_are_not_videos_are_refused(self, vop, library, tmp_path):
        (tmp_path / "text.mp4").write_text("text")
        status, _, err = vop("search", library, "--video", tmp_path / "text.mp4")
        assert status == 1
        assert "text.mp4" in err

    @pytest.mark.parametrize("words", ["🐕" * 5, "ein Hund läuft", "犬が走る", "word " * 10_000])
    def test_any_sentence_can_be_searched(self, vop, library, words):
        status, out, err = vop("search", library, words, "-k", str(10**9), "--json")
        assert status == 0
        assert len(names(out)) == 4
        assert ("tokens of “word word" in err) == (len(words) > 1000)

    def test_missing_libraries_are_refused(self, vop, tmp_path):
        status, _, err = vop("search", tmp_path, "a dog")
        assert status == 2
        assert "vop index" in err

    def test_empty_libraries_are_reported(self, vop, tiny_folder, tmp_path):
        (tmp_path / "empty").mkdir()
        assert vop("index", tmp_path / "library", tmp_path / "empty", "--model", tiny_folder)[0] == 0
        status, out, _ = vop("search", tmp_path / "library", "a dog")
        assert status == 0
        assert "the library is empty" in out
        StateFile(tmp_path / "library").write(IndexingStatus(done=1, total=9))
        out = vop("search", tmp_path / "library", "a dog")[1]
        assert "(1 of 9 files)" in out
        assert "the library is empty" not in out

    def test_retrained_models_are_refused(self, vop, videos, tiny_folder, tmp_path):
        def save(run):
            create("vop", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / run)

        save("run")
        vop("index", tmp_path / "library", videos["a"], "--model", tmp_path / "run")
        save("run")  # other random prompts
        status, _, err = vop("search", tmp_path / "library", "a dog")
        assert status == 1
        assert "reembed" in err

    def test_moved_runs_are_opened_with_model(self, vop, videos, tiny_folder, tmp_path):
        create("vop", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / "run")
        vop("index", tmp_path / "library", videos["a"], "--model", tmp_path / "run")
        (tmp_path / "run").rename(tmp_path / "moved")
        assert vop("search", tmp_path / "library", "a dog")[0] != 0
        assert vop("search", tmp_path / "library", "a dog", "--model", tmp_path / "moved")[0] == 0


class TestLibrary:
    def test_info_describes_the_library(self, vop, library, tiny_folder):
        out = vop("library", "info", library)[1]
        assert "4 videos" in out
        assert str(tiny_folder) in out
        assert "author, stars" in out
        document = json.loads(vop("library", "info", library, "--json")[1])
        assert (document["videos"], document["segments"], document["index"]) == (4, 6, None)
        assert document["models"][0]["method"] == "zero-shot"

    def test_failures_are_listed(self, vop, library, tiny_folder, tmp_path):
        assert "every file could be read" in vop("library", "failures", library)[1]
        (tmp_path / "a[red].mp4").touch()
        vop("index", tmp_path / "library", tmp_path / "a[red].mp4", "--model", tiny_folder, "--num-frames", "2")
        assert "a[red].mp4" in vop("library", "failures", tmp_path / "library")[1]
        (failure,) = json.loads(vop("library", "failures", tmp_path / "library", "--json")[1])["failures"]
        assert (failure["kind"], "0 bytes" in failure["reason"]) == ("unreadable", True)

    def test_forgotten_folders_are_removed(self, vop, tiny_folder, tmp_path):
        video = write_video(tmp_path / "v" / "one.mp4", seed=1)
        vop("index", tmp_path / "library", video.parent, "--model", tiny_folder, "--num-frames", "2")
        assert ": 1 video; " in vop("library", "forget", tmp_path / "library", video.parent)[1]
        assert vop("library", "forget", tmp_path / "library", video)[0] == 2

    @pytest.mark.usefixtures("real_processes")
    def test_reembedded_libraries_can_use_both_models(self, vop, videos, tiny_folder, tmp_path):
        create("vop-f+p", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tmp_path / "run")
        library = tmp_path / "library"
        vop("index", library, videos["a"], videos["c"], "--model", tiny_folder, "--num-frames", "2")
        status, out, _ = vop("library", "reembed", library, "--model", tmp_path / "run", "--keep")
        assert status == 0
        assert str(tmp_path / "run") in out
        first, second = (json.loads(vop("search", library, "a dog", "--use", n, "--json")[1]) for n in (1, 2))
        assert {r["path"]: r["score"] for r in first["results"]} != {r["path"]: r["score"] for r in second["results"]}


def test_times_are_printed_as_clocks():
    assert [clock(seconds) for seconds in (0, 59.96, 61.25, 3600)] == ["0:00.0", "1:00.0", "1:01.2", "1:00:00.0"]
