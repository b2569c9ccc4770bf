"""What can be done with objects: list, describe, read, write under a condition, sign an URL.

Credentials come from where each provider's own tools take them. S3: the environment (`AWS_ACCESS_KEY_ID`, …), else a
profile (`AWS_PROFILE`, the files in `~/.aws`), else the container's or the instance's role. `AWS_ENDPOINT_URL` (or
`AWS_ENDPOINT_URL_S3`) names another server. Google: `GOOGLE_APPLICATION_CREDENTIALS`, else the instance. Azure:
`AZURE_STORAGE_ACCOUNT_NAME` with `AZURE_STORAGE_ACCOUNT_KEY` and the like, else the instance.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vop.errors import UsageError, VopError
from vop.storage.address import Address
from vop.storage.errors import ChangedObject, DeniedObject, MissingObject, ObjectError, StorageError
from vop.utils.files import expand

PART_BYTES = 2**24  # of one request; a broken connection costs no more
_SETTINGS = ("AWS_", "GOOGLE_", "AZURE_", "HOME")
_RETRIES: dict[str, Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_TIMEOUTS = {"connect_timeout": "10s", "timeout": "120s"}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>|\"reason\": ?\"(\w{1,60})\"")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthenticationFailed", "invalid_grant")
_EXPIRED = ("ExpiredToken", "RequestExpired")
_INSTANCE = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")  # where roles of instances are asked for
_ELSEWHERE = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint")
_HOW = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file with the key of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or another credential",
}


@dataclass(frozen=True)
class ObjectInfo:
    """An object as its server describes it.

    Attributes:
        size: in bytes.
        etag: changes whenever the object is written; a few servers have none.
    """

    address: Address
    size: int
    etag: str | None
    modified_at: datetime

    @property
    def version(self) -> int:
        """A number that changes whenever the object is written; it fits a signed integer of 64 bits."""
        text = self.etag or self.modified_at.isoformat()
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def list_objects(prefix: Address) -> Iterator[ObjectInfo]:
    """Yield the objects below a prefix, sorted by key as their server sorts them.

    Raises:
        StorageError: the bucket cannot be listed.
    """
    store = _store(prefix)
    with _explained(prefix):
        for batch in _client().list(store, prefix=prefix.key or None):
            for meta in batch:
                yield _info(prefix, meta)


def list_level(prefix: Address) -> tuple[list[ObjectInfo], list[Address]]:
    """Return the objects directly below a prefix, and the prefixes directly below it.

    Raises:
        StorageError: the bucket cannot be listed.
    """
    with _explained(prefix):
        found = _client().list_with_delimiter(_store(prefix), prefix.key or None)
        return [_info(prefix, meta) for meta in found["objects"]], [prefix.at(key) for key in found["common_prefixes"]]


def head(address: Address) -> ObjectInfo:
    """Describe an object.

    Raises:
        MissingObject: it does not exist, or its bucket does not.
        StorageError: its server cannot be asked.
    """
    try:
        with _explained(address):
            return _info(address, _client().head(_store(address), address.key))
    except (MissingObject, ChangedObject):
        raise
    except ObjectError:  # an answer to HEAD has no text; another one tells which credentials are wrong
        with suppress(ObjectError):
            read_part(address, 0, 1)
        raise


def exists(address: Address) -> bool:
    """Return whether an object exists.

    Raises:
        StorageError: its server cannot be asked, or does not tell.
    """
    try:
        head(address)
    except MissingObject:
        return False
    return True


def read(address: Address) -> tuple[bytes, ObjectInfo]:
    """Return the content of a small object, and the description of just this content."""
    with _explained(address):
        result = _client().get(_store(address), address.key)
        return bytes(result.bytes()), _info(address, result.meta)


def read_range(info: ObjectInfo, start: int, end: int) -> bytes:
    """Return the bytes from `start` to `end` of an object.

    Raises:
        ChangedObject: the object is not the described one any more.
    """
    if start >= end:
        return b""
    options: dict[str, Any] = {"range": (start, end)}
    if info.etag:
        options["if_match"] = info.etag
    with _explained(info.address):
        result = _client().get(_store(info.address), info.address.key, options=options)
        content = bytes(result.bytes())
        found = _info(info.address, result.meta)
    if len(content) != end - start or (found.size, found.version) != (info.size, info.version):
        raise ChangedObject(info.address, "it has changed")
    return content


def read_part(address: Address, start: int, end: int | None) -> tuple[bytes, ObjectInfo]:
    """Return the bytes from `start` to `end` of an object, or to its own end if that comes first, and its description.

    A negative `start` counts from the object's end.
    """
    part: Any = {"suffix": -start} if start < 0 else {"offset": start} if end is None else (start, end)
    with _explained(address):
        result = _client().get(_store(address), address.key, options={"range": part})
        return bytes(result.bytes()), _info(address, result.meta)


def download(info: ObjectInfo, path: Path) -> None:
    """Write an object to a file, by several requests if it is large.

    Raises:
        ChangedObject: the object is not the described one any more.
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        for start in range(0, info.size, PART_BYTES):
            file.write(read_range(info, start, min(start + PART_BYTES, info.size)))


