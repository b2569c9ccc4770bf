"""Captions and queries that are not Latin reach the towers of the multilingual families as they were written."""

from __future__ import annotations

import json
import unicodedata
from functools import partial

import pytest
import torch
from transformers import AutoTokenizer

import vop
from tiny_backbones import (
    SENTENCES,
    make_altclip_folder,
    make_chinese_clip_folder,
    make_metaclip2_folder,
    make_siglip_folder,
)
from tiny_data import write_videos
from vop.cli import main
from vop.evaluation.embeddings_file import read_embeddings

FAMILIES = {
    "metaclip_2": make_metaclip2_folder,
    "siglip2": partial(make_siglip_folder, version=2),
    "chinese_clip": make_chinese_clip_folder,
    "altclip": make_altclip_folder,
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return FAMILIES[family](tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def model(folder):
    return vop.load(folder, device="cpu")


def without_accents(text):
    """As BERT's normaliser removes them, vowel signs of Hindi and Thai too."""
    return "".join(one for one in unicodedata.normalize("NFD", text) if unicodedata.category(one) != "Mn")


@pytest.mark.parametrize("language", SENTENCES)
def test_every_character_has_its_token(family, folder, model, language):
    text, theirs = SENTENCES[language], AutoTokenizer.from_pretrained(folder)
    (ids,) = model.tokenize([text])[:, : model.count_tokens(text)]
    assert theirs.unk_token_id not in ids
    assert ids.tolist() == theirs(text).input_ids
    read = theirs.decode(ids, skip_special_tokens=True)
    wanted = without_accents(text) if family == "chinese_clip" else text
    assert read.replace(" ", "") == wanted.replace(" ", "")  # BERT writes a space after each Chinese character


def test_captions_and_queries(folder, model, tmp_path, capsys):
    videos, texts = write_videos(tmp_path / "videos")[: len(SENTENCES)], list(SENTENCES.values())
    table, written = tmp_path / "test.csv", tmp_path / "embeddings.npz"
    rows = "".join(f"videos/{video.name},{text}\n" for video, text in zip(videos, texts, strict=True))
    table.write_text(f"video,caption\n{rows}", encoding="utf-8")
    wanted = model.encode_text(texts)
    assert torch.pdist(wanted).min() > 1e-3  # no two languages fall together
    vop.evaluate(str(folder), str(table), precision="fp32", save_embeddings=str(written))
    stored = read_embeddings(written).embedded
    assert list(stored.split.captions) == texts
    torch.testing.assert_close(stored.texts, wanted, rtol=0, atol=1e-5)
    library = vop.Library.create(tmp_path / "library", model=str(folder), precision="fp32")
    library.index([video.parent for video in videos[:1]])
    scores = (wanted @ model.encode_video(sorted(videos[0].parent.glob("*.mp4"))).T).max(dim=1).values
    for text, score in zip(texts, scores.tolist(), strict=True):
        capsys.readouterr()
        assert main(["search", str(tmp_path / "library"), text, "-k", "1", "--precision", "fp32", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["results"]
        assert found["score"] == pytest.approx(score, abs=1e-3)
