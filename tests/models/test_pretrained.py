"""A run's folder: moved, damaged or with another backbone; and its model card."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import vop
from tiny_clip import make_clip_folder
from vop.errors import UsageError, VopError
from vop.models.card import made_with
from vop.models.pretrained import create
from vop.utils import files
from vop.version import VERSION

METRICS = {"r1": 12.34, "r5": 50.0, "r10": 60.0, "mdr": 5.0, "mnr": 7.5}
SETTINGS = {"num_frames": 3, "text_prompts": 2, "visual_layers": [1, 3], "split_layer": 2, "specific_prompts": 1}


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    return create("vop-f+p", tiny, **SETTINGS)


@pytest.fixture
def run(model, tmp_path):
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def change(run, **values):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_moved_run_opens_unchanged(model, run, tmp_path):
    copy = tmp_path / "elsewhere"
    run.rename(copy)
    opened = vop.load(copy)
    pixels = torch.rand(2, 3, 3, 32, 32)
    assert opened.method_name == "vop-f+p"
    assert opened.method.settings == model.method.settings
    assert opened.method.settings.items() >= SETTINGS.items()
    assert not opened.training
    assert torch.equal(opened.encode_text(["one", "two"]), model.encode_text(["one", "two"]))
    assert torch.equal(opened.embed_frames(pixels), model.embed_frames(pixels))


def test_a_run_contains_only_trained_tensors(model, run):
    assert {path.name for path in run.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert load_file(run / "model.safetensors").keys() == model.trainable().keys()


def test_a_backbone_in_the_run_moves_with_it(tiny_folder, tmp_path):
    from vop.backbones import find_backbone

    inside = shutil.copytree(tiny_folder, tmp_path / "run/backbone")
    create("vop", find_backbone(str(inside))).save_pretrained(tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert vop.load(moved).backbone.folder == moved / "backbone"


class TestBackbone:
    def test_another_backbone_is_refused(self, run, tiny, tmp_path):
        other = make_clip_folder(tmp_path / "other", seed=3)
        with pytest.raises(VopError, match=f"tuned on the backbone .*{tiny.content_hash()[:12]}"):
            vop.load(run, backbone=str(other))

    def test_a_moved_backbone_can_be_given(self, run, tiny_folder, tmp_path):
        moved = shutil.copytree(tiny_folder, tmp_path / "moved")
        config = json.loads((run / "config.json").read_text())
        change(run, backbone=config["backbone"] | {"name": "/missing/clip"})
        with pytest.raises(VopError, match="its backbone was at /missing/clip, which does not exist"):
            vop.load(run)
        assert vop.load(run, backbone=str(moved)).backbone.folder == moved


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ('{"method": "vop"', "config.json: not readable as JSON"),
            ("\udcff", "config.json: not readable as JSON"),
            ('["method"]', "config.json: .*list"),
            ('{"method": "vop"}', r"config\.json: 'format' is missing"),
            ('{"method": "vop", "format": 1, "settings": [], "backbone": {}}', r"settings is \[\]"),
            ('{"method": "vop", "format": 1, "settings": {}, "backbone": {}}', r"'backbone\.name' is missing"),
            (
                '{"method": "vop", "format": 1, "settings": {}, "backbone": {"name": "x"}}',
                r"'backbone\.sha256' is missing",
            ),
            ('{"method": "vop", "format": 9, "settings": {}, "backbone": {"name": "", "sha256": ""}}', "format 9"),
        ],
    )
    def test_a_damaged_configuration(self, run, content, says):
        (run / "config.json").write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(VopError, match=says):
            vop.load(run)

    @pytest.mark.parametrize(("values", "says"), [({"method": "vpo"}, "'vpo'"), ({"settings": {"x": 1}}, "'x'")])
    def test_unknown_names(self, run, values, says):
        change(run, **values)
        with pytest.raises(UsageError, match=says):
            vop.load(run)

    def test_a_missing_configuration(self, run, tmp_path):
        (run / "config.json").unlink()
        with pytest.raises(VopError, match=r"run: config\.json is missing.*--resume"):
            vop.load(run)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match=r"empty: config\.json is missing"):
            vop.load(tmp_path / "empty")

    @pytest.mark.parametrize("content", [b"", b"abc", None])
    def test_damaged_weights(self, run, content):
        weights = run / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8] if content is None else content)
        with pytest.raises(VopError, match=r"model\.safetensors is damaged"):
            vop.load(run)
        weights.unlink()
        with pytest.raises(VopError, match=r"model\.safetensors is missing"):
            vop.load(run)

    def test_tensors_that_do_not_fit(self, run):
        state = load_file(run / "model.safetensors")
        name = next(iter(state))
        save_file({**state, "extra": torch.ones(1)}, run / "model.safetensors")
        with pytest.raises(VopError, match="'extra'"):
            vop.load(run)
        save_file({**state, name: torch.ones(7)}, run / "model.safetensors")
        with pytest.raises(VopError, match=rf"{name} has the shape \(7,\)"):
            vop.load(run)


def test_a_full_disk_keeps_the_old_run(model, run, monkeypatch):
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(VopError, match=r"model\.safetensors: no space left"):
        model.save_pretrained(run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_cannot_be_saved_into_a_file(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VopError, match="file: this folder cannot be created"):
        model.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("config", ["config.json", "open_clip_config.json"])
def test_a_run_does_not_replace_a_backbone(model, tiny_folder, tmp_path, config):
    backbone = shutil.copytree(tiny_folder, tmp_path / "backbone")
    (backbone / "config.json").rename(backbone / config)
    before = {path.name: path.read_bytes() for path in backbone.iterdir()}
    with pytest.raises(UsageError, match="backbone holds a backbone"):
        model.save_pretrained(backbone)
    assert {path.name: path.read_bytes() for path in backbone.iterdir()} == before


class TestCard:
    def read(self, model, folder):
        """Save the model; return the card's front matter and text."""
        model.save_pretrained(folder)
        _, front, text = (folder / "README.md").read_text().split("---\n", 2)
        return yaml.safe_load(front), text

    @pytest.mark.parametrize("before", [b"", b"# My recordings\n", b"caf\xe9\n"])
    def test_what_the_owner_wrote_below_is_kept(self, model, tmp_path, before):
        card = tmp_path / "README.md"
        card.write_bytes(before)
        for _ in range(2):
            model.save_pretrained(tmp_path)
            with card.open("ab") as file:
                file.write(b"a note\n")
        text = card.read_bytes()
        assert text.count(b"library_name: vop") == 1
        assert text.endswith(before + b"a note\na note\n")

    def test_it_names_method_and_backbone(self, model, tmp_path, tiny_folder):
        front, text = self.read(model, tmp_path / "run")
        assert front["library_name"] == "vop"
        assert front["pipeline_tag"] == "feature-extraction"
        assert "base_model" not in front  # a folder is not a hub id
        assert text.startswith(f"\n# vop-f+p on {tiny_folder.name}\n")
        assert str(tiny_folder) not in text
        assert "no record" in text
        assert '"split_layer": 2' in text

    def test_names_are_escaped(self, model, tmp_path):
        evil = "a`|<img src=x>[b](javascript:c)\n# \x1b[31m"
        model.card = {"data": evil, evil: "x"}
        _, text = self.read(model, tmp_path / "run")
        assert "- data: a\\`\\|&lt;img src=x&gt;\\[b\\](javascript:c) # \\x1b\\[31m\n" in text.replace(
            "\\\\x1b", "\\x1b"
        )
        assert "<img" not in text
        assert "\x1b" not in text
        assert vop.load(tmp_path / "run").card == model.card

    def test_results_are_in_a_table(self, model, tmp_path):
        model.card = {"data": "cooking", "results": {"t2v": METRICS, "v2t": METRICS | {"r1": 98.76}}}
        _, text = self.read(model, tmp_path / "run")
        assert "- data: cooking\n" in text
        assert "| t2v | 12.3 | 50.0 | 60.0 | 5.0 | 7.5 |\n| v2t | 98.8 | 50.0 | 60.0 | 5.0 | 7.5 |\n" in text
        assert vop.load(tmp_path / "run").card == model.card

    def test_the_hub_can_read_its_metadata(self, model, tmp_path):
        results = {"t2v": METRICS, "v2t": METRICS, "data": "Cooking 2", "split": "test", "gallery_size": 1234}
        model.card = {"data": "hf:me/cooking", "license": "mit", "results": results | {"precision": "bfloat16"}}
        model.save_pretrained(tmp_path)
        card = ModelCard.load(tmp_path / "README.md")
        data = card.data
        assert (data.library_name, data.license, data.datasets) == ("vop", "mit", ["me/cooking"])
        assert {"text-video-retrieval", "clip"} <= set(data.tags)
        found = {(result.metric_name, result.metric_value) for result in data.eval_results}
        assert len(found) == 10
        assert {("text to video R@1", 12.34), ("video to text MnR", 7.5)} <= found
        first = data.eval_results[0]
        assert (first.dataset_type, first.dataset_name, first.dataset_split) == ("cooking-2", "Cooking 2", "test")
        assert "data: Cooking 2; split: test; gallery: 1,234 videos; precision: bfloat16\n" in card.text

    def test_a_backbone_of_the_hub_is_the_base_model(self, model, tmp_path):
        model.backbone = replace(model.backbone, name="openai/clip-vit-base-patch32", revision="3d74acf")
        model.save_pretrained(tmp_path)
        assert ModelCard.load(tmp_path / "README.md").data.base_model == "openai/clip-vit-base-patch32"

    def test_it_records_precision_and_versions(self):
        facts = made_with(torch.bfloat16)
        assert facts["computed_in"] == "bfloat16"
        assert (
            facts["torch_version"] == torch.__version__.partition("+")[0] or facts["torch_version"] in torch.__version__
        )
        assert facts["vop_version"] == VERSION
        assert "transformers_version" in facts


