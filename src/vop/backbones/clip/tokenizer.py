"""Convert texts to token ids with the vocabulary of a CLIP folder.

OpenAI's code and open_clip clean every text before it is split into tokens, and `clean` does the same. A CLIP that was
trained without cleaning has `"text_cleaning": "none"` in its tokenizer_config.json.
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
    """Returns the same token ids as OpenAI's tokenizer, usually without `transformers`, whose import takes a second.

    Without text cleaning, the ids are those of `transformers.CLIPTokenizer`.

    Attributes:
        cleans: whether texts are cleaned first. The default, unless the folder says otherwise.
        pad_token_id: the end mark. The text tower ignores everything after it.
    """

    def __init__(self, folder: Path, *, vocab_size: int | None = None) -> None:
        """Read the vocabulary in `folder`. Its ids must be below `vocab_size`, the rows of the token embedding.

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
        if vocab_size is not None and highest >= vocab_size:
            raise VopError(
                f"{folder}: the vocabulary has ids up to {highest}, the token embedding up to {vocab_size - 1}: they "
                "belong to different models; fetch or convert the folder again"
            )
        self.cleans = _is_cleaned(folder)
        if self.cleans:
            self._rules.normalizer = tokenizers.normalizers.Sequence([])
        self._rules.no_truncation()
        self._rules.no_padding()
        marks = self._rules.encode("").ids
        if not marks:
            raise VopError(f"{folder}: tokenizer.json adds no start and end marks; fetch or convert it again")
        self.pad_token_id = marks[-1]

    def encode(self, texts: list[str], *, max_length: int) -> Tensor:
        """Return the ids of texts (n, length), padded to the longest. Long texts are cut but keep the end mark."""
        end = self.pad_token_id
        rows = [text.ids for text in self._rules.encode_batch([self._prepared(text) for text in texts])]
        # Truncated here, because the library stores the length as a state that another thread may change.
        rows = [row if len(row) <= max_length else [*row[: max_length - 1], end] for row in rows]
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=end)

    def count(self, text: str) -> int:
        """Return the number of ids of a text before truncation, including both marks."""
        return len(self._rules.encode(self._prepared(text)).ids)

    def _prepared(self, text: str) -> str:
        return clean(text) if self.cleans else text


def clean(text: str) -> str:
    """Clean a text like OpenAI's tokenizer: repaired Unicode, no HTML entities, single spaces, lower case."""
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
