"""Wrong input: the error names the value, the exit status is 1 or 2, and there is no traceback."""

from __future__ import annotations

import errno
import json
import shutil

import av
import numpy as np
import pytest

from clips import write_clip, write_tone
from tiny_clip import make_clip_folder
from tiny_data import write_table, write_videos
from vop.utils import files


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Three valid videos, and one of each unusual or unreadable kind."""
    folder = tmp_path_factory.mktemp("clips")
    sound = write_videos(folder)
    for path in sound[3:]:
        path.unlink()
    picture = np.full((48, 48, 3), 90, np.uint8)
    write_clip(folder / "one.mp4", [picture])
    write_clip(folder / "loop.gif", [picture, picture // 2], codec="gif", pix_fmt="rgb8")
    write_clip(folder / "thin.mov", [np.full((1000, 1, 3), 90, np.uint8)] * 3, codec="png", pix_fmt="rgb24")
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(sound[0].read_bytes()[:200])
    with av.open(str(folder / "sound.mp4"), "w") as container:
        write_tone(container)
    (folder / "page.mp4").write_text("<html>404</html>")
    (folder / "folder.mp4").mkdir()
    return folder


UNREADABLE = {
    "empty.mp4": "the file is empty (0 bytes)",
    "cut.mp4": "",
    "sound.mp4": "it contains no video, only audio",
    "page.mp4": "this is not a video that FFmpeg can read",
    "folder.mp4": "this is a folder, not a video file",
    "gone.mp4": "the file does not exist",
}
ODD = ["one.mp4", "loop.gif", "thin.mov"]


def rows(names, split="train"):
    return [(name, f"what {name} shows", split) for name in names]


@pytest.fixture
def mixed(clips):
    names = ["clip0.mp4", "clip1.mp4", "clip2.mp4", *ODD, *UNREADABLE]
    return write_table(clips / "mixed.csv", rows(names))


class TestVideos:
    def test_skip_lists_bad_videos_and_trains_on_the_others(self, train, mixed, tmp_path):
        status, _, err = train("--data", mixed, "--validation", 0, "--epochs", 1)
        assert status == 0
        assert "6 videos were skipped" in err
        for name, reason in UNREADABLE.items():
            assert f"{mixed.parent / name}: {reason}" in err
        card = json.loads((tmp_path / "run/config.json").read_text())["card"]
        assert card["training_videos"] == 6

    def test_fail_names_bad_videos_before_training(self, train, mixed, tmp_path):
        status, _, err = train("--data", mixed, "--validation", 0, "--on-bad-video", "fail")
        assert status == 1
        assert "6 of 12 videos of the split 'train' cannot be read; --on-bad-video skip leaves them out" in err
        assert f"{mixed.parent / 'empty.mp4'}: the file is empty (0 bytes)" in err
        assert not (tmp_path / "run/config.json").exists()

    def test_evaluation_reports_bad_videos(self, vop, a_run, mixed):
        words = ["evaluate", a_run, "--data", mixed, "--split", "train"]
        status, out, _ = vop(*words, "--json")
        report = json.loads(out)
        assert (status, report["gallery_size"], report["listed_videos"]) == (0, 6, 12)
        assert {video["id"] for video in report["skipped"]} == set(UNREADABLE)
        status, _, err = vop(*words, "--on-bad-video", "fail")
        assert status == 1
        assert f"{mixed.parent / 'empty.mp4'}: the file is empty" in err

    def test_no_readable_video_is_an_error(self, train, vop, a_run, clips):
        bad = write_table(clips / "bad.csv", [*rows(["empty.mp4", "gone.mp4"]), *rows(["sound.mp4"], "test")])
        status, _, err = train("--data", bad, "--validation", 0)
        assert (status, "2 of 2 videos of the split 'train' cannot be read" in err) == (1, True)
        status, _, err = vop("evaluate", a_run, "--data", bad)
        assert (status, "none of the 1 video of split 'test' could be read" in err) == (1, True)

    @pytest.mark.parametrize("name", ODD)
    def test_unusual_videos_can_be_read(self, vop, clips, name):
        table = write_table(clips / "odd.csv", rows([name]))
        assert vop("data", "check", table, "--decode")[0] == 0


class TestTables:
    @pytest.mark.parametrize(
        ("content", "status", "says"),
        [
            (b"vidoe,captoin\nclip0.mp4,a\n", 1, "found: vidoe, captoin"),
            (b"video,captoin\nclip0.mp4,a\n", 1, "no column looks like the caption; found: video, captoin"),
            (b"video,caption\nclip0.mp4,\n", 1, "no row has a caption"),
            (b"video,caption\nclip0.mp4,caf\xe9\n", 1, "line 2: byte 0xe9"),
            (b"", 1, "the table is empty"),
            (b"video,caption,split\nclip0.mp4,a,tarin\n", 1, "the split is 'tarin'"),
        ],
    )
    def test_invalid_tables_are_refused(self, vop, clips, content, status, says):
        (clips / "odd.csv").write_bytes(content)
        got, out, err = vop("data", "check", clips / "odd.csv")
        assert (got, out) == (status, "")
        assert f"{clips / 'odd.csv'}: " in err
        assert says in err

    def test_empty_captions_are_skipped_and_counted(self, vop, clips):
        table = write_table(clips / "odd.csv", [("clip0.mp4", "a", "train"), ("clip1.mp4", "  ", "train")])
        status, out, _ = vop("data", "check", table)
        assert status == 0
        assert "note: 1 empty caption left out of train" in out

    def test_unknown_columns_are_refused(self, train, table):
        status, _, err = train("--video-column", "vidoe")
        assert (status, "unknown video column 'vidoe': did you mean video?" in err) == (2, True)

    def test_captions_of_any_length_can_be_trained_on(self, train, clips):
        captions = ["word " * 10_000, "x" * 500, "\N{FAMILY}\N{ZERO WIDTH JOINER}" * 300]
        long = write_table(clips / "long.csv", [(f"clip{n}.mp4", c, "train") for n, c in enumerate(captions)])
        assert train("--data", long, "--validation", 0, "--epochs", 1)[0] == 0

    @pytest.mark.parametrize(
        ("spec", "status", "says"),
        [
            ("gone.csv", 1, "gone.csv: the file does not exist"),
            ("msrvt-9k:/data", 2, "unknown data set 'msrvt-9k': did you mean msrvtt-9k"),
            ("hf:owner/name", 1, "hf:owner/name: cannot be downloaded from the Hugging Face hub"),
        ],
    )
    def test_missing_datasets_are_named(self, vop, spec, status, says):
        got, out, err = vop("data", "check", spec)
        assert (got, out) == (status, "")
        assert says in err


class TestSplits:
    def test_training_needs_a_train_split(self, train, clips):
        test = write_table(clips / "test.csv", rows(["clip0.mp4"], "test"))
        status, _, err = train("--data", test)
        assert (status, "test has no 'train' split; it has: test" in err) == (1, True)

    def test_evaluation_needs_a_test_split(self, vop, a_run, clips):
        two = write_table(clips / "two.csv", [*rows(["clip0.mp4"]), *rows(["clip1.mp4"], "val")])
        status, _, err = vop("evaluate", a_run, "--data", two)
        assert (status, "two has no 'test' split; it has: train, val" in err) == (1, True)

    def test_the_only_split_is_evaluated_by_default(self, vop, a_run, clips):
        only = write_table(clips / "only.csv", rows(["clip0.mp4"]))
        status, out, _ = vop("evaluate", a_run, "--data", only, "--json")
        assert (status, json.loads(out)["split"]) == (0, "train")
        status, _, err = vop("evaluate", a_run, "--data", only, "--split", "test")
        assert (status, "only has no 'test' split; it has: train" in err) == (1, True)

    def test_misspelt_splits_are_refused(self, vop, a_run, table):
        status, _, err = vop("evaluate", a_run, "--data", table, "--split", "tset")
        assert (status, "unknown split 'tset': did you mean test?" in err) == (2, True)

    def test_small_datasets_are_one_batch(self, train):
        status, _, err = train("--batch-size", 32, "--epochs", 1)
        assert (status, "training: 1/1" in err) == (0, True)

    @pytest.mark.parametrize("captions", [["a"], ["a", "b", "c"]])
    def test_training_needs_two_videos(self, train, clips, captions):
        one = write_table(clips / "single.csv", [("clip0.mp4", caption, "train") for caption in captions])
        status, _, err = train("--data", one, "--validation", 0)
        assert (status, "single: 1 video to train on; at least 2 are needed" in err) == (1, True)


class TestTrainingCalls:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--method", "vop-g"], "unknown method 'vop-g': did you mean vop-p or vop-f or vop-c?"),
            (["--method", "zero-shot"], "zero-shot has no trainable parameters"),
            (["--backbone", "ViT-B/23"], "'ViT-B/23': did you mean ViT-B/32"),
            (["--backbone", "minni"], "'minni': did you mean mini"),
            (["--num-frames", 0], "num_frames is 0"),
            (["--num-frames", -1], "num_frames is -1"),
            (["--set", "num_frames"], "--set 'num_frames': write NAME=VALUE"),
            (["--set", "=3"], "--set '=3': write NAME=VALUE"),
            (["--set", "text_prompts=["], "the value '[' is not readable as YAML"),
            (["--set", "text_promts=3"], "has no setting 'text_promts': did you mean text_prompts"),
            (["--set", "text_prompts=many"], "text_prompts is 'many'; it must be a whole number"),
            (["--set", "text_prompts=99"], "text_prompts is 99"),
            (["--set", "visual_layers=[9]"], "visual_layers names layer 9; the tower has layers 1 to 3"),
            (["--epochs", 0], "epochs is 0"),
            (["--batch-size", 1], "batch_size is 1"),
            (["--learning-rate", "nan"], "learning_rate is nan"),
            (["--weight-decay", "nan"], "weight_decay is nan"),
            (["--validation", 1], "validation is 1.0"),
            (["--precision", "fp16"], "unknown precision 'fp16': did you mean bf16"),
            (["--on-bad-video", "skp"], "unknown on_bad_video 'skp': did you mean skip?"),
        ],
    )
    def test_invalid_values_are_refused(self, train, tmp_path, words, says):
        status, out, err = train(*words)
        assert (status, out) == (2, "")
        assert says in err
        assert "decoding" not in err  # the error comes before hours of decoding
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("recipe", "says"),
        [
            ("epochs: five", "epochs is 'five'; it must be a whole number"),
            ("epochs: 2.5", "epochs is 2.5; it must be a whole number"),
            ("seed: true", "seed is True; it must be a whole number"),
            ("warmup: high", "warmup is 'high'; it must be a number"),
            ("learning_rate: high", "learning_rate is 'high'; it must be a number"),
            ("precision: 16", "precision is 16; it must be a name"),
            ("method: [vop]", "method is ['vop']; it must be a name"),
            ("backbone: 3", "backbone is 3; it must be a name"),
            ("settings: [1]", "settings is [1]; it must map names to values"),
            ("epohcs: 2", "'epohcs': did you mean epochs"),
            ("- epochs", "expected a mapping of names to values, got list"),
            ("", "expected a mapping of names to values, got NoneType"),
            ("epochs: [", "not readable as YAML"),
        ],
    )
    def test_invalid_recipes_are_refused(self, vop, tmp_path, recipe, says):
        (tmp_path / "recipe.yaml").write_text(recipe)
        words = ["train", "--out", tmp_path / "run", "--config", tmp_path / "recipe.yaml", "--data", "x.csv"]
        status, _, err = vop(*words)
        assert status == 2
        assert says in err

    @pytest.mark.parametrize(("name", "why"), [("gone.yaml", "No such file"), (".", "this is a folder")])
    def test_missing_recipes_are_named(self, train, tmp_path, name, why):
        status, _, err = train("--config", tmp_path / name)
        assert status == 2
        assert f"{tmp_path / name}: {why}" in err

    def test_data_is_required(self, vop, tmp_path):
        status, _, err = vop("train", "--out", tmp_path / "run")
        assert (status, "no data: give --data SPEC" in err) == (2, True)


class TestOut:
    def test_out_must_not_be_a_file(self, train, tmp_path):
        (tmp_path / "file").write_text("mine")
        for out in (tmp_path / "file", tmp_path / "file/below"):
            status, _, err = train("--out", out)
            assert (status, f"{tmp_path / 'file'} is a file" in err) == (2, True)
        assert (tmp_path / "file").read_text() == "mine"

    def test_existing_runs_are_not_overwritten(self, train, a_run):
        before = (a_run / "model.safetensors").read_bytes()
        status, _, err = train("--out", a_run)
        assert (status, f"{a_run} already holds a run" in err) == (2, True)
        assert (a_run / "model.safetensors").read_bytes() == before

    def test_runs_of_another_training_are_not_resumed(self, train, tmp_path):
        train("--epochs", 1)
        status, _, err = train("--epochs", 1, "--method", "vop-p", "--resume")
        assert status == 1
        assert "method = 'vop', this one has 'vop-p'" in err

    def test_runs_without_training_state_are_not_resumed(self, train, tmp_path):
        train("--epochs", 1)
        shutil.rmtree(tmp_path / "run/training")
        status, _, err = train("--epochs", 1, "--resume")
        assert (status, "no training/state.safetensors to resume from" in err) == (1, True)

    @pytest.mark.parametrize("written", ["state.safetensors", "model.safetensors", "config.json", "README.md"])
    def test_full_disks_are_reported(self, train, tmp_path, monkeypatch, written):
        sync = files._sync

        def full(path):
            if path.name.endswith(written):
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(path)

        monkeypatch.setattr(files, "_sync", full)
        status, _, err = train("--epochs", 1)
        assert status == 1
        assert f"{written}: no space left" in err
        assert not [path for path in (tmp_path / "run").rglob("*") if ".tmp-" in path.name]
        monkeypatch.undo()
        assert train("--epochs", 1, "--resume")[0] == 0  # resumes after space was freed


class TestEvaluationCalls:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--num-frames", 0], "num_frames is 0"),
            (["--batch-size", 0], "batch_size is 0"),
            (["--bank", -1], "bank_videos is -1"),
            (["--precision", "half"], "unknown precision 'half'"),
            (["--on-bad-video", "skp"], "unknown on_bad_video 'skp'"),
        ],
    )
    def test_invalid_values_are_refused(self, vop, a_run, table, words, says):
        status, out, err = vop("evaluate", a_run, "--data", table, *words)
        assert (status, out) == (2, "")
        assert says in err

    def test_json_cannot_be_written_to_a_folder(self, vop, a_run, table, tmp_path):
        status, _, err = vop("evaluate", a_run, "--data", table, "--json", tmp_path)
        assert (status, f"--json {tmp_path} is a folder" in err, "videos:" in err) == (2, True, False)

    def test_json_path_must_be_writable(self, vop, a_run, table, tmp_path):
        (tmp_path / "file").touch()
        status, out, err = vop("evaluate", a_run, "--data", table, "--json", tmp_path / "file/report.json")
        assert (status, f"{tmp_path / 'file'}: this folder cannot be created" in err) == (1, True)
        assert "gallery of 3 videos" in out  # the result is still printed

    def test_other_backbones_are_refused(self, vop, a_run, table, tmp_path):
        other = make_clip_folder(tmp_path / "other", seed=1)
        status, _, err = vop("evaluate", a_run, "--data", table, "--backbone", other)
        assert (status, "tuned on the backbone" in err, repr(str(other)) in err) == (1, True, True)

    @pytest.mark.parametrize(
        ("model", "status", "says"),
        [
            ("runs/cooking", 1, ["'runs/cooking'", "`mini`", "vop import openai"]),
            ("cooking", 2, ["'cooking'", "OWNER/NAME", "mini", "vop train --out"]),
            ("/nowhere/cooking", 2, ["'/nowhere/cooking'", "vop train --out"]),
            ("a b/c", 2, ["'a b/c'", "vop train --out"]),
            ("minni", 2, ["'minni'", "did you mean mini"]),
            ("ViT-B/23", 2, ["'ViT-B/23'", "did you mean ViT-B/32?"]),
        ],
    )
    def test_missing_runs_are_named(self, vop, table, model, status, says):
        got, out, err = vop("evaluate", model, "--data", table)
        assert (got, out) == (status, "")
        assert [part for part in says if part not in err] == []

    def test_folders_without_a_run_are_refused(self, vop, table):
        status, _, err = vop("evaluate", table.parent, "--data", table)
        assert (status, f"{table.parent}: config.json is missing" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "vpo"], "unknown method 'vpo': did you mean vop"),
        (["--set", "visual_promts=3"], "unknown setting 'visual_promts': did you mean visual_prompts"),
        (["--method", "vop", "--set", "split_layer=3"], "unknown setting 'split_layer'"),
    ],
)
def test_params_refuses_unknown_methods_and_settings(vop, words, says):
    status, out, err = vop("params", *words)
    assert (status, out) == (2, "")
    assert says in err


@pytest.mark.parametrize("option", ["--num-frames", "--size"])
def test_cache_of_invalid_sizes_is_refused(vop, table, tmp_path, option):
    status, _, err = vop("data", "cache", table, "--out", tmp_path / "cache", option, 0)
    assert (status, f"{option.removeprefix('--').replace('-', '_')} is 0;" in err) == (2, True)


def test_unreadable_files_are_named(vop, table, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(table))

    monkeypatch.setattr("vop.datasets.validation.check_dataset", refuse)
    status, _, err = vop("data", "check", table)
    assert (status, f"Permission denied: '{table}'" in err) == (1, True)