def test_a_run_of_an_earlier_version_opens(run, model):
    """Earlier versions wrote no head, no card, and fewer keys."""
    config = json.loads((run / "config.json").read_text())
    for key in ("head", "card", "preprocessing", "vop_version"):
        del config[key]
    config["card_of_later"] = {"some": "thing"}
    (run / "config.json").write_text(json.dumps(config))
    opened = vop.load(run)
    assert (opened.head_name, opened.card) == ("meanP", {})
    assert torch.equal(opened.encode_text(["one"]), model.encode_text(["one"]))


def test_a_run_whose_package_is_missing_names_it(run):
    change(run, method="dance", packages={"method": "vop-dance 2.1"})
    with pytest.raises(VopError, match=r"'dance' came from vop-dance 2\.1, .* pip install vop-dance"):
        vop.load(run)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_frames": 10**9}, "num_frames is 1,000,000,000; it must be a whole number from 1 to 4,096"),
        ({"text_prompts": 10**9}, "text_prompts is 1,000,000,000"),
        ({"visual_prompts": 10**9}, "visual_prompts is 1,000,000,000"),
        ({"visual_prompts": 9_000, "specific_prompts": 9_000, "num_frames": 4096}, "has .* parameters"),
        ({"num_frames": [0] * 10**5}, r"num_frames is \[0, 0"),
    ],
)
def test_settings_that_need_too_much_memory_are_refused(run, settings, says):
    saved = json.loads((run / "config.json").read_text())["settings"]
    change(run, settings=saved | settings)
    with pytest.raises(UsageError, match=says) as caught:
        vop.load(run)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_instead_of_a_file_is_refused(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(VopError, match=f"{name}: this is a pipe, not a file"):
        vop.load(run)


def test_weights_of_another_shape_are_not_read(run):
    """The header is enough to refuse them."""
    state = load_file(run / "model.safetensors")
    name = max(state, key=lambda key: state[key].numel())
    save_file(state | {name: torch.zeros(7, 3)}, run / "model.safetensors")
    with pytest.raises(VopError, match=rf"{name} has the shape \(7, 3\)"):
        vop.load(run)
