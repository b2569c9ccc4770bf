"""Texts to token ids, as a CLIP folder's vocabulary has them."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vop.errors import VopError
from vop.utils.files import check_file

MAX_BYTES = 64 * 2**20  # CLIP's tokenizer.json has 2 MB
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


class Tokenizer:
    """The ids that `transformers.CLIPTokenizer` gives, mostly without `transformers`, which takes a second to import.

    Attributes:
        pad_token_id: the end mark, behind which the text tower reads nothing.
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
        except Exception as error:  # the library raises bare ones
            raise VopError(f"{folder}: its vocabulary cannot be read ({error}); fetch or convert it again") from error
        highest = max(self._rules.get_vocab().values(), default=-1)
        if vocab_size is not None and highest >= vocab_size:
            raise VopError(
                f"{folder}: its vocabulary has ids up to {highest}, its token embedding up to {vocab_size - 1}; "
                "they are not of the same model: fetch or convert it again"
            )
        self._rules.no_truncation()
        self._rules.no_padding()
        marks = self._rules.encode("").ids
        if not marks:
            raise VopError(f"{folder}: its tokenizer.json puts no marks around a text; fetch or convert it again")
        self.pad_token_id = marks[-1]

    def encode(self, texts: list[str], *, max_length: int) -> Tensor:
        """One text or more to ids (n, length), padded to the longest; what is too long is cut, the end mark kept."""
        end = self.pad_token_id
        rows = [text.ids for text in self._rules.encode_batch(texts)]
        # Cut here: the library holds the length as a state, which another thread may change in between.
        rows = [row if len(row) <= max_length else [*row[: max_length - 1], end] for row in rows]
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=end)

    def count(self, text: str) -> int:
        """How many ids a text has, both marks included, before it is cut."""
        return len(self._rules.encode(text).ids)


def _read_rules(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if path.exists():
        return tokenizers.Tokenizer.from_file(str(path))
    from transformers import CLIPTokenizer  # has the rules that vocab.json and merges.txt leave out

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