def write(address: Address, content: bytes, *, replacing: ObjectInfo | None) -> ObjectInfo:
    """Write an object if nobody else has written it meanwhile, and return its description.

    Args:
        replacing: the description of the content to replace; None creates the object.

    Raises:
        ChangedObject: the object exists, or is not the described one any more.
    """
    mode: Any = "create" if replacing is None else {"e_tag": replacing.etag}
    with _explained(address):
        result = _client().put(_store(address), address.key, content, mode=mode)
    return ObjectInfo(address, len(content), result["e_tag"], datetime.now(UTC))


def delete(address: Address) -> None:
    """Delete an object, if it exists."""
    with _explained(address), suppress(FileNotFoundError):
        _client().delete(_store(address), address.key)


def delete_below(prefix: Address) -> None:
    """Delete all objects below a prefix, by few requests."""
    delete_all([info.address for info in list_objects(prefix)])


def delete_all(addresses: Sequence[Address]) -> None:
    """Delete objects of one bucket, by few requests."""
    if addresses:
        with _explained(addresses[0]), suppress(FileNotFoundError):
            _client().delete(_store(addresses[0]), [address.key for address in addresses])


def presign(address: Address, *, seconds: float) -> str:
    """Return an URL that reads an object without credentials for some time. It is a secret: do not log it."""
    with _explained(address):
        url: str = _client().sign(_store(address), "GET", address.key, timedelta(seconds=seconds))
        return url


