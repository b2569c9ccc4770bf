"""Notes for queries in a language that the model does not read.

A model of one language embeds any text without an error, and finds something at random. The script of the letters tells
most languages; for those in Latin letters, a few of their commonest words do, if no English words stand beside them.
A sentence of only rare words ("Sonnenuntergang") passes: a wrong note would be worse than none.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.backbones import Backbone

ENGLISH, CHINESE = "English", "Chinese"
_LATIN, _CHINESE_SCRIPT, _JAPANESE = "Latin", "Chinese", "Japanese"
_SCRIPTS = {  # by the first word of the letters' Unicode names
    "LATIN": _LATIN, "CJK": _CHINESE_SCRIPT, "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARABIC": "Arabic",
    "HEBREW": "Hebrew", "DEVANAGARI": "Devanagari", "BENGALI": "Bengali", "TAMIL": "Tamil", "TELUGU": "Telugu",
    "GUJARATI": "Gujarati", "GURMUKHI": "Gurmukhi", "KANNADA": "Kannada", "MALAYALAM": "Malayalam",
    "SINHALA": "Sinhala", "THAI": "Thai", "LAO": "Lao", "KHMER": "Khmer", "MYANMAR": "Burmese", "HIRAGANA": _JAPANESE,
    "KATAKANA": _JAPANESE, "HANGUL": "Korean", "GEORGIAN": "Georgian", "ARMENIAN": "Armenian", "ETHIOPIC": "Ethiopic",
}  # fmt: skip
_READS = {ENGLISH: {_LATIN}, CHINESE: {_CHINESE_SCRIPT}}
# Common words that are not English. An article at the beginning of a sentence is enough; of the others, it takes two.
_ARTICLES = {
    "German": "ein eine einen einem einer",
    "Dutch": "een",
    "French": "une",
    "Spanish": "una uno unos unas",
    "Portuguese": "uma uns umas",
    "Hungarian": "egy",
}
_COMMON = {
    "German": "der das dem des und auf mit im ist sind nicht zwei drei vor über unter durch neben läuft spielt sitzt",
    "Dutch": "het op met van naar zijn twee voor bij staat loopt rijdt speelt",
    "Swedish, Danish, Norwegian": "och på med till två ett från og til fra",
    "French": "un le la les du de et avec sur dans qui est sont aux deux près sa",
    "Spanish": "un el la los las de del al con en por sobre que dos corre",
    "Italian": "un il lo gli di che è sono nel nella sul sulla della tra con",
    "Portuguese": "o os da na nos com ao dois duas que",
    "Romanian": "pe cu și în un",
    "Polish": "na się jest przez pod przy dwa dwie",
    "Czech": "na je se dva",
    "Hungarian": "az és",
    "Turkish": "ve bir ile için",
    "Finnish": "ja",
    "Indonesian": "yang dan di dengan sebuah seekor",
}
_FIRST = frozenset(word for words in _ARTICLES.values() for word in words.split())
_FOREIGN = _FIRST | frozenset(word for words in _COMMON.values() for word in words.split())
_ENGLISH_WORDS = """
a an the of in on at to and with is are from by for into over under his her its their it he she they that this one two
three while who someone people man woman
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_WORDS = re.compile(r"[^\W\d_]+")


def language_note(backbone: Backbone, text: str) -> str | None:
    """Return a note for the user if the model knows one language only and the text is evidently in another."""
    from vop.backbones.describe import languages_of, most_languages  # imports PyTorch
    from vop.backbones.source import is_hub_id

    languages = languages_of(backbone)
    if languages not in _READS:
        return None
    script = script_of(text)
    if script in (None, *_READS[languages]):
        if languages != ENGLISH or not looks_foreign(text):
            return None
        looks = "does not look like English"
    else:
        looks = f"is written in {script} script"
    name = backbone.name
    if not is_hub_id(name):
        name = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return (
        f"{name} reads {languages} only, and the query {looks}: write it in {languages}, or use a model of many "
        f"languages, such as {most_languages()} (`vop backbones` lists them)"
    )


def script_of(text: str) -> str | None:
    """Return the script of most letters of a text; None if it has none, or of a script that is not listed."""
    found = Counter(
        _SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0].partition("-")[0])
        for letter in text
        if letter.isalpha()
    )
    if not found:
        return None
    script = max(found, key=lambda script: found[script])
    return _JAPANESE if script == _CHINESE_SCRIPT and _JAPANESE in found else script


def looks_foreign(text: str) -> bool:
    """Return whether a text in Latin letters is evidently not English."""
    words = _WORDS.findall(unicodedata.normalize("NFC", text).lower())
    foreign = {word for word in words if word in _FOREIGN}
    english = {word for word in words if word in _ENGLISH}
    if not words or len(foreign) <= len(english):
        return False
    return words[0] in _FIRST or (len(foreign) >= 2 and 3 * len(foreign) >= len(words))
