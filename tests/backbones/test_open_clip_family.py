"""open_clip's checkpoints against open_clip itself, with random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import vop
from open_clip_models import LAYERED, TEXT, VIT, ZERO_SHOT, draw, full_config, make_open_clip_folder
from tiny_clip import make_clip_folder
from vop import methods
from vop.backbones import find_backbone
from vop.backbones.open_clip.family import OpenClipFamily
from vop.cli import main
from vop.errors import UsageError, VopError
from vop.models.pretrained import create

open_clip = pytest.importorskip("open_clip")


def make(name: str, folder, **options):
    return make_open_clip_folder(folder, full_config(name) if name in LAYERED else ZERO_SHOT, **options)


@pytest.fixture(scope="module", params=LAYERED)
def pair(request, tmp_path_factory):
    folder, theirs = make(request.param, tmp_path_factory.mktemp("open-clip"))
    return find_backbone(str(folder)), theirs


def test_embeddings_and_gradients(pair):
    backbone, theirs = pair
    ours = backbone.load()
    pixels, ids = draw(backbone.sizes)
    assert backbone.sizes.has_layers
    torch.testing.assert_close(ours.embed_tokens(ids), theirs.encode_text(ids), rtol=0, atol=1e-5)
    a, b = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    images, expected = ours.embed_frames(a[:, None])[:, 0], theirs.encode_image(b)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    weight = torch.linspace(-1, 1, images.numel()).view_as(images)
    (images * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.log_logit_scale, theirs.logit_scale)


def test_a_text_gradient(pair):
    backbone, theirs = pair
    ours = backbone.load()
    _, ids = draw(backbone.sizes)
    ours.text.positions.requires_grad_(True)
    table = theirs.text.positional_embedding if hasattr(theirs, "text") else theirs.positional_embedding
    ours.embed_tokens(ids).square().sum().backward()
    theirs.encode_text(ids).square().sum().backward()
    torch.testing.assert_close(ours.text.positions.grad, table.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["MobileCLIP", "SigLIP without its pooling"])
def test_positions_are_interpolated(name, tmp_path):
    folder, theirs = make(name, tmp_path)
    trunk = theirs.visual.trunk
    grid = trunk.pos_embed.detach().unflatten(1, (3, 3)).permute(0, 3, 1, 2)  # without a [CLS]
    trunk.set_input_size((80, 80))
    larger = torch.nn.functional.interpolate(grid, (5, 5), mode="bicubic")
    trunk.pos_embed.data = larger.flatten(2).transpose(1, 2)
    pixels = torch.randn(2, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    images = find_backbone(f"{folder}@80").load().embed_frames(pixels[:, None])[:, 0]
    torch.testing.assert_close(images, theirs.encode_image(pixels), rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="image_size is 72.*patch size, 16"):
        find_backbone(f"{folder}@72")


@pytest.mark.parametrize("name", ["EVA-02", "PE-Core", "PE-Core without a class token", "SigLIP", "MobileCLIP"])
def test_rotary_positions_and_pooling_hold_for_prompts(name, tmp_path):
    folder, _ = make(name, tmp_path)
    torch.manual_seed(0)
    model = create("vop-f+c", str(folder), num_frames=2)
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    pixels, ids = draw(model.backbone.sizes, images=4)
    ids = ids[:, : model.method.max_tokens]
    texts, videos = model.embed_tokens(ids[:2]), model.embed_frames(pixels.unflatten(0, (2, 2)))
    model.logits(texts, videos).diagonal().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trainable().values())
    torch.optim.SGD(model.trainable().values(), lr=0.1).step()
    trained = model.trainable()
    assert all(torch.equal(start[key], one) for key, one in model.state_dict().items() if key not in trained)
    model.save_pretrained(tmp_path / "run")
    opened = vop.load(tmp_path / "run", device="cpu")
    torch.testing.assert_close(
        opened.embed_frames(pixels.unflatten(0, (2, 2))), model.embed_frames(pixels.unflatten(0, (2, 2)))
    )


def test_a_vit_h_has_sixteen_heads_and_gelu(tmp_path):
    config = json.loads((open_clip.factory._MODEL_CONFIG_PATHS[0] / "ViT-H-14.json").read_text())
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    sizes = find_backbone(str(tmp_path)).sizes
    assert (sizes.vision.heads, sizes.vision.activation, sizes.text.heads) == (16, "gelu", 16)


@pytest.mark.parametrize(
    ("name", "has_layers"),
    {
        "ViT-bigG-14-CLIPA-336": True,
        "EVA01-g-14": True,
        "MobileCLIP2-B": True,
        "MobileCLIP2-L-14": True,
        "MobileCLIP2-S0": False,
        "MobileCLIP2-S4": False,
        "ViTamin-S": False,
        "EVA02-E-14": False,
        "RN50": False,
        "coca_base": False,
    }.items(),
)
def test_which_configurations_have_layers(name, has_layers):
    config = {"model_cfg": open_clip.get_model_config(name)}
    assert OpenClipFamily().read_sizes(config).has_layers == has_layers


@pytest.mark.parametrize("name", ["ViTamin-S", "EVA02-E-14", "coca_base"])
def test_models_without_layers_name_what_to_use_instead(name, tmp_path, capsys):
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert main(["params", "--backbone", str(tmp_path), "--method", "vop-f+p"]) == 2
    error = capsys.readouterr().err
    assert all(words in error for words in ("zero-shot", "PE-Core", "SigLIP 2"))
    with pytest.raises(UsageError, match="zero-shot.*PE-Core"):
        methods.create("vop", OpenClipFamily().read_sizes(config))  # as `vop train` does


def test_what_has_no_layers_is_a_zero_shot_encoder(tmp_path):
    folder, theirs = make("ResNet", tmp_path)
    model = vop.load(folder, device="cpu")
    pixels, ids = draw(model.backbone.sizes)
    assert not model.backbone.sizes.has_layers
    torch.testing.assert_close(model.text_features(ids), theirs.encode_text(ids), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        model.frame_features(pixels[:, None])[:, 0], theirs.encode_image(pixels), rtol=0, atol=1e-5
    )
    with pytest.raises(UsageError, match="zero-shot"):
        create("vop", str(folder))


def test_the_tokens_are_open_clips(tmp_path):
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT | {"vocab_size": 49408}}
    folder, _ = make_open_clip_folder(tmp_path, config)
    ours = find_backbone(str(folder)).tokenizer()
    theirs = open_clip.tokenizer.SimpleTokenizer(context_length=24)
    texts = ["A man cuts an onion!", "caf\u00e9 &amp; \u65e5\u672c\u8a9e \U0001f600", "word " * 40]
    for text in texts:
        expected = theirs([text])[0]
        ids = ours.encode([text], max_length=24)[0]
        assert ids.tolist() == expected[: len(ids)].tolist()
        assert not expected[len(ids) :].any()


def make_words(folder) -> None:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "##s", "!"]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)


def test_clipa_has_no_end_mark(tmp_path):
    make_words(tmp_path)
    options = {"strip_sep_token": True}
    text = TEXT | {
        "hf_tokenizer_name": str(tmp_path),
        "tokenizer_kwargs": options,
        "context_length": 8,
        "vocab_size": 10,
    }
    folder, _ = make_open_clip_folder(
        tmp_path, {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": text | {"pool_type": "last", "no_causal_mask": True}}
    )
    theirs = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=8, **options)
    texts = ["A dog runs!", "dogs", "a dog " * 10]
    ids = find_backbone(str(folder)).tokenizer().encode(texts, max_length=8)
    assert ids.tolist() == theirs(texts).tolist()
    assert ids[0].tolist() == [2, 5, 6, 7, 9, 0, 0, 0]


def test_an_option_that_changes_the_tokens_is_refused(tmp_path):
    make_words(tmp_path)
    text = TEXT | {"hf_tokenizer_name": "words", "tokenizer_kwargs": {"language": "fra_Latn"}}
    folder, _ = make_open_clip_folder(tmp_path, {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": text})
    with pytest.raises(VopError, match="language is 'fra_Latn'"):
        find_backbone(str(folder)).tokenizer()


def test_a_text_tower_of_transformers_is_a_zero_shot_encoder(tmp_path):
    from transformers import BertConfig

    make_words(tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertConfig(vocab_size=50_000, max_position_embeddings=24, **sizes).save_pretrained(tmp_path / "text")
    names = {"hf_model_name": str(tmp_path / "text"), "hf_model_pretrained": False, "hf_tokenizer_name": str(tmp_path)}
    config = {"embed_dim": 16, "vision_cfg": VIT, "custom_text": True, "text_cfg": names}
    folder, theirs = make_open_clip_folder(tmp_path, config)
    backbone = find_backbone(str(folder))
    assert (backbone.sizes.has_layers, backbone.sizes.text.vocab_size) == (False, 50_000)
    ids = torch.tensor([[2, 5, 6, 3, 0], [2, 6, 7, 5, 3]])
    torch.testing.assert_close(backbone.load().embed_tokens(ids), theirs.encode_text(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("preprocess", "mode", "interpolation", "mean"),
    [
        ({}, "crop", "bicubic", 0.48145466),
        (
            {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
            "squash",
            "bilinear",
            0.5,
        ),
    ],
)
def test_preprocessing(tmp_path, preprocess, mode, interpolation, mean):
    folder, _ = make("quick-gelu", tmp_path, preprocess=preprocess)
    found = find_backbone(str(folder))
    assert (found.resizing.mode, found.resizing.interpolation, found.mean[0]) == (mode, interpolation, mean)
    assert found.resizing.size == 48


def test_other_resize_modes_are_refused(tmp_path):
    folder, _ = make("quick-gelu", tmp_path, preprocess={"resize_mode": "longest"})
    with pytest.raises(VopError, match="'longest'.*shortest and squash"):
        find_backbone(str(folder))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vision_cfg": VIT | {"head_width": 20}}, "head_width of 20"),
        ({"vision_cfg": VIT | {"mlp_ratio": "wide"}}, "mlp_ratio is 'wide'"),
        ({"text_cfg": TEXT | {"heads": 5}}, "num_attention_heads, 5"),
        ({"vision_cfg": {"timm_model_name": "no_such_model"}}, "open_clip cannot build it"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path, change, says):
    folder, _ = make("quick-gelu", tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"] |= change
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(VopError, match=says):
        find_backbone(str(folder))


def test_weights_of_another_model(tmp_path):
    folder, _ = make("quick-gelu", tmp_path / "a")
    other = make_clip_folder(tmp_path / "b")
    (other / "model.safetensors").replace(folder / "open_clip_model.safetensors")
    with pytest.raises(VopError, match="tensor .* is missing"):
        find_backbone(str(folder)).load()


def test_without_open_clip_only_its_own_towers_open(tmp_path, monkeypatch):
    folder, _ = make("quick-gelu", tmp_path / "vit")
    other, _ = make("EVA-02", tmp_path / "eva")
    monkeypatch.setitem(__import__("sys").modules, "open_clip.model", None)
    assert find_backbone(str(folder)).load() is not None
    with pytest.raises(UsageError, match=r"vop\[open-clip\]"):
        find_backbone(str(other))


def test_frames_are_encoded(tmp_path):
    folder, theirs = make("quick-gelu", tmp_path)
    frame = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    model = vop.load(folder, device="cpu")
    pixels = open_clip.transform.image_transform(48, is_train=False)(Image.fromarray(frame))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(theirs.encode_image(pixels[None]), dim=-1)
    torch.testing.assert_close(model.encode_frames(frame[None, None]), expected, rtol=0, atol=1e-5)