def _info(near: Address, meta: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(near.at(meta["path"]), meta["size"], meta["e_tag"], meta["last_modified"])


# -- clients


def _client() -> Any:
    """Return the module `obstore`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise UsageError(
            "addresses of object storage need the extra `objects`, which is not installed: pip install 'vop[objects]'"
        ) from None
    return obstore


_stores: dict[tuple[str, str, int], Any] = {}
_opening = threading.Lock()


def _store(address: Address) -> Any:
    """Return the client of a bucket. A change of the environment makes a new one."""
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith(_SETTINGS))
    key = (address.scheme, address.bucket, hash(tuple(settings)))
    with _opening:
        if key not in _stores:
            _stores[key] = _open(address)
        return _stores[key]


def _open(address: Address) -> Any:
    stores = _client().store
    opened: Mapping[str, Callable[..., Any]] = {
        "s3": partial(_open_s3, stores),
        "gs": stores.GCSStore,
        "az": stores.AzureStore,
    }
    options = {"client_options": dict(_TIMEOUTS), "retry_config": _RETRIES}
    try:
        return opened[address.scheme](address.bucket, **options)
    except VopError:
        raise
    except Exception:  # its message may repeat a setting
        raise StorageError(
            f"{address.scheme}://{address.bucket} cannot be opened: its settings are incomplete or wrong; "
            f"{_HOW[address.scheme]}, and check the other variables of its provider"
        ) from None


def _open_s3(stores: Any, bucket: str, *, client_options: dict[str, Any], retry_config: Any) -> Any:
    if endpoint().startswith("http://"):  # chosen by the user, such as a server on this machine
        client_options |= {"allow_http": True}
    provider = _profile() if _has_profile() else None
    settings = {} if provider is None else {"credential_provider": provider}
    return stores.S3Store(bucket, client_options=client_options, retry_config=retry_config, **settings)


def endpoint() -> str:
    """Return the URL of the server for S3 that the user has chosen; empty for Amazon's.

    Raises:
        UsageError: it is not the URL of a server.
    """
    name = next((name for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)), None)
    if name is None:
        return ""
    url = os.environ[name]
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # wrong brackets or a wrong port
        valid = False
    if not valid:
        raise UsageError(f"{name} is not the URL of a server; give one such as https://storage.example.com:9000")
    return url


def _has_profile() -> bool:
    """Return whether the credentials of S3 are to be read from the files of a profile."""
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return False
    files = {
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    }
    return bool(os.environ.get("AWS_PROFILE")) or any(expand(file).is_file() for file in files)


def _profile() -> Any:
    """Return a provider of the credentials of a profile, which may be those of a role or of single sign-on."""
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider(boto3.session.Session())
    except ValueError:  # the files have no credentials
        return None
    except Exception as error:
        name = os.environ.get("AWS_PROFILE", "default")
        raise StorageError(
            f"AWS_PROFILE is {name!r}, which cannot be used ({type(error).__name__}); check ~/.aws, or {_HOW['s3']}"
        ) from None


# -- errors


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Turn an error of the client into one of ours, which tells the next step and repeats no secret."""
    try:
        yield
    except VopError:
        raise
    except Exception as error:
        if not _is_of_client(error):
            raise
        raise _explain(address, error) from None  # a traceback must not show the server's answer


def _is_of_client(error: Exception) -> bool:
    exceptions = _client().exceptions
    return isinstance(error, exceptions.BaseError | FileNotFoundError | ValueError | OSError)


def _explain(address: Address, error: Exception) -> StorageError:
    exceptions, text = _client().exceptions, str(error)
    bucket = f"{address.scheme}://{address.bucket}"
    status = _STATUS.search(text)
    codes = [code for pair in _CODE.findall(text) for code in pair if code]
    answer = ", ".join(filter(None, [f"status {status[1]}" if status else "", *codes[:1]])) or type(error).__name__

    def has(*words: str) -> bool:
        return any(word in text for word in words)

    if has(*_NO_BUCKET):
        return StorageError(f"{bucket}: this bucket does not exist; check its name{_on_server(address)}")
    if has(*_INSTANCE):
        return StorageError(f"{bucket}: no credentials were found; {_HOW[address.scheme]}")
    if has(*_EXPIRED):
        return StorageError(f"{bucket}: the credentials have expired ({answer}); sign in again")
    if has(*_WRONG_KEYS) or isinstance(error, exceptions.UnauthenticatedError):
        return StorageError(f"{bucket}: the credentials are wrong ({answer}); {_HOW[address.scheme]}")
    if has(*_ELSEWHERE) or (status and status[1] in ("301", "307")):
        return StorageError(f"{bucket}: the bucket is in another region ({answer}); set AWS_REGION to its region")
    if isinstance(error, FileNotFoundError):
        return MissingObject(address, "the object does not exist")
    if isinstance(error, exceptions.PreconditionError | exceptions.AlreadyExistsError) or has("status code: 416"):
        return ChangedObject(address, "it has changed")
    if isinstance(error, exceptions.PermissionDeniedError) and address.key:
        return DeniedObject(address, f"access is denied ({answer}); check the credentials and what they may read")
    if isinstance(error, exceptions.PermissionDeniedError) or has("status code: 403"):
        return StorageError(f"{bucket}: access is denied ({answer}); check the credentials and what they may list")
    if has("InvalidPath", "EmptySegment", "Could not parse path"):
        return StorageError(
            f"{address}: an object there has an empty name, . or .., or a control character in its key, which cannot "
            "be read; rename it, or give the prefixes beside it"
        )
    if has("error sending request", "HTTP error", "timed out"):
        return StorageError(
            f"{bucket}: the server cannot be reached{_on_server(address)}; check the network, and for S3 "
            "AWS_ENDPOINT_URL and AWS_REGION"
        )
    return ObjectError(address, f"the server refused ({answer}); try again, and check the address and the permissions")


def _on_server(address: Address) -> str:
    """Return the name of the server that the user has chosen, without anything secret in its URL."""
    url = urlsplit(endpoint())
    return f" at {url.hostname}{f':{url.port}' if url.port else ''}" if address.scheme == "s3" and url.hostname else ""
