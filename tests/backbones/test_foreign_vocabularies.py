"""A vocabulary with ids beyond the token embedding belongs to another model, whatever the family."""

from __future__ import annotations

import json
import shutil
from functools import cache, partial
from itertools import permutations

import pytest
import tokenizers

from tiny_backbones import (
    make_altclip_folder,
    make_chinese_clip_folder,
    make_metaclip2_folder,
    make_pe_video_folder,
    make_siglip_folder,
    make_videoprism_folder,
    make_x_clip_folder,
)
from tiny_clip import make_clip_folder, make_tokenizer
from vop.backbones import find_backbone
from vop.backbones.files import VOCABULARIES
from vop.errors import VopError


def make_open_clip_vocabulary(folder):
    """open_clip's files without weights."""
    text = {"vocab_size": make_tokenizer(folder), "context_length": 24, "width": 32, "heads": 4, "layers": 2}
    model = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "width": 64, "layers": 1}, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    return folder


MAKERS = {
    "clip": make_clip_folder,
    "metaclip_2": make_metaclip2_folder,
    "siglip": make_siglip_folder,
    "siglip2": partial(make_siglip_folder, version=2),
    "chinese_clip": make_chinese_clip_folder,
    "altclip": make_altclip_folder,
    "xclip": make_x_clip_folder,
    "videoprism": make_videoprism_folder,
    "pe_video": make_pe_video_folder,
    "open_clip": make_open_clip_vocabulary,
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A function that returns the folder of a family, which is written once."""

    @cache
    def folder_of(name):
        if name == "pe_video":
            pytest.importorskip("timm")
        return MAKERS[name](tmp_path_factory.mktemp(name))

    return folder_of


@pytest.fixture(params=MAKERS)
def whole(request, make):
    return make(request.param)


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def test_more_words_than_rows(folder):
    path = next(path for path in (folder / "open_clip_config.json", folder / "config.json") if path.exists())
    config = json.loads(path.read_text())
    text = config["model_cfg"]["text_cfg"] if "model_cfg" in config else config["text_config"]
    rows = text["vocab_size"] = 60
    ids = {name: value for name, value in text.items() if name.endswith("_token_id") and value is not None}
    text |= {name: min(value, rows - 1) for name, value in ids.items()}
    path.write_text(json.dumps(config))
    with pytest.raises(VopError, match=rf"ids up to \d+, the token embedding up to {rows - 1}: .*different models"):
        find_backbone(str(folder)).tokenizer()


def test_a_special_token_beyond_the_rows(folder):
    rows = find_backbone(str(folder)).sizes.text.vocab_size
    if (folder / "tokenizer.json").exists():
        rules = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        new = [f"<extra{n}>" for n in range(rows + 1 - rules.get_vocab_size())]
        rules.add_special_tokens(new)
        rules.save(str(folder / "tokenizer.json"))
    else:  # BERT's list of words
        with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
            file.write("[EXTRA]\n")
    with pytest.raises(VopError, match=rf"ids up to {rows}, the token embedding up to {rows - 1}"):
        find_backbone(str(folder)).tokenizer()


# Families of one vocabulary, as far as the tiny folders go.
SAME = ({"clip", "xclip", "open_clip"}, {"chinese_clip", "pe_video"}, {"metaclip_2", "altclip"})
FILES = (*VOCABULARIES, "tokenizer_config.json", "merges.txt", "special_tokens_map.json")


@pytest.mark.parametrize(
    ("name", "other"),
    [pair for pair in permutations(MAKERS, 2) if not any({*pair} <= same for same in SAME)],
)
def test_the_vocabulary_of_another_family(make, tmp_path, name, other):
    folder = shutil.copytree(make(name), tmp_path / "copy", ignore=shutil.ignore_patterns(*FILES))
    for path in (make(other) / file for file in FILES):
        if path.exists():
            shutil.copy(path, folder)
    with pytest.raises(VopError) as caught:
        find_backbone(str(folder)).tokenizer()
    assert str(folder) in str(caught.value)
