"""Checksums of a library's files, which detect damage by a disk or a copy.

`checksums.json` has a checksum of each file of the database, so that any changed bit is detected; `library.json`
contains its own checksum. Each row has a checksum too (`vop.search.schema`). It shows which video is damaged, even
after rows were copied to another file. `checksums.json` also keeps copies of the small files without which nothing can
be read (`library.json`, the newest manifest of each table, and the lists of deleted rows), and of the list of failures,
which could otherwise be restored only by reading every video.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vop.errors import VopError
from vop.search import failures, manifest
from vop.search.manifest import DATABASE
from vop.utils.files import atomic_write

FILE = "checksums.json"
_HINT = "latest_version_hint.json"  # LanceDB rewrites it and does not rely on it; all other files are written once


@dataclass(frozen=True)
class Seal:
    """The files of a library as they were after the last change.

    Attributes:
        files: SHA-256 by path below the library's folder.
        copies: the content of some of the files, in base64.
    """

    files: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def copy_of(self, name: str) -> bytes | None:
        return base64.b64decode(self.copies[name]) if name in self.copies else None


def seal(folder: Path) -> None:
    """Bring `checksums.json` up to date; only new files are read. The caller has the lock."""
    known = read_seal(folder) or Seal()
    names = sorted(_names(folder))
    files = {name: known.files.get(name) or digest(folder / name) for name in names}
    copied = [*newest_manifests(names), *filter(_is_copied, names)]
    copies = {name: known.copies.get(name) or _encoded(folder / name) for name in copied}
    if manifest.FILE in known.copies:
        copies[manifest.FILE] = known.copies[manifest.FILE]
    with suppress(VopError):  # the copy of a damaged manifest stays
        manifest.read(folder)
        copies[manifest.FILE] = _encoded(folder / manifest.FILE)
    content = Seal(files, copies)
    if content != known:
        _write(folder, content)


def _is_copied(name: str) -> bool:
    return "/_deletions/" in name or name.startswith(f"{DATABASE}/{failures.TABLE}.lance/data/")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def read_seal(folder: Path) -> Seal | None:
    """Read `checksums.json`; None if it does not exist or is damaged."""
    try:
        document = json.loads((folder / FILE).read_bytes())
        content = Seal(**document["content"])
        return content if document["sha256"] == _digest_of(content) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, content: Seal) -> None:
    document = {"sha256": _digest_of(content), "content": asdict(content)}
    with atomic_write(folder / FILE) as path:
        path.write_text(json.dumps(document), encoding="utf-8")


def _digest_of(content: Seal) -> str:
    return hashlib.sha256(json.dumps(asdict(content), sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> Iterator[str]:
    """Yield the files of the database."""
    for path in (folder / DATABASE).rglob("*"):
        if path.is_file() and path.name != _HINT:
            yield path.relative_to(folder).as_posix()


def newest_manifests(names: list[str]) -> list[str]:
    """Return the manifest of each table's newest version."""
    found: dict[str, str] = {}
    for name in sorted(names, reverse=True):  # LanceDB counts downwards, so that the newest name is the first
        if name.endswith(".manifest"):
            found[name.rpartition("/")[0]] = name
    return sorted(found.values())
