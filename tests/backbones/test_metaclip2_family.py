"""MetaCLIP 2 against `transformers`' MetaClip2Model with the same random weights."""

from __future__ import annotations

import shutil

import pytest
import torch
from family_checks import change_tower, check_a_missing_tensor, check_a_trained_run, check_image_gradients
from transformers import AutoTokenizer, MetaClip2Model

import vop
from tiny_backbones import NOT_LATIN, make_metaclip2_folder
from vop.backbones import find_backbone
from vop.errors import VopError

TEXTS = ["A dog RUNS.", "don't  cut,\ta dog!", "собака, 日本語 犬!", "हि كلب", NOT_LATIN, "a dog " * 30, ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_metaclip2_folder(tmp_path_factory.mktemp("metaclip2"))


@pytest.fixture
def copy(folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(folder, tmp_path / "metaclip2")


def made_ids(vocab_size):
    """Ids with the end mark, 2, in several places; ids above it too, where an old CLIP would be read."""
    ids = torch.randint(3, vocab_size, (4, 40), generator=torch.Generator().manual_seed(0))
    for row, end in enumerate([1, 5, 20, 39]):
        ids[row, end:] = 1
        ids[row, end] = 2
    return ids


def test_towers_equal_transformers(folder):
    theirs, ours = MetaClip2Model.from_pretrained(folder).eval(), find_backbone(str(folder)).load()
    assert ours.sizes.text.eos_token_id == 2
    ids = made_ids(ours.sizes.text.vocab_size)
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images, texts = theirs.get_image_features(pixels).pooler_output, theirs.get_text_features(ids).pooler_output
        torch.testing.assert_close(ours.vision(pixels), images, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.text(ids), texts, rtol=0, atol=1e-5)
    assert ours.log_logit_scale.item() == pytest.approx(theirs.logit_scale.item())


def test_gradients_equal_those_of_transformers(folder):
    theirs, ours = MetaClip2Model.from_pretrained(folder).eval(), find_backbone(str(folder)).load()
    check_image_gradients(ours, theirs)
    ours.text.requires_grad_(True)
    ids = made_ids(ours.sizes.text.vocab_size)
    ours.text(ids).square().sum().backward()
    theirs.get_text_features(ids).pooler_output.square().sum().backward()
    its = theirs.text_model.embeddings.token_embedding.weight.grad
    torch.testing.assert_close(ours.text.token_embedding.weight.grad, its, rtol=0, atol=1e-4)


def test_positions_are_interpolated_as_in_transformers(folder):
    theirs, ours = MetaClip2Model.from_pretrained(folder).eval(), find_backbone(str(folder)).with_image_size(48).load()
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = theirs.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(ours.vision(pixels), images, rtol=0, atol=1e-5)


def test_its_ids_are_those_of_transformers(folder):
    rules = AutoTokenizer.from_pretrained(folder)
    tokenizer = find_backbone(str(folder)).tokenizer()
    for text in TEXTS:
        wanted = rules(text, truncation=True, max_length=40)["input_ids"]
        assert tokenizer.encode([text], max_length=40).tolist() == [wanted]
    assert tokenizer.end_token_id == 2
    assert rules.decode(tokenizer.encode([NOT_LATIN], max_length=40)[0], skip_special_tokens=True) == NOT_LATIN


def test_it_encodes_texts_and_frames(folder):
    model = vop.load(str(folder))
    texts = model.encode_text(["a dog", "собака"])
    videos = model.encode_frames(torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8))
    assert texts.shape == videos.shape == (2, 16)
    alone = model.encode_text(["a dog"])  # what pads the batch is not read
    torch.testing.assert_close(texts[:1], alone, rtol=0, atol=1e-6)


def test_a_trained_run_loads_as_the_same_model(folder, tmp_path):
    check_a_trained_run(folder, tmp_path / "run")


@pytest.mark.parametrize("eos", [10**6, None, [2, 3]])
def test_an_end_mark_outside_the_vocabulary_is_refused(copy, eos):
    change_tower(copy, "text_config", eos_token_id=eos)
    with pytest.raises(VopError, match=r"config\.json.*MetaCLIP 2.*eos_token_id is"):
        find_backbone(str(copy))


def test_a_vocabulary_with_another_end_mark_is_refused(copy):
    change_tower(copy, "text_config", eos_token_id=7)
    with pytest.raises(VopError, match="the id 2, its configuration reads it at 7"):
        find_backbone(str(copy)).tokenizer()


def test_a_missing_tensor_is_named(copy):
    check_a_missing_tensor(copy, "visual_projection.weight", kind="MetaClip2Model")
