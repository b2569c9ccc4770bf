"""`vop backbones` lists families and checkpoints, and describes backbones, without their weights."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from tiny_backbones import make_x_clip_folder
from vop.backbones.known import KNOWN
from vop.utils import registry


@pytest.fixture
def listed(vop):
    status, out, err = vop("backbones", "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_lists_families_with_their_methods(listed):
    methods = {family["name"]: family["methods"] for family in listed["families"]}
    assert (
        methods.items()
        >= {"clip": "all", "siglip": "all", "open_clip": "all or zero-shot", "xclip": "zero-shot"}.items()
    )
    assert {known.family for known in KNOWN} <= methods.keys()


def test_lists_known_checkpoints(listed):
    found = {one["name"]: one for one in listed["backbones"]}
    assert list(found) == [known.name for known in KNOWN]
    siglip = found["google/siglip2-base-patch16-224"]
    values = {"embed_dim": 768, "image_size": 224, "millions": 375, "languages": "100+", "license": "apache-2.0"}
    assert siglip.items() >= {"methods": "all", **values}.items()
    video = found["google/videoprism-lvt-base-f16r288"]
    assert (video["methods"], video["num_frames"], video["license"]) == ("zero-shot", 16, None)


def test_tables_match_the_json(vop):
    status, out, _ = vop("backbones")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert status == 0
    assert ["CLIP", "clip", "all"] in rows
    assert any(row[1:] == ["all", "1,024", "336", "671", "English", "apache-2.0"] for row in rows)
    assert any(row[-1] == "–" for row in rows)


def test_describes_a_folder(vop, tiny_folder, tiny):
    status, out, _ = vop("backbones", tiny_folder, "--json")
    (found,) = json.loads(out)["backbones"]
    assert (status, found["name"], found["family"]) == (0, str(tiny_folder), "clip")
    assert (found["embed_dim"], found["image_size"]) == (tiny.sizes.embed_dim, tiny.sizes.vision.image_size)
    protocol = found["protocol"]
    assert (protocol["loss"], protocol["text"]["causal"]) == ("infonce", True)
    assert protocol["text"]["positions"] == tiny.sizes.text.positions
    assert protocol["preprocessing"]["mode"] == "crop"


def test_describes_known_ids_at_another_size_offline(vop):
    status, out, _ = vop("backbones", "ViT-B/32@256", "google/siglip-base-patch16-224@256", "--json")
    clip, siglip = json.loads(out)["backbones"]
    assert status == 0
    assert (clip["name"], clip["image_size"], clip["protocol"]["vision"]["patches"]) == (
        "openai/clip-vit-base-patch32",
        256,
        64,
    )
    assert siglip["protocol"]["vision"]["readout"] == "attention pooling"
    assert siglip["protocol"]["text"]["padded_to_all_positions"] is True


def test_describes_encoders_without_layers(vop):
    status, out, _ = vop("backbones", "microsoft/xclip-base-patch32")
    values = dict(line.strip("│ ").split("│") for line in out.splitlines() if line.startswith("│"))
    values = {heading.strip(): value.strip() for heading, value in values.items()}
    assert (status, values["methods"], values["num frames"], values["text: readout"]) == (0, "zero-shot", "8", "–")


def test_unknown_names_are_refused(vop):
    status, out, err = vop("backbones", "ViT-B/33")
    assert (status, out) == (2, "")
    assert "ViT-B/32" in err


def test_families_of_broken_packages_are_skipped(vop, monkeypatch):
    broken = EntryPoint("broken", "no_such_package.family:Family", "vop.families")
    real = registry.installed_points
    monkeypatch.setattr(
        registry, "installed_points", lambda group: EntryPoints([broken]) if group == broken.group else real(group)
    )
    status, out, err = vop("backbones", "--json")
    assert status == 0
    assert "broken" not in {family["name"] for family in json.loads(out)["families"]}
    assert "no_such_package" in err


def test_speeds_in_json(vop, tiny_folder):
    options = ["--device", "cpu", "--precision", "fp32", "--num-frames", "2", "--threads", "1"]
    status, out, _ = vop("backbones", "--measure", tiny_folder, "mini", *options, "--json")
    document = json.loads(out)
    assert status == 0
    assert (document["device"], document["precision"], document["threads"]) == ("cpu", "fp32", 1)
    assert (document["weights"], [one["name"] for one in document["backbones"]]) == (
        "random",
        [str(tiny_folder), "mini"],
    )
    for one in document["backbones"]:
        assert (one["num_frames"], one["problem"]) == (2, None)
        assert min(one["videos_per_second"], one["texts_per_second"], one["query_milliseconds"]) > 0


def test_speeds_as_a_table(vop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a short name stands on one line
    make_x_clip_folder(tmp_path / "x-clip")
    status, out, err = vop("backbones", "--measure", "x-clip", "--num-frames", "5")
    (row,) = [line for line in out.splitlines() if "x-clip" in line and "│" in line]
    assert status == 0
    assert row.count("–") == 4
    assert "num_frames is 5" in out
    assert "Random weights" in out
    assert "measuring: 1/1" in err


@pytest.mark.parametrize("words", [["--measure", "mini", "--num-frames", "0"], ["mini", "--num-frames", "4"]])
def test_a_wrong_number_of_frames_is_refused(vop, words):
    status, out, err = vop("backbones", *words)
    assert (status, out) == (2, "")
    assert "num" in err


def test_an_unknown_name_is_not_measured(vop):
    status, out, err = vop("backbones", "--measure", "ViT-B/33")
    assert (status, out) == (2, "")
    assert "ViT-B/32" in err
