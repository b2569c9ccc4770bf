"""Every command on real files, in this process."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from converters.openai_files import make_state, write_vocabulary
from tiny_data import write_table
from vop import methods
from vop.cli.common import print_json


def test_help_imports_no_heavy_library():
    code = """
import sys
import vop
from vop.cli import build_parser
build_parser().format_help()
heavy = {"torch", "transformers", "av", "matplotlib", "pyarrow", "accelerate", "huggingface_hub", "numpy"}
heavy |= {"lancedb", "fastapi", "uvicorn", "pydantic", "PIL"}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_lists_every_command(vop):
    status, out, _ = vop("--help")
    assert status == 0
    commands = "demo params backbones data train evaluate index search serve library import"
    for command in commands.split():
        assert f"\n    {command} " in out


@pytest.mark.parametrize("words", [[], ["trian"], ["data"], ["train", "--epochs", "five", "--out", "x"]])
def test_wrong_calls_exit_with_2(vop, words):
    status, out, err = vop(*words)
    assert (status, out) == (2, "")
    assert "usage: vop" in err


def test_json_prints_lists_of_numbers_on_one_line(capsys):
    document = {
        **{"ranks": [1, 22, 3], "shares": [3.5e-7, -1.0], "rows": [[1], [2, 3]], "none": [], "mixed": [1, "a"]},
        **{"text": "[ 1, 2 ] and [\n1,\n2\n]", "nan": None},
    }
    print_json(document)
    out = capsys.readouterr().out
    assert json.loads(out) == document
    assert '"ranks": [1, 22, 3],' in out
    assert '"shares": [3.5e-07, -1.0],' in out


class TestParams:
    def test_json_counts_parameters(self, vop):
        status, out, err = vop("params", "--json")
        methods = json.loads(out)["methods"]
        assert (status, err) == (0, "")
        assert list(methods) == [
            *("zero-shot", "full", "bias", "proj", "partial", "adapter-attn", "adapter-ffn", "lora"),
            *("vop", "vop-p", "vop-c", "vop-f", "vop-f+p", "vop-f+c"),
            "vop-f+p+bias",
            "tempme",
            "stop",
            "discovla",
            *("dgl-linear", "dgl-transformer"),
        ]
        assert methods["vop"].items() >= {"paper_count": 122880, "paper_percent": 0.103, "true_count": 122880}.items()
        assert methods["vop-f"]["true_count"] == 132096

    def test_lora_is_omitted_without_peft(self, vop, monkeypatch):
        monkeypatch.setattr(methods, "find_spec", lambda name: None)
        status, out, err = vop("params", "--json")
        assert (status, "lora" in json.loads(out)["methods"]) == (0, False)
        assert err.startswith("lora ")
        assert "pip install 'vop[lora]'" in err

    def test_table_counts_parameters(self, vop):
        status, out, _ = vop("params")
        row = next(line for line in out.splitlines() if " vop-f+p " in line)
        assert status == 0
        assert row.replace("│", " ").split() == ["vop-f+p", "393,216", "0.328", "402,432", "0.266"]

    def test_settings_and_backbone_change_the_count(self, vop, tiny_folder):
        words = ["--backbone", tiny_folder, "--method", "vop", "--set", "visual_prompts=2", "--set", "text_layers=[1]"]
        out = vop("params", *words, "--json")[1]
        methods = json.loads(out)["methods"]
        assert list(methods) == ["vop"]
        assert methods["vop"]["true_count"] == 3 * 2 * 48 + 1 * 8 * 32  # layers x prompts x width of both towers


