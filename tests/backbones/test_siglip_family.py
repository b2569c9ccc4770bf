"""SigLIP against `transformers`' SiglipModel with the same random weights, and SigLIP 2's vocabulary."""

from __future__ import annotations

import json
import re
import shutil
import string
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from family_checks import change_tower, check_a_missing_tensor, check_a_trained_run, check_image_gradients
from PIL import Image
from transformers import AutoTokenizer, PreTrainedTokenizerFast, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import vop
from tiny_backbones import NOT_LATIN, make_siglip_folder
from vop.backbones import find_backbone
from vop.errors import VopError
from vop.models.frames import resized

TEXTS = ["A dog RUNS.", "don't  cut,\ta dog!", "собака, 日本語 犬!", "हि كلب", NOT_LATIN, "a dog " * 30, "", "zz_99"]


@pytest.fixture(scope="module", params=[1, 2])
def folder(request, tmp_path_factory):
    return make_siglip_folder(tmp_path_factory.mktemp("siglip"), version=request.param)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return make_siglip_folder(tmp_path_factory.mktemp("siglip"))


@pytest.fixture
def copy(siglip, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(siglip, tmp_path / "siglip")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def theirs_of(folder):
    return SiglipModel.from_pretrained(folder).eval()


def test_towers_and_logits_equal_transformers(folder):
    theirs, ours = theirs_of(folder), find_backbone(str(folder)).load()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(5, 3, 32, 32, generator=generator)
    ids = torch.randint(0, ours.sizes.text.vocab_size, (6, 24), generator=generator)
    with torch.no_grad():
        found = theirs(input_ids=ids, pixel_values=pixels, return_loss=False)
        images, texts = ours.vision(pixels), ours.text(ids)
        torch.testing.assert_close(images, theirs.get_image_features(pixels).pooler_output, rtol=0, atol=1e-5)
        torch.testing.assert_close(texts, theirs.get_text_features(ids).pooler_output, rtol=0, atol=1e-5)
    model = vop.load(str(folder))
    with torch.no_grad():
        unit = [torch.nn.functional.normalize(x, dim=-1) for x in (texts, images)]
        torch.testing.assert_close(model.logits(*unit), found.logits_per_text, rtol=0, atol=1e-4)
    assert model.clip.logit_bias.item() == pytest.approx(theirs.logit_bias.item())
    assert (ours.sizes.loss, ours.sizes.embed_dim) == ("sigmoid", 48)


def test_gradients_equal_those_of_transformers(siglip):
    theirs, ours = theirs_of(siglip), find_backbone(str(siglip)).load()
    check_image_gradients(ours, theirs)
    ids = torch.randint(0, ours.sizes.text.vocab_size, (3, 24), generator=torch.Generator().manual_seed(1))
    ours.text.requires_grad_(True)
    ours.text(ids).square().sum().backward()
    theirs.get_text_features(ids).pooler_output.square().sum().backward()
    mine, its = ours.text, theirs.text_model
    torch.testing.assert_close(
        mine.token_embedding.weight.grad, its.embeddings.token_embedding.weight.grad, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(mine.projection.grad, its.head.weight.grad.T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [24, 48])
def test_positions_are_interpolated_as_in_transformers(siglip, size):
    theirs, ours = theirs_of(siglip), find_backbone(str(siglip)).with_image_size(size).load()
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = theirs.vision_model(pixels, interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(ours.vision(pixels), images, rtol=0, atol=1e-5)


def test_towers_of_other_shapes(tmp_path):
    """The text tower may be narrower; its projection then leads to the vision tower's width."""
    text = {"hidden_size": 32, "projection_size": 48, "hidden_act": "gelu", "layer_norm_eps": 0.01}
    vision = {"num_attention_heads": 3, "intermediate_size": 100, "hidden_act": "gelu"}
    folder = make_siglip_folder(tmp_path, text=text, vision=vision)
    theirs, ours = theirs_of(folder), find_backbone(str(folder)).load()
    generator = torch.Generator().manual_seed(0)
    pixels, ids = torch.randn(2, 3, 32, 32, generator=generator), torch.randint(0, 99, (2, 24), generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.vision(pixels), theirs.get_image_features(pixels).pooler_output, rtol=0, atol=1e-5
        )
        torch.testing.assert_close(ours.text(ids), theirs.get_text_features(ids).pooler_output, rtol=0, atol=1e-5)


def canonical(text):
    """As `transformers.SiglipTokenizer` does, whose library sentencepiece need not be there."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\s+", " ", text).strip()


def test_siglips_ids_are_those_of_its_cleaned_texts(siglip):
    rules = PreTrainedTokenizerFast(tokenizer_file=str(siglip / "tokenizer.json"), pad_token="</s>", eos_token="</s>")
    cleaned = [canonical(text) for text in TEXTS]
    theirs = rules(cleaned, padding="max_length", truncation=True, max_length=24, return_tensors="pt")["input_ids"]
    tokenizer = find_backbone(str(siglip)).tokenizer()
    ours = tokenizer.encode(TEXTS, max_length=24)
    assert ours.tolist() == theirs.tolist()
    assert (tokenizer.pad_token_id, tokenizer.cleaning) == (1, "canonicalize")
    assert "<unk>" not in rules.decode(ours[4])  # the text that is not Latin
    assert (ours[5, -1], len(ours[5])) == (1, 24)


def test_siglip_2s_ids_are_those_of_transformers(tmp_path):
    folder = make_siglip_folder(tmp_path, version=2)
    rules = AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS, "ΣΊΣΥΦΟΣ", "İstanbul"]
    theirs = rules(texts, padding="max_length", truncation=True, max_length=24, return_tensors="pt")["input_ids"]
    tokenizer = find_backbone(str(folder)).tokenizer()
    assert tokenizer.encode(texts, max_length=24).tolist() == theirs.tolist()
    assert (tokenizer.pad_token_id, tokenizer.end_token_id, tokenizer.cleaning) == (0, 1, "lower")
    assert rules.decode(tokenizer.encode([NOT_LATIN], max_length=24)[0], skip_special_tokens=True) == NOT_LATIN


def test_gemmas_class_names_mean_siglip_2(tmp_path):
    folder = make_siglip_folder(tmp_path, version=2)
    before = find_backbone(str(folder)).tokenizer().encode(TEXTS, max_length=24)
    change(folder / "tokenizer_config.json", tokenizer_class="GemmaTokenizer")
    assert find_backbone(str(folder)).tokenizer().encode(TEXTS, max_length=24).tolist() == before.tolist()


def test_the_padding_token_can_stand_in_other_files(copy):
    (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    with pytest.raises(VopError, match="pad_token"):
        find_backbone(str(copy)).tokenizer()
    change(copy / "tokenizer.json", padding=padding(pad_id=2))
    assert find_backbone(str(copy)).tokenizer().pad_token_id == 2
    (copy / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<pad>", "lstrip": True}}))
    assert find_backbone(str(copy)).tokenizer().pad_token_id == 0
    change(copy / "tokenizer_config.json", pad_token="[PAD]")
    with pytest.raises(VopError, match=r"\[PAD\]"):
        find_backbone(str(copy)).tokenizer()


def padding(*, pad_id):
    fixed = {"strategy": {"Fixed": 24}, "direction": "Right", "pad_to_multiple_of": None}
    return fixed | {"pad_id": pad_id, "pad_type_id": 0, "pad_token": "<unk>"}


def test_an_unknown_tokenizer_is_refused_until_its_cleaning_is_given(copy):
    change(copy / "tokenizer_config.json", tokenizer_class="OtherTokenizer")
    with pytest.raises(VopError, match="OtherTokenizer.*text_cleaning"):
        find_backbone(str(copy)).tokenizer()
    change(copy / "tokenizer_config.json", text_cleaning="lower")
    assert find_backbone(str(copy)).tokenizer().cleaning == "lower"


def test_without_a_vocabulary_there_is_no_tokenizer(copy):
    (copy / "tokenizer.json").unlink()
    assert find_backbone(str(copy)).tokenizer() is None


@pytest.mark.parametrize("missing", ["sentencepiece", "google.protobuf"])
def test_a_sentencepiece_model_needs_an_extra(copy, monkeypatch, missing):
    (copy / "tokenizer.json").rename(copy / "spiece.model")
    monkeypatch.setitem(sys.modules, "sentencepiece", ModuleType("sentencepiece"))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(VopError, match=r"spiece\.model.*vop\[sentencepiece\]"):
        find_backbone(str(copy)).tokenizer()


def test_a_sentencepiece_models_ids_are_those_of_transformers(copy, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    from transformers import SiglipTokenizer

    change_tower(copy, "text_config", vocab_size=60)  # at most as many pieces as the model below
    (copy / "tokenizer.json").unlink()
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(canonical(text) for text in TEXTS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(copy / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        character_coverage=1.0,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    )
    theirs = SiglipTokenizer.from_pretrained(copy)
    wanted = theirs(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")["input_ids"]
    assert find_backbone(str(copy)).tokenizer().encode(TEXTS, max_length=24).tolist() == wanted.tolist()

    change(copy / "tokenizer_config.json", tokenizer_class="OtherTokenizer")
    with pytest.raises(VopError, match=re.escape(f"{copy / 'tokenizer_config.json'}: tokenizer_class is 'OtherTok")):
        find_backbone(str(copy)).tokenizer()


def test_pictures_are_squashed_as_by_its_image_processor(folder):
    backbone = find_backbone(str(folder))
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)
    theirs = SiglipImageProcessorPil.from_pretrained(folder)
    resample = {2: "bilinear", 3: "bicubic"}[int(theirs.resample)]
    assert (backbone.resizing.size, backbone.resizing.mode, backbone.resizing.interpolation) == (32, "squash", resample)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (60, 91), (20, 17)])
def test_a_picture_becomes_the_pixels_of_its_image_processor(folder, height, width):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    theirs = SiglipImageProcessorPil.from_pretrained(folder)(Image.fromarray(picture), return_tensors="pt")
    model = vop.load(str(folder))
    ours = model.normalise(resized(torch.from_numpy(picture).permute(2, 0, 1)[None, None], model.resizing))[0, 0]
    torch.testing.assert_close(ours, theirs["pixel_values"][0], rtol=0, atol=1e-6)


def test_it_encodes_texts_and_frames(folder):
    model = vop.load(str(folder))
    texts = model.encode_text(["a dog", "собака"])
    videos = model.encode_frames(torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8))
    assert texts.shape == videos.shape == (2, 48)
    for embedded in (texts, videos):
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))


def test_a_trained_run_loads_as_the_same_model(folder, tmp_path):
    check_a_trained_run(folder, tmp_path / "run")


class TestRefusals:
    @pytest.mark.parametrize(
        ("tower", "values", "says"),
        [
            ("vision_config", {"vision_use_head": False}, "vision_use_head"),
            ("text_config", {"projection_size": 32}, "projection_size is 32, and hidden_size in vision_config 48"),
            ("vision_config", {"image_size": [32, 48]}, "image_size"),
            ("text_config", {"num_attention_heads": 5}, "hidden_size is 48.* 5"),
        ],
    )
    def test_configurations(self, copy, tower, values, says):
        change_tower(copy, tower, **values)
        with pytest.raises(VopError, match=rf"config\.json.*SigLIP.*{says}"):
            find_backbone(str(copy))

    def test_naflex(self, copy):
        change(copy / "config.json", model_type="siglip2")
        with pytest.raises(VopError, match="NaFlex.*google/siglip2-base-patch16-224"):
            find_backbone(str(copy))

    def test_another_activation(self, copy):
        change_tower(copy, "vision_config", hidden_act="tanh")
        with pytest.raises(VopError, match="activation.*tanh"):
            find_backbone(str(copy)).load()

    @pytest.mark.parametrize("name", ["vision_model.head.probe", "text_model.head.bias", "logit_bias"])
    def test_missing_tensors(self, copy, name):
        check_a_missing_tensor(copy, name, kind="SiglipModel")

    def test_a_vocabulary_of_another_model(self, copy, tmp_path):
        other = make_siglip_folder(tmp_path / "other", version=2)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(other / name, copy / name)
        with pytest.raises(VopError, match=r"ids up to \d+, the token embedding up to \d+"):
            find_backbone(str(copy)).tokenizer()


def test_tokens_are_stored_one_after_another(siglip):
    vision = find_backbone(str(siglip)).load().vision
    size = vision.sizes.image_size
    assert vision.embed(torch.randn(2, 3, size, size)).is_contiguous()  # otherwise each layer would copy them
