"""Chinese-CLIP and AltCLIP against `transformers`' models with the same random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AltCLIPModel, AutoTokenizer, ChineseCLIPImageProcessorPil, ChineseCLIPModel

import vop
from tiny_backbones import make_altclip_folder, make_chinese_clip_folder
from vop.backbones import find_backbone
from vop.errors import VopError
from vop.models.pretrained import create
from vop.video.shape import square

FAMILIES = {
    "chinese_clip": (make_chinese_clip_folder, ChineseCLIPModel),
    "altclip": (make_altclip_folder, AltCLIPModel),
}
TEXTS = ["a cat", "一个人在切洋葱", "жук, a dog and a cat.", "パンダ"]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return FAMILIES[request.param][0](tmp_path_factory.mktemp(request.param), seed=3)


@pytest.fixture(scope="module")
def theirs(folder):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return FAMILIES[kind][1].from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def backbone(folder):
    return find_backbone(str(folder))


def padded(sizes):
    """Ids of four texts, three of them padded, and the attention mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, sizes.vocab_size, (4, sizes.positions), generator=generator)
    ids[:, 0] = 2
    for row, length in enumerate([3, 9, 39]):
        ids[row, length:] = sizes.pad_token_id
    return ids, (ids != sizes.pad_token_id).long()


def test_embeddings_and_gradients_equal_transformers(backbone, theirs):
    ours = backbone.load()
    assert backbone.sizes.text.positions == 40
    ids, mask = padded(backbone.sizes.text)
    texts = theirs.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(ours.embed_tokens(ids), texts, rtol=0, atol=1e-5)
    first = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
    second = first.detach().clone().requires_grad_()
    images, expected = ours.embed_frames(first[:, None])[:, 0], theirs.get_image_features(pixel_values=second)
    torch.testing.assert_close(images, expected.pooler_output, rtol=0, atol=1e-5)
    images.square().sum().backward()
    expected.pooler_output.square().sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.log_logit_scale, theirs.logit_scale)


def test_gradients_of_texts_equal_transformers(backbone, theirs):
    ours = backbone.load()
    weight = ours.text.layers[0].mlp.fc1.weight.requires_grad_()
    ids, mask = padded(backbone.sizes.text)
    ours.embed_tokens(ids).square().sum().backward()
    model = getattr(theirs.text_model, "roberta", theirs.text_model)
    layers = getattr(model.encoder, "layers", None) or model.encoder.layer
    theirs.zero_grad()
    theirs.get_text_features(input_ids=ids, attention_mask=mask).pooler_output.square().sum().backward()
    torch.testing.assert_close(weight.grad, layers[0].intermediate.dense.weight.grad, rtol=1e-4, atol=1e-4)


def test_another_image_size_equals_transformers(backbone, theirs):
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        images = backbone.with_image_size(64).load().embed_frames(pixels[:, None])[:, 0]
        expected = theirs.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_token_ids_equal_transformers(folder, backbone):
    ours, theirs = backbone.tokenizer(), AutoTokenizer.from_pretrained(folder)
    expected = theirs(TEXTS, padding=True, return_tensors="pt").input_ids
    assert ours.encode(TEXTS, max_length=40).tolist() == expected.tolist()
    assert theirs.unk_token_id not in ours.encode(["一个人", "猫 жук"], max_length=40)
    cut = theirs(["cat " * 50], truncation=True, max_length=12).input_ids
    assert ours.encode(["cat " * 50], max_length=12).tolist() == cut


def test_texts_and_frames_are_encoded(folder, theirs):
    model = vop.load(folder, device="cpu")
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        texts = theirs.get_text_features(input_ids=batch.input_ids, attention_mask=batch.attention_mask).pooler_output
        pixels = model.normalise(torch.from_numpy(frames).permute(0, 1, 4, 2, 3))[:, 0]
        images = theirs.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(model.encode_text(TEXTS), torch.nn.functional.normalize(texts), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode_frames(frames), torch.nn.functional.normalize(images), rtol=0, atol=1e-5)


def test_a_trained_model_saves_and_opens(folder, tmp_path):
    torch.manual_seed(0)
    model = create("vop-f+c", str(folder), num_frames=2, device="cpu")
    frozen = {key: one.clone() for key, one in model.state_dict().items() if key not in model.trainable()}
    frames = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    ids = model.tokenize(TEXTS[:2])
    model.logits(*model(ids, frames)).diagonal().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trainable().values())
    torch.optim.SGD(model.trainable().values(), lr=0.1).step()
    assert all(torch.equal(one, model.state_dict()[key]) for key, one in frozen.items())
    model.save_pretrained(tmp_path)
    opened, model = vop.load(tmp_path, device="cpu"), model.eval()
    torch.testing.assert_close(opened.encode_text(TEXTS), model.encode_text(TEXTS), rtol=0, atol=0)
    torch.testing.assert_close(opened.encode_frames(frames), model.encode_frames(frames), rtol=0, atol=0)


def test_chinese_clip_squashes_pictures(tmp_path):
    folder = make_chinese_clip_folder(tmp_path)
    found = find_backbone(str(folder))
    assert (found.resizing.mode, found.resizing.interpolation, found.resizing.size) == ("squash", "bicubic", 32)
    (folder / "preprocessor_config.json").unlink()
    assert find_backbone(str(folder)).resizing.mode == "squash"


def test_pixels_equal_those_of_the_image_processor(tmp_path):
    folder = make_chinese_clip_folder(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = ChineseCLIPImageProcessorPil.from_pretrained(folder)(Image.fromarray(picture), return_tensors="pt")
    model = vop.load(folder, device="cpu")
    pixels = model.normalise(torch.from_numpy(square(picture, resizing=model.resizing)))
    torch.testing.assert_close(pixels, expected.pixel_values[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads, 5"),
        ({"pad_token_id": 5_000}, "pad_token_id is 5000"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
    ],
)
def test_unknown_configurations_are_refused(kind, change, says, tmp_path):
    folder = FAMILIES[kind][0](tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(VopError, match=says):
        find_backbone(str(folder))


@pytest.mark.parametrize("kind", FAMILIES)
def test_missing_tensors_and_other_vocabularies_are_refused(kind, tmp_path):
    folder = FAMILIES[kind][0](tmp_path)
    path = folder / "model.safetensors"
    state = load_file(path)
    word = next(name for name in state if name.endswith("word_embeddings.weight"))
    save_file(state | {word: state[word][:20].clone()}, path)
    with pytest.raises(VopError, match=r"text\.token_embedding\.weight.*\(20, 32\)"):
        find_backbone(str(folder)).load()
    name = next(name for name in state if name.endswith("1.output.dense.bias"))
    save_file({one: tensor for one, tensor in state.items() if one != name}, path)
    with pytest.raises(VopError, match="1.output.dense.bias"):
        find_backbone(str(folder)).load()
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 20
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(VopError, match="up to 19"):
        find_backbone(str(folder)).tokenizer()


def test_altclip_refuses_projections_of_the_wrong_size(tmp_path):
    folder = make_altclip_folder(tmp_path)
    state = load_file(folder / "model.safetensors")
    state["text_projection.weight"] = torch.zeros(16, 9)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(VopError, match=r"takes 9 values.*gives 24"):
        find_backbone(str(folder)).load()
