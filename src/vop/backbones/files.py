"""The files of a backbone's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vop.errors import VopError

MAX_HEADER_BYTES = 8 * 2**20  # of a safetensors file; ViT-L/14's has 80 kB
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder has the file of a vocabulary."""
    return any((folder / name).exists() for name in VOCABULARIES)


def weight_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of the first pattern that matches any; the whole file, where there are shards beside it."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        whole = [path for path in found if path.name == pattern.replace("*", "")]
        if found:
            return whole or found
    return []


def check_header(path: Path) -> None:
    """Raise a VopError if the header of a safetensors file is too large to be one."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise VopError(
            f"{path}: damaged: its header would take {size:,} bytes, at most {MAX_HEADER_BYTES:,} are read; "
            "fetch or train it again"
        )
