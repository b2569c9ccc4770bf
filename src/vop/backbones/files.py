"""Find the files of a backbone's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vop.errors import VopError

MAX_HEADER_BYTES = 8 * 2**20  # of a safetensors file; that of ViT-L/14 has 80 kB
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")


def has_vocabulary(folder: Path) -> bool:
    """Return whether a folder has a vocabulary file."""
    return any((folder / name).exists() for name in VOCABULARIES)


@contextmanager
def converted_vocabulary(folder: Path) -> Iterator[Path]:
    """Give a temporary folder for the converted vocabulary of `folder`, which errors name instead."""
    with TemporaryDirectory(prefix="vop-") as temporary:
        try:
            yield Path(temporary)
        except VopError as error:
            raise type(error)(str(error).replace(temporary, str(folder))) from error


def weight_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of the first pattern that matches. If there is a whole file beside shards, return only that."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        whole = [path for path in found if path.name == pattern.replace("*", "")]
        if found:
            return whole or found
    return []


def check_header(path: Path) -> None:
    """Raise a VopError if the header of a safetensors file claims an implausible size."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise VopError(
            f"{path}: the file is damaged: its header claims {size:,} bytes; at most {MAX_HEADER_BYTES:,} are read. "
            "Fetch or train it again"
        )
