"""What a query asks of words: quoted phrases, and sentences that may be spoken or written, too."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vop.utils.names import nfc

if TYPE_CHECKING:
    from vop.search.queries import Sentence

_QUOTED = re.compile(r'"([^"]*)"|“([^“”„]*)”|„([^“”„]*)[“”]|«([^«»]*)»|「([^「」]*)」')
_WORD = re.compile(r"\w+")
# Scripts without spaces: Thai, Lao, Burmese, Khmer, Japanese syllables, Chinese characters.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_COMMON_WORDS = """
a about an and are as at be been but by did do does for from had has have he her his i if in into is it its me my no not
of off on onto or our out over s she so some t than that the their them then there these they this those to up us was we
were what when where which who will with you your
say saying says said someone somebody talk talking talks
"""
COMMON = frozenset(_COMMON_WORDS.split())
_NO_ENDINGS = ("ss", "us", "is")
_ENDINGS = ("ing", "ed", "es", "s", "e")
LONG = 4  # words; so many of a longer sentence count as all of it
ENOUGH = 0.5  # of the words of a sentence; a line with fewer does not match it


@dataclass(frozen=True)
class WordsQuery:
    """Words to search for.

    Attributes:
        phrases: quoted words, all of which a line must contain.
        sentences: a line may contain their words.
        seen: what is left of the query for pictures, with weights; empty if everything is quoted.
    """

    phrases: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    seen: tuple[Sentence, ...] = ()

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> WordsQuery:
        """Divide sentences into quoted phrases and the rest. Sentences of which less is to be found match no words."""
        phrases: list[str] = []
        seen: list[Sentence] = []
        said: list[str] = []
        for sentence in sentences:
            if sentence.weight > 0:
                found = [next(filter(None, groups), "") for groups in _QUOTED.findall(sentence.text)]
                phrases += [nfc(phrase.strip()) for phrase in found if _WORD.search(phrase)]
            rest = _QUOTED.sub(" ", sentence.text)
            rest = " ".join(rest.split()) if rest != sentence.text else rest
            has_words = _WORD.search(rest) is not None
            if has_words or rest == sentence.text:  # it may be an emoji
                seen.append(replace(sentence, text=rest))
            if has_words and sentence.weight > 0:
                said.append(nfc(rest))
        return cls(tuple(phrases), tuple(said), tuple(seen))

    @property
    def is_empty(self) -> bool:
        return not (self.phrases or any(map(terms, self.sentences)))

    def full_text(self, column: str) -> Any:
        """Return the query for LanceDB."""
        import lancedb.query

        kinds: Any = lancedb.query  # its types demand arguments that have defaults
        phrases = [(kinds.Occur.MUST, kinds.PhraseQuery(phrase, column)) for phrase in self.phrases]
        sentences = [(kinds.Occur.SHOULD, kinds.MatchQuery(text, column)) for text in self.sentences]
        return kinds.BooleanQuery(phrases or sentences)

    def coverage(self, text: str) -> float:
        """Return how much of the query a line contains, in 0..1: all of it, if it contains the phrases."""
        if self.phrases:
            return 1.0
        said = terms(text, every=True)
        return max((_share(terms(sentence), said) for sentence in self.sentences), default=0.0)


def _share(wanted: frozenset[str], said: frozenset[str]) -> float:
    """Return how much of a sentence is said. A long sentence describes more than what is said."""
    return min(1.0, len(wanted & said) / min(len(wanted), LONG)) if wanted else 0.0


def terms(text: str, *, every: bool = False) -> frozenset[str]:
    """Return the words of a text without accents and endings, and of scripts without spaces each pair of characters.

    Args:
        every: whether to return common words (`the`), too. They are returned also if there are no others.
    """
    found: set[str] = set()
    words: set[str] = set()
    for word in _WORD.findall(_folded(text)):
        for run in _UNSPACED.findall(word):
            found |= {run[place : place + 2] for place in range(len(run) - 1)} or {run}
            if every:
                found |= set(run)
        words.update(_UNSPACED.sub(" ", word).split())
    uncommon = words - COMMON
    chosen = words if every or not (uncommon or found) else uncommon
    return frozenset(found | {_stem(word) for word in chosen})


def sequence(text: str) -> list[str]:
    """Return the words of a text in their order, without accents and endings; of scripts without spaces the characters.

    Unlike in `terms`, common words count: a phrase has them, too.
    """
    found: list[str] = []
    for word in _WORD.findall(_folded(text)):
        start = 0
        for run in _UNSPACED.finditer(word):
            found += [_stem(part) for part in [word[start : run.start()]] if part]
            found += run[0]
            start = run.end()
        found += [_stem(part) for part in [word[start:]] if part]
    return found


def _folded(text: str) -> str:
    """Return a text in small letters without accents."""
    return "".join(
        letter for letter in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(letter)
    )


def _stem(word: str) -> str:
    for ending in () if word.endswith(_NO_ENDINGS) else _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    doubled = len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz"
    if len(word) > 3 and word.endswith("y"):  # babies, baby
        return word[:-1] + "i"
    return word[:-1] if doubled else word
