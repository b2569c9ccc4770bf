"""The same calls for files in a folder and for objects below a prefix."""

from __future__ import annotations

import pytest

from vop.storage import small_files
from vop.storage.address import Address, Location
from vop.storage.errors import ChangedObject
from vop.storage.small_files import child


@pytest.fixture(params=["folder", "prefix"])
def place(request, tmp_path) -> Location:
    if request.param == "folder":
        return tmp_path / "library"
    request.getfixturevalue("object_server").make_bucket()
    return Address("s3", "films", "library")


def write(folder: Location, *names: str) -> None:
    for name in names:
        found = folder
        for part in name.split("/"):
            found = child(found, part)
        small_files.write_bytes(found, name.encode())


def test_what_is_in_a_folder(place):
    plans = child(place, "shards")
    assert (small_files.names_in(plans), small_files.folders_with(plans, "plan.json")) == ([], [])
    write(plans, "b/plan.json", "a/1.json", "a/plan.json", "c/2.json", "d/e/plan.json", "plan.json")
    assert {*small_files.folders_with(plans, "plan.json")} == {child(plans, "a"), child(plans, "b")}
    assert small_files.folders_in(plans) == [child(plans, name) for name in "abcd"]
    assert small_files.names_in(child(plans, "a")) == ["1.json", "plan.json"]
    small_files.remove_all(child(plans, "a"))
    small_files.remove_all(child(plans, "none"))
    assert small_files.folders_in(plans) == [child(plans, name) for name in "bcd"]
    assert small_files.read_bytes(child(child(plans, "b"), "plan.json")) == b"b/plan.json"


def test_a_new_file_is_written_once(place):
    file = child(place, "1.json")
    small_files.write_new(file, b"one")
    small_files.write_new(file, b"one")  # as if the answer to the first request was lost
    if isinstance(place, Address):
        with pytest.raises(ChangedObject, match="library/1.json"):
            small_files.write_new(file, b"two")
        assert small_files.read_bytes(file) == b"one"
