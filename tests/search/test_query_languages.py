"""Notes for queries in a language that the model does not read."""

from __future__ import annotations

from dataclasses import replace

import pytest

import vop
from vop.backbones import find_backbone
from vop.backbones.describe import languages_of
from vop.search.confidence import unlikely_captions
from vop.search.languages import language_note, looks_foreign, script_of
from vop.search.queries import Sentence, notes_on

OTHERS = [
    "ein Hund läuft am Strand", "Eine Frau kocht", "zwei Kinder spielen im Schnee", "der Hund und die Katze",
    "un chien court sur la plage", "une voiture rouge", "un perro corre en la playa", "una mujer con un sombrero",
    "un cane corre sulla spiaggia", "uma mulher de chapéu", "een vrouw met een hoed", "bir köpek ve bir kedi",
]  # fmt: skip
ENGLISH = [
    "los angeles at night", "rio de janeiro", "la la land", "café", "leonardo da vinci", "el capitan", "die hard",
    "a man plays la bamba", "the godfather part ii", "dog on beach", "son and father", "mit students", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def mini():
    return find_backbone("mini")


def test_common_words_tell_other_languages_in_latin_letters():
    assert [text for text in OTHERS if not looks_foreign(text)] == []
    assert [text for text in [*ENGLISH, *unlikely_captions()] if looks_foreign(text)] == []


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("собака бежит", "Cyrillic"), ("狗在跑", "Chinese"), ("犬が走る", "Japanese"), ("개가 달린다", "Korean"),
        ("كلب يجري", "Arabic"), ("कुत्ता", "Devanagari"), ("a dog 狗", "Latin"), ("42 🙂 !", None),
    ],
)  # fmt: skip
def test_the_script_is_that_of_most_letters(text, script):
    assert script_of(text) == script


def test_a_model_of_one_language_says_so(mini):
    note = language_note(mini, "собака бежит")
    for part in ("mini reads English only", "Cyrillic script", "google/siglip2-base-patch16-224", "`vop backbones`"):
        assert part in note
    assert "does not look like English" in language_note(mini, "ein Hund läuft am Strand")
    assert [language_note(mini, text) for text in ("a dog runs", "42", "Hund")] == [None] * 3


def named(backbone, name: str):
    return replace(backbone, name=name)


def test_a_model_of_other_languages_reads_these(mini):
    chinese = named(mini, "OFA-Sys/chinese-clip-vit-base-patch16")
    assert language_note(chinese, "狗在跑") is None
    assert "reads Chinese only, and the query is written in Latin script" in language_note(chinese, "a dog runs")
    for name in ("google/siglip2-base-patch16-224", "BAAI/AltCLIP"):
        assert language_note(named(mini, name), "собака бежит") is None


def test_the_vocabulary_tells_the_language_of_an_unknown_checkpoint(mini):
    def of_size(size: int):
        sizes = replace(mini.sizes, text=replace(mini.sizes.text, vocab_size=size))
        return replace(mini, name="/models/own", sizes=sizes)

    assert [languages_of(of_size(size)) for size in (49_408, 21_128, 12_345)] == ["English", "Chinese", None]
    assert language_note(of_size(49_408), "собака").startswith("own reads English only")
    assert language_note(of_size(12_345), "собака") is None


def test_sentences_of_one_query_get_one_note(tiny_folder):
    sentences = [Sentence("eine Katze"), Sentence("ein Hund", -0.5), Sentence("a dog"), Sentence("a " * 1000)]
    model = vop.load(tiny_folder)
    model.backbone = named(model.backbone, "mini")
    cut, foreign = notes_on(model, sentences)
    assert "tokens" in cut
    assert "does not look like English" in foreign