class TestData:
    @pytest.mark.usefixtures("real_processes")
    def test_check_counts_videos_and_captions(self, vop, table):
        status, out, _ = vop("data", "check", table)
        assert status == 0
        assert out.splitlines() == [
            "train: 5 videos, 5 captions",
            "test: 3 videos, 3 captions",
            "0 missing and 0 unreadable of 8 files",
        ]

    @pytest.mark.parametrize("how", [[], ["--decode"]])
    def test_check_lists_missing_and_unreadable_videos(self, vop, table, tmp_path, how):
        (tmp_path / "empty.mp4").touch()
        rows = [(str(table.parent / "clip0.mp4"), "a", "train"), ("gone.mp4", "b", "train"), ("empty.mp4", "c", "test")]
        bad = write_table(tmp_path / "bad.csv", rows)
        status, out, err = vop("data", "check", bad, *how)
        assert status == 1
        assert "1 missing and 1 unreadable of 3 files" in out
        assert f"{tmp_path / 'gone.mp4'}: the file does not exist" in err
        assert f"{tmp_path / 'empty.mp4'}: the file is empty (0 bytes)" in err
        status, out, _ = vop("data", "check", bad, "--json", *how)
        report = json.loads(out)
        assert (status, report["videos"], report["splits"]["train"]) == (1, 3, {"videos": 2, "captions": 2})
        assert [video["id"] for video in report["missing"]] == ["gone.mp4"]
        assert [video["id"] for video in report["unreadable"]] == ["empty.mp4"]

    @pytest.mark.usefixtures("real_processes")
    def test_cache_decodes_once(self, vop, table, tmp_path):
        words = ["data", "cache", table, "--out", tmp_path / "cache", "--size", 32, "--num-frames", 2]
        status, out, _ = vop(*words)
        assert (status, re.findall(r"\d+", out)) == (0, ["8", "0", "0"])  # decoded, already in the cache, failed
        status, out, _ = vop(*words, "--json")
        assert (status, json.loads(out)) == (0, {"decoded": 0, "reused": 8, "failed": []})

    def test_caches_can_match_a_backbone(self, vop, train, table, squashing_folder, tmp_path):
        words = ["data", "cache", table, "--out", tmp_path / "cache", "--num-frames", 2, "--json"]
        assert vop(*words, "--size", 32)[0] == 0
        status, out, _ = vop(*words, "--backbone", squashing_folder)
        assert (status, json.loads(out)["decoded"]) == (0, 8)
        before = sorted((tmp_path / "cache").rglob("*.safetensors"))
        assert len(before) == 16
        assert train("--backbone", squashing_folder, "--cache", tmp_path / "cache")[0] == 0
        assert sorted((tmp_path / "cache").rglob("*.safetensors")) == before
        status, _, err = vop(*words, "--backbone", squashing_folder, "--size", 33)
        assert status == 2
        assert "33" in err


class TestTrain:
    @pytest.mark.usefixtures("real_processes")
    def test_training_writes_a_run(self, train, vop, table, tmp_path):
        status, out, err = train()
        assert status == 0
        assert {path.name for path in (tmp_path / "run").iterdir()} == {
            *("config.json", "model.safetensors", "README.md", "training"),
        }
        assert [line.split(":")[0] for line in out.splitlines()[:2]] == ["epoch 1", "epoch 2"]
        assert "validation t2v R@1" in out
        assert "training: 4/4, epoch 2/2, loss" in err  # no terminal: lines, on standard error
        assert not (tmp_path / "run/training/frames").exists()

    def test_cached_frames_give_the_same_weights(self, train, vop, table, tmp_path):
        vop("data", "cache", table, "--out", tmp_path / "cache", "--size", 32, "--num-frames", 2)
        assert train("--cache", tmp_path / "cache")[0] == 0
        assert train("--out", tmp_path / "other")[0] == 0
        one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "other"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)

    @pytest.mark.parametrize("head", ["seqTransf", "tightTransf"])
    def test_trained_heads_can_be_evaluated(self, train, vop, table, tmp_path, head):
        assert train("--head", head)[0] == 0
        config = json.loads((tmp_path / "run/config.json").read_text())
        assert config["head"]["name"] == head
        status, out, _ = vop("evaluate", tmp_path / "run", "--data", table, "--json")
        report = json.loads(out)
        assert (status, report["method"], report["gallery_size"]) == (0, f"vop/{head}", 3)
        assert set(report["rescored"]) == ({"dual softmax", "qb-norm"} if head != "tightTransf" else set())
        tensors = load_file(tmp_path / "run/model.safetensors")
        assert any(name.startswith("head.") for name in tensors)
        assert any(name.startswith("method.") for name in tensors)

    @pytest.mark.parametrize("method", ["full", "lora", "adapter-ffn"])
    def test_baselines_save_their_trained_parameters(self, train, vop, table, tiny_folder, tmp_path, method):
        assert train("--method", method)[0] == 0
        saved = sum(tensor.numel() for tensor in load_file(tmp_path / "run/model.safetensors").values())
        counted = json.loads(vop("params", "--backbone", tiny_folder, "--method", method, "--json")[1])
        assert saved == counted["methods"][method]["true_count"]
        assert vop("evaluate", tmp_path / "run", "--data", table, "--bank", 0)[0] == 0

    def test_options_override_the_recipe(self, vop, table, tiny_folder, tmp_path):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"data: {table}\nbackbone: {tiny_folder}\nmethod: vop-p\nepochs: 9\nbatch_size: 2\nworkers: 0\n"
            "learning_rate: 1e-3\nsettings: {num_frames: 2, visual_prompts: 4, specific_prompts: 1}\n"
        )
        words = ["--epochs", 1, "--set", "specific_prompts=3", "--set", "text_layers=[2]"]
        assert vop("train", "--config", recipe, "--out", tmp_path / "run", *words)[0] == 0
        config = json.loads((tmp_path / "run/config.json").read_text())
        assert config["method"] == "vop-p"
        assert config["settings"] == {
            **{"num_frames": 2, "text_prompts": 8, "visual_prompts": 4, "specific_prompts": 3},
            **{"text_layers": [2], "visual_layers": None},
        }
        card = config["card"]
        assert (card["epochs"], card["learning_rate"], card["batch_size"]) == (1, 1e-3, 2)

    def test_resuming_a_finished_run_changes_nothing(self, train, tmp_path):
        train()
        before = (tmp_path / "run/model.safetensors").read_bytes()
        status, out, _ = train("--resume")
        assert status == 0
        assert "epoch 2: loss" in out
        assert (tmp_path / "run/model.safetensors").read_bytes() == before

    def test_resume_without_a_run_starts_one(self, train, tmp_path):
        assert train("--resume")[0] == 0
        assert (tmp_path / "run/model.safetensors").exists()


