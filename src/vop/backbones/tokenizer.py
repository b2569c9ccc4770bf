"""Convert texts to token ids with the vocabulary of a backbone's folder.

OpenAI's code and open_clip clean every text before it is split into tokens. Other families clean differently; see
`CLEANING`. A backbone that was trained without cleaning has `"text_cleaning": "none"` in its tokenizer_config.json.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ftfy
import tokenizers
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vop.backbones.files import VOCABULARIES
from vop.backbones.sizes import TextSizes
from vop.errors import VopError
from vop.utils.checks import check_choice
from vop.utils.files import check_file
from vop.utils.parsing import read_json_object

MAX_BYTES = 128 * 2**20  # CLIP's tokenizer.json has 2 MB, one of 256,000 words 34 MB, one of 900,000 about twice that
_FILES = (*VOCABULARIES, "tokenizer_config.json", "merges.txt", "special_tokens_map.json")


class Tokenizer:
    """Returns the token ids of a family's own tokenizer, usually without `transformers`, whose import takes a second.

    Attributes:
        cleaning: how texts are cleaned first, a name of `CLEANING`.
        end_token_id: the end mark, which truncated texts keep; None for a vocabulary without an end mark.
        pad_token_id: the padding token. For a causal tower it is the end mark, because later tokens have no effect.
    """

    def __init__(
        self,
        folder: Path,
        sizes: TextSizes,
        *,
        cleaning: str = "openai",
        ends: bool = True,
        zero_end: bool = False,
        pad_token_id: int | None = None,
        pad_token: str | None = None,
        checks_end: bool = True,
    ) -> None:
        """Read the vocabulary in `folder`.

        Args:
            sizes: the text tower's. All ids must be below `vocab_size`, the rows of the token embedding.
            cleaning: the family's cleaning. The folder's tokenizer_config.json takes precedence.
            ends: whether the vocabulary adds an end mark to a text.
            zero_end: whether the id 0 takes the place of the end mark, as CLIPA was trained.
            pad_token_id: the padding token; by default `pad_token`.
            pad_token: the padding token's text. By default the one that tokenizer.json pads with if captions have a
                fixed length, since padding is then part of the input; otherwise the end mark.
            checks_end: whether the end mark must be the token at which `sizes` say that a text is read. False for a
                tower whose `sizes` do not tell where it is.

        Raises:
            VopError: the vocabulary is damaged, or belongs to another model.
        """
        for name in _FILES:
            if (folder / name).exists():
                check_file(folder / name, at_most=MAX_BYTES)
        try:
            self._rules = _read_rules(folder)
        except Exception as error:  # the library has no exception class of its own
            raise VopError(f"{folder}: its vocabulary cannot be read ({error}); fetch or convert it again") from error
        highest = max(self._rules.get_vocab().values(), default=-1)
        if highest >= sizes.vocab_size:
            raise VopError(
                f"{folder}: the vocabulary has ids up to {highest}, the token embedding up to {sizes.vocab_size - 1}: "
                "they belong to different models; fetch or convert the folder again"
            )
        if 2 * (highest + 1) < sizes.vocab_size:  # padded tables have at most a few thousand rows more
            raise VopError(
                f"{folder}: the vocabulary has ids up to {highest}, the token embedding has {sizes.vocab_size} rows, "
                "more than twice as many: they belong to different models; fetch or convert the folder again"
            )
        self.cleaning = _its_cleaning(folder) or cleaning
        check_choice("text cleaning", self.cleaning, CLEANING)
        if self.cleaning == "openai":
            self._rules.normalizer = tokenizers.normalizers.Sequence([])
        padding = self._rules.padding
        self._rules.no_truncation()
        self._rules.no_padding()
        marks = self._rules.encode("").ids
        if not marks and (ends or sizes.marks):
            raise VopError(f"{folder}: tokenizer.json adds no start and end marks; fetch or convert it again")
        self.end_token_id = marks[-1] if ends else None
        if checks_end and sizes.readout == "eos" and not zero_end and self.end_token_id != sizes.eos_token_id:
            raise VopError(
                f"{folder}: its vocabulary ends a text with the id {self.end_token_id}, its configuration reads it at "
                f"{sizes.eos_token_id}: they belong to different models; fetch or convert the folder again"
            )
        _check_padding(folder, self._rules, sizes)
        if pad_token_id is None and pad_token is not None:
            pad_token_id = self._rules.token_to_id(pad_token)
        if pad_token_id is None and sizes.fixed_length:
            if pad_token is not None or padding is None:
                raise VopError(
                    f"{folder}: captions are padded to a fixed length, but "
                    + (f"its vocabulary has no {pad_token!r}" if pad_token else "no file names the padding token")
                    + ': add it to tokenizer_config.json as "pad_token"'
                )
            pad_token_id = padding["pad_id"]
        self.pad_token_id = pad_token_id if pad_token_id is not None else marks[-1]
        self._fixed_length, self._zero_end = sizes.fixed_length, zero_end

    def encode(self, texts: list[str], *, max_length: int) -> Tensor:
        """Return the ids of texts (n, length). Long texts are truncated but keep the end mark.

        Texts are padded to the longest, or to `max_length` if the backbone was trained with a fixed length.
        """
        rows = [text.ids for text in self._rules.encode_batch([self._prepared(text) for text in texts])]
        # Truncated here, because the library stores the length as a state that another thread may change.
        rows = [self._truncated(row, max_length) for row in rows]
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=self.pad_token_id)
        if self._zero_end:
            ids[ids == self.end_token_id] = 0
        missing = max_length - ids.shape[1] if self._fixed_length else 0
        return torch.nn.functional.pad(ids, (0, missing), value=self.pad_token_id)

    def _truncated(self, row: list[int], max_length: int) -> list[int]:
        if len(row) <= max_length:
            return row
        return row[:max_length] if self.end_token_id is None else [*row[: max_length - 1], self.end_token_id]

    def count(self, text: str) -> int:
        """Return the number of ids of a text before truncation, including marks."""
        return len(self._rules.encode(self._prepared(text)).ids)

    def _prepared(self, text: str) -> str:
        return CLEANING[self.cleaning](text)


def clean(text: str) -> str:
    """Clean a text like OpenAI's tokenizer: repaired Unicode, no HTML entities, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def canonicalize(text: str) -> str:
    """Clean a text like SigLIP's tokenizer: lower case, no punctuation, single spaces."""
    text = text.translate(str.maketrans("", "", string.punctuation)).lower()
    return re.sub(r"\s+", " ", text).strip()


