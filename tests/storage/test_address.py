"""Locations: paths and addresses."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from vop.errors import UsageError
from vop.storage.address import Address, local_path, location


@pytest.mark.parametrize(
    ("text", "address", "name"),
    [
        ("s3://films", Address("s3", "films"), "films"),
        ("s3://films/", Address("s3", "films"), "films"),
        ("gs://films/2024/lake.mp4", Address("gs", "films", "2024/lake.mp4"), "lake.mp4"),
        ("az://films/2024/", Address("az", "films", "2024"), "2024"),
        ("s3://films/ü ?#%20.mp4", Address("s3", "films", "ü ?#%20.mp4"), "ü ?#%20.mp4"),
    ],
)
def test_addresses(text, address, name):
    assert location(text) == address
    assert address.name == name
    assert location(str(address)) == address
    assert pickle.loads(pickle.dumps(address)) == address


def test_parents_and_roots():
    lake = Address("s3", "films", "2024/lake.mp4")
    assert str(lake.parent) == "s3://films/2024"
    assert lake.parent.parent == Address("s3", "films")
    assert lake.is_below(lake)
    assert lake.is_below(lake.parent)
    assert lake.is_below(Address("s3", "films"))
    assert not lake.is_below(Address("s3", "films", "202"))
    assert not lake.is_below(Address("gs", "films", "2024"))


@pytest.mark.parametrize("text", ["holidays", "/data/a:b.mp4", "", "./s3", "C:/films"])
def test_everything_else_is_a_path(text):
    assert location(text) == Path(text)


def test_a_folder_with_a_colon_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:" / "films").mkdir(parents=True)
    assert location("http://films") == Path("http:/films")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("s3://", "no bucket"),
        ("s3:///lake.mp4", "no bucket"),
        ("s3://films/a//b.mp4", "a//b.mp4"),
        ("s3://films/../b.mp4", r"\.\."),
        ("s3://films/\udcff.mp4", "not valid Unicode"),
        ("https://films/lake.mp4", "https:// is not supported; known: s3://"),
        ("gcs://films", "gcs://"),
    ],
)
def test_invalid_addresses_are_refused(text, named):
    with pytest.raises(UsageError, match=named):
        location(text)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(UsageError, match="AWS_PROFILE") as refused:
        location("s3://KEYID:SECRET@films/lake.mp4")
    assert "SECRET" not in str(refused.value)
    assert "KEYID" not in str(refused.value)


def test_a_path_does_not_hold_an_address():
    with pytest.raises(UsageError, match="'s3://films/lake.mp4'"):
        location(Path("s3://films/lake.mp4"))


def test_a_library_is_local():
    with pytest.raises(UsageError, match="s3://films/library: a library must be local"):
        local_path("s3://films/library", what="a library")
