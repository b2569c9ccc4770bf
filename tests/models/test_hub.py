"""Publishing on the Hugging Face hub with a fake API, and hub ids."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard

import vop
from vop.backbones import source
from vop.models.pretrained import create


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A fake hub: uploads go to a folder, and downloads come from it."""
    uploaded = SimpleNamespace(folder=tmp_path / "hub", calls=[])

    class Api:
        def __init__(self, token=None):
            uploaded.calls.append(("token", token))

        def create_repo(self, repo_id, *, private=None, exist_ok=False):
            uploaded.calls.append(("create_repo", repo_id, private, exist_ok))
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            uploaded.calls.append(("upload_folder", repo_id, commit_message))
            shutil.copytree(folder_path, uploaded.folder / repo_id)
            return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")

    def download(name, **options):
        return str(uploaded.folder / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return uploaded


def test_a_published_model_opens_unchanged(hub, tiny):
    torch.manual_seed(0)
    model = create("vop", tiny, num_frames=3, device="cpu").eval()
    address = model.push_to_hub("me/cooking", private=True, token="secret", commit_message="First")
    assert address == "https://hub.example/me/cooking/commit/1"
    assert hub.calls == [
        ("token", "secret"),
        ("create_repo", "me/cooking", True, True),
        ("upload_folder", "me/cooking", "First"),
    ]
    folder = hub.folder / "me/cooking"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md", "backbone"}
    assert json.loads((folder / "config.json").read_text())["backbone"]["name"] == "./backbone"
    assert 'vop.load("me/cooking")' in (folder / "README.md").read_text()
    for name in ("me/cooking", "hf-hub:me/cooking"):
        opened = vop.load(name, device="cpu")
        assert torch.equal(opened.encode_text(["one"]), model.encode_text(["one"]))


def test_mini_is_published_by_its_name(hub):
    create("vop", "mini", num_frames=3, device="cpu").push_to_hub("me/mini")
    folder = hub.folder / "me/mini"
    assert not (folder / "backbone").exists()
    assert json.loads((folder / "config.json").read_text())["backbone"]["name"] == "mini"
    assert ModelCard.load(folder / "README.md").data.base_model is None


@pytest.mark.parametrize("name", ["hf-hub:openai/clip-vit-base-patch32", "hf-hub:ViT-B/32"])
def test_ids_with_the_hubs_prefix(name):
    assert source.find_sizes(name) == source.find_sizes("ViT-B/32")
