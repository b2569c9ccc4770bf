"""Texts to token ids, as a CLIP folder's vocabulary has them.

OpenAI cleaned every text before it was cut into tokens, and so did those who trained CLIPs with OpenAI's code or with
open_clip. `clean` does the same. A folder that was trained without says so in its tokenizer_config.json:
`"text_cleaning": "none"`.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

import ftfy
import tokenizers
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vop.errors import VopError
from vop.utils.files import check_file
from vop.utils.parsing import read_json_object

MAX_BYTES = 64 * 2**20  # CLIP's tokenizer.json has 2 MB
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


class Tokenizer:
    """The ids that OpenAI's tokenizer gives; mostly without `transformers`, which takes a second to import.

    Without text cleaning they are those of `transformers.CLIPTokenizer`.

    Attributes:
        cleans: whether texts are cleaned first, as for all CLIPs whose folder does not say otherwise.
        pad_token_id: the end mark. The text tower reads nothing behind it.
    """

    def __init__(self, folder: Path, *, vocab_size: int | None = None) -> None:
        """Reads the vocabulary in `folder`; its ids must be below `vocab_size`, the rows of the token embedding.

        Raises:
            VopError: the vocabulary is damaged, or of another model.
        """
        for name in _FILES:
            if (folder / name).exists():
                check_file(folder / name, at_most=MAX_BYTES)
        try:
            self._rules = _read_rules(folder)
        except Exception as error:  # the library raises no class of its own
            raise VopError(f"{folder}: its vocabulary cannot be read ({error}); fetch or convert it again") from error
        highest = max(self._rules.get_vocab().values(), default=-1)
        if vocab_size is not None and highest >= vocab_size:
            raise VopError(
                f"{folder}: its vocabulary has ids up to {highest}, its token embedding up to {vocab_size - 1}; "
                "they are not of the same model: fetch or convert it again"
            )
        self.cleans = _is_cleaned(folder)
        if self.cleans:
            self._rules.normalizer = tokenizers.normalizers.Sequence([])
        self._rules.no_truncation()
        self._rules.no_padding()
        marks = self._rules.encode("").ids
        if not marks:
            raise VopError(f"{folder}: its tokenizer.json puts no marks around a text; fetch or convert it again")
        self.pad_token_id = marks[-1]

    def encode(self, texts: list[str], *, max_length: int) -> Tensor:
        """One or more texts to ids (n, length), padded to the longest. Long ones are cut, but keep the end mark."""
        end = self.pad_token_id
        rows = [text.ids for text in self._rules.encode_batch([self._prepared(text) for text in texts])]
        # Truncated here: in the library the length is a state, which another thread may change in between.
        rows = [row if len(row) <= max_length else [*row[: max_length - 1], end] for row in rows]
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=end)

    def count(self, text: str) -> int:
        """The number of ids of a text, both marks included, before it is truncated."""
        return len(self._rules.encode(self._prepared(text)).ids)

    def _prepared(self, text: str) -> str:
        return clean(text) if self.cleans else text


def clean(text: str) -> str:
    """A text as OpenAI's tokenizer cleans it: mended Unicode, no HTML entities, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def _is_cleaned(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    config = read_json_object(path, remedy="fetch the folder again") if path.exists() else {}
    return config.get("text_cleaning") != "none"


def _read_rules(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if path.exists():
        return tokenizers.Tokenizer.from_file(str(path))
    from transformers import CLIPTokenizer  # knows the rules that vocab.json and merges.txt lack

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
