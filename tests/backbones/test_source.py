"""Where backbones are found, and errors for missing or damaged ones."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

import vop
from tiny_clip import make_clip_folder
from vop.backbones import find_backbone, find_sizes
from vop.backbones.known import pinned_revision
from vop.backbones.source import DEFAULT_HUB_ID, UnknownBackbone
from vop.errors import UsageError, VopError
from vop.models.pretrained import create

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache without a network, and a function that adds a folder to it."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))

    def put(name, folder, *, commit=COMMIT, ref="main"):
        repository = cache / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / commit
        shutil.copytree(folder, snapshot)
        if ref:
            (repository / "refs").mkdir()
            (repository / "refs" / ref).write_text(commit)
        return snapshot

    return put


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "clip")


class TestBounds:
    """Hostile and broken folders are refused at once, before memory is allocated."""

    @pytest.mark.parametrize(
        ("part", "changes", "says"),
        [
            ("vision_config", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000; at most 200"),
            ("text_config", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000"),
            ("vision_config", {"hidden_size": 3 * 10**8}, "hidden_size is 300,000,000"),
            ("vision_config", {"image_size": 10**6}, "image_size is 1,000,000; at most 4,096"),
            ("vision_config", {"patch_size": 64}, "patch_size is 64; .*image_size, 32"),
            ("text_config", {"vocab_size": 10**10, "eos_token_id": 2}, "vocab_size is 10,000,000,000"),
            ("text_config", {"eos_token_id": 10**6}, "eos_token_id is 1000000; .*vocab_size"),
            ("text_config", {"max_position_embeddings": 10**9}, "max_position_embeddings is 1,000,000,000"),
            ("text_config", {"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
            ("vision_config", {"hidden_size": [0] * 10**5}, r"hidden_size is \[0, 0, .*; it must be a whole number"),
        ],
    )
    def test_sizes(self, folder, part, changes, says):
        config = json.loads((folder / "config.json").read_text())
        config[part] |= changes
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(VopError, match=rf"config\.json: not a valid configuration of CLIP: {says}") as caught:
            find_backbone(str(folder))
        assert len(str(caught.value)) < 1000

    def test_the_embedding(self, folder):
        write_json(folder / "config.json", projection_dim=10**9)
        with pytest.raises(VopError, match="projection_dim is 1,000,000,000; at most 20,000"):
            find_backbone(str(folder))

    @pytest.mark.parametrize("values", [[0.5, 0.5, 0], [1, 1, float("nan")], [True, 1, 1], [0.1] * 10**5])
    def test_colours(self, folder, values):
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_std": values}))
        with pytest.raises(VopError, match="preprocessor_config.json: image_std is") as caught:
            find_backbone(str(folder))
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize("content", ["[" * 10**5, '{"a":' * 10**5, '{"a": ' + "1" * 5000 + "}", b"\xff\xfe"])
    def test_configurations_that_are_not_json(self, folder, content):
        (folder / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(VopError, match=r"config\.json: not readable as JSON"):
            find_backbone(str(folder))

    @pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "tokenizer.json"])
    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_pipes_and_devices(self, folder, name, kind):
        (folder / name).unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to("/dev/zero")
        with pytest.raises(VopError, match=f"{name}: this is a {kind}, not a file"):
            create("zero-shot", str(folder)).backbone.content_hash()

    def test_weights_of_another_size(self, folder):
        with (folder / "model.safetensors").open("r+b") as file:
            file.truncate(2**40)  # sparse, so it uses no disk space
        with pytest.raises(VopError, match="the weights have 1,099,511,627,776 bytes; .*config.json"):
            find_backbone(str(folder)).load()

    def test_an_endless_header(self, folder):
        path = folder / "model.safetensors"
        path.write_bytes((2**26).to_bytes(8, "little") + b"{" + b" " * 2**20)
        with pytest.raises(VopError, match=r"model\.safetensors: .*damaged.* 67,108,864 bytes"):
            find_backbone(str(folder)).load()

    def test_a_vocabulary_of_another_model(self, folder):
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"]["onion</w>"] = 90_000
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(VopError, match="vocabulary .* 90000, .*embedding .* 513"):
            create("zero-shot", str(folder))

    def test_an_endless_vocabulary(self, folder):
        with (folder / "tokenizer.json").open("r+b") as file:
            file.truncate(2**40)
        with pytest.raises(VopError, match=r"tokenizer\.json: the file has 1,099,511,627,776 bytes"):
            create("zero-shot", str(folder))


def write_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestHub:
    def test_a_cached_backbone_needs_no_network(self, hub, tiny, tiny_folder):
        hub("owner/clip", tiny_folder)
        found = find_backbone("owner/clip")
        assert (found.name, found.revision) == ("owner/clip", COMMIT)
        assert found.content_hash() == tiny.content_hash()
        assert find_sizes("owner/clip") == tiny.sizes

    def test_the_default_is_pinned_and_read_without_pickle(self, hub, tiny, folder):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        hub(DEFAULT_HUB_ID, folder, commit=pinned_revision(DEFAULT_HUB_ID), ref=None)
        found = find_backbone("ViT-B/32")
        assert (found.name, found.revision) == (DEFAULT_HUB_ID, pinned_revision(DEFAULT_HUB_ID))
        ours, same = found.load().state_dict(), tiny.load().state_dict()
        assert ours.keys() == same.keys()
        assert all(torch.equal(ours[name], same[name]) for name in same)

    def test_code_in_weights_is_not_run(self, folder, tmp_path):
        class Touch:
            def __reduce__(self):
                return (type(tmp_path).touch, (tmp_path / "touched",))

        (folder / "model.safetensors").unlink()
        torch.save({"logit_scale": Touch()}, folder / "pytorch_model.bin")
        with pytest.raises(VopError, match="clip: the weights .*more than tensors"):
            find_backbone(str(folder)).load()
        assert not (tmp_path / "touched").exists()

    def test_a_cached_run_needs_no_network(self, hub, tiny_folder, tmp_path):
        hub("owner/clip", tiny_folder)
        model = create("vop", "owner/clip", num_frames=2)
        model.save_pretrained(tmp_path / "run")
        config = json.loads((tmp_path / "run/config.json").read_text())
        assert (config["backbone"]["name"], config["backbone"]["revision"]) == ("owner/clip", COMMIT)
        hub("owner/run", tmp_path / "run")
        opened = vop.load("owner/run")
        assert (opened.method_name, opened.num_frames) == ("vop", 2)
        assert torch.equal(opened.encode_text(["words"]), model.encode_text(["words"]))

    def test_a_cached_clip_opens_as_zero_shot(self, hub, tiny_folder):
        hub("owner/clip", tiny_folder)
        assert vop.load("owner/clip").method_name == "zero-shot"

    @pytest.mark.parametrize("name", ["owner/gone", DEFAULT_HUB_ID])
    def test_the_error_without_a_network_offers_alternatives(self, hub, name):
        for open_it in (find_backbone, vop.load):
            with pytest.raises(VopError, match=f"'{name}' is .*folder.*cached.*`mini`.*vop import openai"):
                open_it(name)

    def test_a_known_id_is_suggested(self, hub):
        with pytest.raises(VopError, match="Did you mean openai/clip-vit-base-patch32"):
            find_backbone("openai/clip-vit-base-patch23")

    def test_a_partial_download_is_not_used(self, hub, folder):
        (folder / "model.safetensors").unlink()
        hub("owner/clip", folder)
        with pytest.raises(VopError, match="'owner/clip' is .*cached"):
            find_backbone("owner/clip")

    def test_the_sizes_of_openai_need_no_files(self, hub):
        assert (find_sizes("ViT-B/32").vision.patches, find_sizes("ViT-B/16").vision.patches) == (49, 196)
        assert find_sizes("openai/clip-vit-large-patch14").vision.width == 1024


class TestNames:
    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("minni", "did you mean mini"),
            ("ViT-B/23", "did you mean ViT-B/32"),
            ("/nowhere/clip", "known: "),
            ("./clip", "known: "),
            ("a b/c", "known: "),
        ],
    )
    def test_unknown(self, name, nearest):
        with pytest.raises(UnknownBackbone) as caught:
            find_backbone(name)
        assert repr(name) in str(caught.value)
        assert nearest in str(caught.value)
        assert isinstance(caught.value, UsageError)

    def test_a_file(self, tmp_path):
        (tmp_path / "ViT-B-32.pt").touch()
        with pytest.raises(UsageError, match=r"ViT-B-32\.pt is a file.*vop import openai"):
            find_backbone(str(tmp_path / "ViT-B-32.pt"))


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ('{"model_type": "cl', "config.json: not readable as JSON"),
            ("[]", "config.json: .*list"),
            ("{}", "config.json: model_type is missing"),
            ('{"model_type": "clipp"}', "unknown model_type 'clipp': did you mean clip"),
            ('{"model_type": "clip", "projection_dim": "wide"}', "config.json: not a valid configuration of CLIP"),
        ],
    )
    def test_configuration(self, folder, content, says):
        (folder / "config.json").write_text(content)
        with pytest.raises(VopError, match=says):
            find_backbone(str(folder))

    def test_no_configuration(self, folder):
        (folder / "config.json").unlink()
        with pytest.raises(VopError, match=r"clip: config\.json .*missing"):
            find_backbone(str(folder))

    def test_weights(self, folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(VopError, match="clip: the weights cannot be read"):
            find_backbone(str(folder)).load()
        weights.unlink()
        with pytest.raises(VopError, match=r"clip: model\.safetensors is missing"):
            find_backbone(str(folder)).load()

    def test_weights_of_other_sizes(self, folder):
        write_json(folder / "config.json", projection_dim=24)
        with pytest.raises(VopError, match=r"projection is \(32, 16\) in the weights, \(32, 24\) by config\.json"):
            find_backbone(str(folder)).load()

    def test_weights_of_another_depth(self, folder, tmp_path):
        deeper = make_clip_folder(tmp_path / "deeper", vision_layers=4)
        shutil.copy(deeper / "model.safetensors", folder)
        with pytest.raises(VopError, match=r"vision\.layers\.3\..* in the weights, no tensor by config\.json"):
            find_backbone(str(folder)).load()

    def test_preprocessing(self, folder):
        (folder / "preprocessor_config.json").write_text('{"image_mean"')
        with pytest.raises(VopError, match=r"preprocessor_config\.json: not readable as JSON"):
            find_backbone(str(folder))

    @pytest.mark.parametrize("content", ['{"model"', "{}", ""])
    def test_vocabulary(self, folder, content):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(VopError, match="clip: its vocabulary cannot be read"):
            find_backbone(str(folder)).tokenizer()


def test_sharded_weights_are_read(folder, tiny):
    from transformers import CLIPModel

    CLIPModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    ours, same = find_backbone(str(folder)).load().state_dict(), tiny.load().state_dict()
    assert all(torch.equal(ours[name], same[name]) for name in same)


def test_preprocessing_is_read_from_the_folder(folder):
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    found = find_backbone(str(folder))
    assert found.mean == (0.1, 0.2, 0.3)
    assert found.std == pytest.approx((0.2686, 0.2613, 0.2758), abs=1e-4)
