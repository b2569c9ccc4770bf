"""Reads through the cache give what the object storage has, and ask it for as little as possible."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from vop.storage import loopback
from vop.storage.address import Address
from vop.storage.block_cache import BlockCache
from vop.storage.loopback import BLOCK_BYTES, Loopback

ROOT = Address("s3", "films", "library")
ROWS, VERSION = ROOT.at("library/data/rows a+b%.lance"), ROOT.at("library/versions/1")
CONTENT = bytes(number * 7 % 251 for number in range(3 * BLOCK_BYTES + 100))


@pytest.fixture
def films(object_server):
    object_server.make_bucket()
    object_server.put(str(ROWS), CONTENT)
    object_server.put(str(VERSION), b"one")
    return object_server


@pytest.fixture
def requests(monkeypatch) -> list[tuple]:
    """The requests for parts of objects."""
    made, read_part = [], loopback.read_part

    def counted(address, start, end):
        made.append((address.name, start, end))
        return read_part(address, start, end)

    monkeypatch.setattr(loopback, "read_part", counted)
    return made


@pytest.fixture
def store(films, tmp_path):
    """A client of the server, as LanceDB's."""
    from obstore.store import S3Store

    cache = BlockCache(tmp_path / "cache", max_bytes=10**7)
    server = Loopback(cache, is_immutable=lambda key: "/data/" in key)
    place, options = server.database(ROOT)
    assert server.database(ROOT.at("other"))[0] == place.replace("library", "other")
    bucket = place.removeprefix("s3://").partition("/")[0]
    options = {name.removeprefix("aws_"): value for name, value in options.items() if name.startswith("aws_")}
    options = {name: value for name, value in options.items() if name not in ("endpoint_url_s3", "s3_express")}
    return S3Store(bucket, client_options={"allow_http": True}, **options)


def test_ranges_are_read_once(store, films, requests):
    import obstore

    def read(start: int, end: int) -> bytes:
        return bytes(obstore.get_range(store, ROWS.key, start=start, end=end))

    ranges = [(5, 9), (BLOCK_BYTES - 1, BLOCK_BYTES + 1), (10, len(CONTENT)), (len(CONTENT) - 3, len(CONTENT))]
    for start, end in ranges:
        assert read(start, end) == CONTENT[start:end]
    name = ROWS.name
    assert requests == [
        (name, 0, BLOCK_BYTES),
        (name, BLOCK_BYTES, 2 * BLOCK_BYTES),
        (name, 2 * BLOCK_BYTES, 4 * BLOCK_BYTES),
    ]
    films.delete(str(ROWS))
    for start, end in ranges:
        assert read(start, end) == CONTENT[start:end]
    assert bytes(obstore.get(store, ROWS.key).bytes()) == CONTENT
    assert bytes(obstore.get(store, ROWS.key, options={"range": {"suffix": 50}}).bytes()) == CONTENT[-50:]
    assert bytes(obstore.get(store, ROWS.key, options={"range": {"offset": 50}}).bytes()) == CONTENT[50:]
    assert obstore.head(store, ROWS.key)["size"] == len(CONTENT)
    assert len(requests) == 3


def test_what_may_change_is_asked_for_each_time(store, films):
    import obstore

    for content in (b"one", b"and two"):
        films.put(str(VERSION), content)
        assert bytes(obstore.get(store, VERSION.key).bytes()) == content
        assert obstore.head(store, VERSION.key)["size"] == len(content)
    films.put("s3://films/library/versions/2", b"two")

    def listed(prefix: str) -> list[str]:
        return [meta["path"] for batch in obstore.list(store, prefix=prefix) for meta in batch]

    assert listed("library/versions/") == ["library/versions/1", "library/versions/2"]
    assert listed("library") == [ROWS.key, "library/versions/1", "library/versions/2"]
    level = obstore.list_with_delimiter(store, "library")
    assert (level["common_prefixes"], list(level["objects"])) == (["library/data", "library/versions"], [])
    with pytest.raises(FileNotFoundError):
        obstore.get(store, "library/data/none")


def test_it_only_reads_and_only_for_those_who_know_its_name(store, films, tmp_path):
    import obstore
    from obstore.exceptions import BaseError

    with pytest.raises((BaseError, PermissionError)):
        obstore.put(store, "library/versions/3", b"3")
    server = store.config["endpoint"]
    for path in ("films/library/versions/1", "library/versions/1", "?list-type=2", "films?list-type=2"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{server}/{path}")