class TestEvaluate:
    @pytest.mark.usefixtures("real_processes")
    def test_table_shows_the_metrics(self, vop, a_run, table):
        status, out, _ = vop("evaluate", a_run, "--data", table)
        assert status == 0
        assert "vop-f+p on colours, test" in out
        assert "gallery of 3 videos" in out
        for row in ("t2v ", "v2t ", "dual softmax", "qb-norm"):
            assert row in out

    def test_json_is_alone_on_standard_output(self, vop, a_run, table):
        status, out, _ = vop("evaluate", a_run, "--data", table, "--json")
        report = json.loads(out)
        assert status == 0
        assert set(report["t2v"]) == {"r1", "r5", "r10", "mdr", "mnr"} == set(report["v2t"])
        assert (report["method"], report["data"], report["gallery_size"]) == ("vop-f+p", "colours", 3)
        assert report["selection"] == "validation-selected"

    def test_json_can_be_written_to_a_file(self, vop, a_run, table, tmp_path):
        status, out, _ = vop("evaluate", a_run, "--data", table, "--json", tmp_path / "report.json", "--bank", 0)
        report = json.loads((tmp_path / "report.json").read_text())
        assert status == 0
        assert "gallery of 3 videos" in out
        assert list(report["rescored"]) == ["dual softmax"]

    def test_another_number_of_frames_is_noted(self, vop, a_run, table):
        report = json.loads(vop("evaluate", a_run, "--data", table, "--num-frames", 3, "--json")[1])
        assert report["settings"]["num_frames"] == 3
        assert report["notes"] == [
            "tuned with 2 frames per video, evaluated with 3; its frame positions are interpolated"
        ]

    def test_clip_folders_are_zero_shot(self, vop, tiny_folder, table):
        out = vop("evaluate", tiny_folder, "--data", table, "--split", "train", "--num-frames", 3, "--json")[1]
        report = json.loads(out)
        assert (report["method"], report["selection"], report["split"]) == ("zero-shot", "untrained", "train")
        assert (report["gallery_size"], report["settings"]["num_frames"]) == (5, 3)

    def test_against_a_model(self, vop, a_run, tiny_folder, table):
        status, out, _ = vop("evaluate", a_run, "--data", table, "--against", tiny_folder, "--num-frames", 2)
        assert status == 0
        lines = [line.split() for line in out.splitlines()]
        heads = ["direction", "recall", "vop-f+p", "zero-shot", "difference", "95", "%", "p"]
        assert "vop-f+p on colours, test" in out.partition("recall")[0]
        assert [line[0] for line in lines[lines.index(heads) :] if "R@1" in line] == ["t2v", "v2t"]
        assert "10,000 random swaps" in out

    def test_against_a_saved_report(self, vop, a_run, tiny_folder, table, tmp_path):
        saved = tmp_path / "zero-shot.json"
        vop("evaluate", tiny_folder, "--data", table, "--num-frames", 2, "--json", saved)
        words = ["evaluate", a_run, "--data", table, "--num-frames", 2, "--against"]
        status, out, _ = vop(*words, saved, "--json")
        report, other = json.loads(out), json.loads(saved.read_text())
        against = report["against"]
        assert status == 0
        assert (against.pop("source"), against["method"]) == (str(saved), "zero-shot")
        for direction in ("t2v", "v2t"):
            for name, found in against[direction].items():
                assert found["difference"] == report[direction][name] - other[direction][name]
                assert found.keys() == {"difference", "interval", "p"}
        by_model = json.loads(vop(*words, tiny_folder, "--json")[1])["against"]
        assert by_model == {"source": str(tiny_folder)} | against

    def test_against_itself_finds_no_difference(self, vop, a_run, table, tmp_path):
        out = vop("evaluate", a_run, "--data", table, "--against", a_run, "--json")[1]
        against = json.loads(out)["against"]
        assert against["method"] == "vop-f+p"
        assert against["t2v"]["r1"] == against["v2t"]["r5"] == {"difference": 0, "interval": [0, 0], "p": 1}

    def test_against_another_gallery_keeps_the_evaluation(self, vop, a_run, table, tmp_path):
        saved, mine = tmp_path / "train.json", tmp_path / "mine.json"
        vop("evaluate", a_run, "--data", table, "--split", "train", "--json", saved)
        status, out, err = vop("evaluate", a_run, "--data", table, "--against", saved, "--json", mine)
        assert status == 2
        assert "3 texts and 3 videos against 5 texts and 5 videos" in err
        assert "vop-f+p on colours, test" in out
        report = json.loads(mine.read_text())
        assert report["gallery_size"] == 3
        assert "against" not in report

    @pytest.mark.parametrize("name", ["params.json", "gone.json", "gone"])
    def test_against_needs_a_report_or_a_model(self, vop, a_run, table, tmp_path, name):
        (tmp_path / "params.json").write_text(vop("params", "--json")[1])
        status, out, err = vop("evaluate", a_run, "--data", table, "--against", tmp_path / name)
        assert (status, out) == (2, "")  # before anything is ranked
        assert str(tmp_path / name) in err

    @pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
    def test_saved_embeddings_give_the_same_report(self, vop, a_run, table, tmp_path, suffix):
        saved = tmp_path / f"saved{suffix}"
        status, out, _ = vop("evaluate", a_run, "--data", table, "--save-embeddings", saved, "--json")
        expected = json.loads(out)
        assert status == 0
        status, out, _ = vop("evaluate", "--embeddings", saved, "--json")
        report = json.loads(out)
        assert status == 0
        assert report["settings"] == {"embeddings": saved.name, "score": "dot", "dimension": 16}
        for key in ("t2v", "v2t", "rescored", "confidence", "ranks", "fingerprint", "method", "data", "split", "rsum"):
            assert report[key] == expected[key]
        assert "qb-norm" in report["rescored"]
        status, out, _ = vop("evaluate", "--embeddings", saved, "--against", saved)
        assert status == 0
        assert "vop-f+p on colours, test" in out

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            (["RUN"], "RUN"),
            (["--data", "test.csv"], "--data"),
            (["--write-card", "--num-frames", 3], "--num-frames, --write-card"),
            (["--score", "l2"], "'l2'"),
            (["--save-embeddings", "b.npz"], "--save-embeddings"),
        ],
    )
    def test_embeddings_replace_a_model_and_its_data(self, vop, tmp_path, words, named):
        (tmp_path / "a.npz").write_bytes(b"")
        status, out, err = vop("evaluate", *words, "--embeddings", tmp_path / "a.npz")
        assert (status, out) == (2, "")
        assert named in err

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            ([], "required: RUN, --data"),
            (["RUN"], "required: --data"),
            (["--data", "test.csv", "--json"], "required: RUN"),
            (["RUN", "--data", "test.csv", "--score", "dot"], "--score"),
            (["RUN", "--data", "test.csv", "--save-embeddings", "a.txt"], "a.txt"),
        ],
    )
    def test_model_and_data_are_required_without_embeddings(self, vop, words, named):
        status, out, err = vop("evaluate", *words)
        assert (status, out) == (2, "")
        assert named in err


class TestImport:
    def test_openai_checkpoints_can_be_imported(self, vop, tmp_path):
        torch.save(make_state(), tmp_path / "clip.pt")
        write_vocabulary(tmp_path / "words.gz")
        words = ["--vocabulary", tmp_path / "words.gz", "--out", tmp_path / "clip"]
        words += ["--heads", 2, "--text-heads", 1, "--activation", "quick-gelu"]
        status, out, _ = vop("import", "openai", tmp_path / "clip.pt", *words)
        assert status == 0
        assert out.endswith(f"--backbone {tmp_path}/clip\n")
        assert vop("params", "--backbone", tmp_path / "clip", "--method", "vop")[0] == 0

    @pytest.mark.parametrize("kind", ["openai", "modelscope"])
    def test_missing_files_are_named(self, vop, tmp_path, kind):
        status, out, err = vop("import", kind, tmp_path / "gone", "--out", tmp_path / "out")
        assert (status, out) == (2, "")
        assert str(tmp_path / "gone") in err
        assert not (tmp_path / "out").exists()
