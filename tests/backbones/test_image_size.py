"""Backbones with another image size than that of their weights."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPModel

import vop
from tiny_clip import make_clip_folder
from vop.backbones import find_backbone
from vop.errors import UsageError
from vop.models.pretrained import create
from vop.search.models import absolute_name, fingerprint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_clip_folder(tmp_path_factory.mktemp("clip"))  # 32 pixels, patches of 16


@pytest.mark.parametrize("size", [16, 64, 80])
def test_positions_are_interpolated_as_in_transformers(folder, size):
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours = find_backbone(f"{folder}@{size}").load().embed_frames(pixels[:, None])[:, 0]
    theirs = CLIPModel.from_pretrained(folder).eval()
    seen = theirs.vision_model(pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(ours, theirs.visual_projection(seen), rtol=0, atol=1e-5)


def test_the_original_size_changes_nothing(folder):
    same, plain = find_backbone(f"{folder}@32"), find_backbone(str(folder))
    assert (same.sizes, same.resizing, same.name) == (plain.sizes, plain.resizing, plain.name)


@pytest.mark.parametrize(
    ("size", "says"), [(40, "image_size is 40.*multiples of its patch size, 16"), (8, "image_size is 8")]
)
def test_invalid_sizes_are_refused(folder, size, says):
    with pytest.raises(UsageError, match=says):
        find_backbone(f"{folder}@{size}")


def test_a_run_keeps_its_image_size(folder, tmp_path):
    model = create("vop-f+c", f"{folder}@64", num_frames=2)
    frames = torch.randint(0, 256, (1, 2, 3, 64, 64), dtype=torch.uint8)
    model.save_pretrained(tmp_path / "run")
    opened = vop.load(tmp_path / "run", device="cpu")
    assert (opened.image_size, opened.resizing.size) == (64, 64)
    torch.testing.assert_close(opened.encode_frames(frames), model.to("cpu").encode_frames(frames))
    assert vop.load(f"{tmp_path / 'run'}@32", device="cpu").image_size == 32


def test_each_size_has_its_own_weights_and_fingerprint(folder):
    small, large = vop.load(folder, device="cpu"), None
    large = vop.load(f"{folder}@64", device="cpu", beside=[small])
    assert large.clip is not small.clip
    assert fingerprint(large) != fingerprint(small)
    assert vop.load(f"{folder}@64", device="cpu", beside=[small, large]).clip is large.clip


def test_a_library_keeps_the_image_size(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert absolute_name(f"{folder.name}@64") == f"{folder}@64"
    assert absolute_name("mini@64") == "mini@64"
    assert vop.load("mini@64", device="cpu").image_size == 64


def test_a_folder_may_be_named_like_a_size(tmp_path):
    assert find_backbone(str(make_clip_folder(tmp_path / "clip@64"))).sizes.vision.image_size == 32
