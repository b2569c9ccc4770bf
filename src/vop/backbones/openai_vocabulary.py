"""Convert OpenAI's vocabulary, `bpe_simple_vocab_16e6.txt.gz`, to the files of a `transformers` CLIPTokenizer."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from vop.errors import UsageError, VopError
from vop.utils.files import expand

FILE_NAME = "bpe_simple_vocab_16e6.txt.gz"
BYTES = 256
MAX_BYTES = 32 * 2**20  # of the text; OpenAI's has 3 MB
START, END = "<|startoftext|>", "<|endoftext|>"


def find_vocabulary(folder: Path, given: str | Path | None) -> Path | None:
    """Return the given file, or the one in `folder`, or None.

    Raises:
        UsageError: the given file does not exist.
    """
    path = expand(given) if given else folder / FILE_NAME
    if path.is_file():
        return path
    if given:
        raise UsageError(f"{path}: the vocabulary does not exist; OpenAI's is called {FILE_NAME}")
    return None


def write_tokenizer(path: Path, folder: Path, *, vocab_size: int, positions: int) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer.json` for a token embedding of `vocab_size` rows.

    The ids, in order, are those of the bytes, the bytes at a word's end, the results of the merges, and the two marks.
    After a header line, OpenAI's file has one merge per line in the order of rank, and more merges than a CLIP uses.

    Raises:
        VopError: the file cannot be read, or has too few merges for `vocab_size`.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _read_merges(path, count=vocab_size - 2 * BYTES - 2)
    words = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(merge) for merge in merges), START, END]
    known = set(words)
    unknown = next((merge for merge in merges if not known.issuperset(merge)), None)
    if unknown:
        raise VopError(
            f"{path}: the merge {' '.join(unknown)!r} joins a piece that does not exist: this is not a CLIP vocabulary"
        )
    vocabulary = {word: i for i, word in enumerate(words)}
    pairs: Any = merges  # CLIPTokenizer accepts pairs, but its annotation does not
    CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=positions).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read_merges(path: Path, *, count: int) -> list[tuple[str, str]]:
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise VopError(f"{path}: the text has more than {MAX_BYTES:,} bytes: this is not OpenAI's {FILE_NAME}")
        _, *lines = data.decode("utf-8").split("\n")
        found = [line.split() for line in lines[: max(0, count)] if line.strip()]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise VopError(
            f"{path}: this is not a gzip file of text ({error}); fetch OpenAI's {FILE_NAME} again"
        ) from error
    if len(found) != count:
        raise VopError(f"{path}: the file has {len(found)} merges; the token embedding of this model needs {count}")
    wrong = next((merge for merge in found if len(merge) != 2), None)
    if wrong:
        raise VopError(f"{path}: {' '.join(wrong)[:80]!r} is not a merge of two pieces: this is not a CLIP vocabulary")
    return [(first, second) for first, second in found]