def fixed(text: str) -> str:
    """A text as open_clip cleans it for vocabularies with capital letters: like `clean`, but the case stays."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def sentence(text: str) -> str:
    """Clean a text like VideoPrism's authors: lower case, spaces in place of punctuation, a full stop at the end."""
    text = text.translate(str.maketrans(string.punctuation, " " * len(string.punctuation)))
    return " ".join(text.lower().split()) + "."


CLEANING: dict[str, Callable[[str], str]] = {
    "openai": clean,
    "canonicalize": canonicalize,
    "lower": tokenizers.normalizers.Lowercase().normalize_str,
    "fixed": fixed,
    "fixed-canonicalize": lambda text: canonicalize(fixed(text)),
    "sentence": sentence,
    "none": str,
}


def pad_token(folder: Path) -> str | None:
    """Return the padding token that a folder's tokenizer_config.json or special_tokens_map.json names."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        config = read_json_object(folder / name, remedy="fetch the folder again") if (folder / name).exists() else {}
        token = config.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return None


def _check_padding(folder: Path, rules: tokenizers.Tokenizer, sizes: TextSizes) -> None:
    """Check that the padding token is the one that attention masks, for towers that mask it.

    Others ignore the `pad_token_id` in their configuration, which is wrong in OpenAI's own files.
    """
    if sizes.pad_token_id is None:
        return
    names = [name for name in (pad_token(folder), "[PAD]", "<pad>") if name]  # a vocab.txt names none
    found = next((i for i in map(rules.token_to_id, names) if i is not None), sizes.pad_token_id)
    if found != sizes.pad_token_id:
        raise VopError(
            f"{folder}: its vocabulary pads a text with the id {found}, its configuration with {sizes.pad_token_id}: "
            "they belong to different models; fetch or convert the folder again"
        )


def _its_cleaning(folder: Path) -> Any:
    path = folder / "tokenizer_config.json"
    config = read_json_object(path, remedy="fetch the folder again") if path.exists() else {}
    return config.get("text_cleaning")


def _read_rules(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if path.exists():
        return tokenizers.Tokenizer.from_file(str(path))
    from transformers import AutoTokenizer, CLIPTokenizer  # they know the rules that other files lack

    kind = CLIPTokenizer if (folder / "vocab.json").exists() else AutoTokenizer
    return kind.from_pretrained(folder, local_files_only=True).backend_tokenizer
