"""Locations: a local path, or the address of an object or of a prefix in object storage."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from vop.errors import UsageError
from vop.utils.files import expand
from vop.utils.names import existing_path

SCHEMES = {"s3": "Amazon S3 and compatible servers", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_KNOWN = ", ".join(f"{scheme}://BUCKET/…" for scheme in SCHEMES)


@dataclass(frozen=True, order=True)
class Address:
    """The address of an object or of a prefix: `s3://bucket/holidays/lake.mp4`.

    Attributes:
        scheme: s3, gs or az.
        bucket: the bucket; Azure calls it a container.
        key: names that are separated by `/`; empty for the whole bucket.
    """

    scheme: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".removesuffix("/")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names in the key."""
        return tuple(self.key.split("/")) if self.key else ()

    @property
    def name(self) -> str:
        """The last name of the key, or the name of the bucket."""
        return self.parts[-1] if self.key else self.bucket

    @property
    def parent(self) -> Address:
        """The prefix that holds this one."""
        return Address(self.scheme, self.bucket, self.key.rpartition("/")[0])

    @property
    def parents(self) -> tuple[Address, ...]:
        """The prefixes that hold this one, the nearest first and the bucket last."""
        return tuple(self.at("/".join(self.parts[:end])) for end in reversed(range(len(self.parts))))

    def at(self, key: str) -> Address:
        """Return the address of a key in the same bucket."""
        return Address(self.scheme, self.bucket, key)

    def is_below(self, root: Address) -> bool:
        """Return whether this is `root` or below it."""
        same = (self.scheme, self.bucket) == (root.scheme, root.bucket)
        return same and (not root.key or self.key == root.key or self.key.startswith(f"{root.key}/"))


Location: TypeAlias = Path | Address


def absolute(place: str | os.PathLike[str] | Address) -> Location:
    """Return a location from which it does not matter where the process runs, as the names are spelled on disk."""
    found = location(place)
    return found if isinstance(found, Address) else existing_path(expand(found).absolute())


def is_address(text: str) -> bool:
    """Return whether a text is written as an address of object storage."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def location(place: str | os.PathLike[str] | Address) -> Location:
    """Return a location: an `Address` for a text such as `s3://bucket/key`, else a path.

    Raises:
        UsageError: the text is an address that is not valid, or of a kind that is not supported.
    """
    if isinstance(place, Address):
        return place
    text = os.fspath(place)
    found = _SCHEME.match(text)
    if isinstance(place, PurePath) or found is None:
        if not os.path.lexists(text) and text.partition(":/")[0] in SCHEMES and ":/" in text:
            raise UsageError(f"{text}: give an address as text, not as a Path: {text.replace(':/', '://', 1)!r}")
        return Path(text)
    scheme = found[1]
    if scheme in SCHEMES:
        return parse_address(text)
    if os.path.lexists(text):  # a folder may have a colon in its name
        return Path(text)
    raise UsageError(f"{scheme}:// is not supported; known: {_KNOWN}, or a local path")


def parse_address(text: str) -> Address:
    """Return the address that a text is.

    Raises:
        UsageError: it is not valid. A text with credentials in it is not repeated.
    """
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            f"an address of {scheme}:// has a port or credentials in it; write {scheme}://BUCKET/KEY. Credentials and "
            "servers are set by environment variables such as AWS_PROFILE and AWS_ENDPOINT_URL"
        )
    if not bucket:
        raise UsageError(f"{text!r} names no bucket; write {scheme}://BUCKET/KEY")
    names = key.removesuffix("/").split("/") if key else []
    if any(name in ("", ".", "..") for name in names):
        raise UsageError(f"{text!r} has an empty name, . or .. in it; write {scheme}://BUCKET/KEY without them")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not valid Unicode; write the address in UTF-8") from None
    return Address(scheme, bucket, "/".join(names))


def local_path(place: str | os.PathLike[str] | Address, *, what: str) -> Path:
    """Return the path of something that must be local.

    Raises:
        UsageError: it is an address.
    """
    found = location(place)
    if isinstance(found, Address):
        raise UsageError(f"{found}: {what} must be local; give the path of a folder on this machine")
    return found
