"""Operations on the objects of a server, and how they fail."""

from __future__ import annotations

import logging
import sys
import traceback
import urllib.request

import pytest

from object_server import KEY_ID, SECRET
from vop.errors import UsageError
from vop.storage import objects
from vop.storage.address import Address
from vop.storage.errors import ChangedObject, DeniedObject, MissingObject, StorageError

LAKE = Address("s3", "films", "2024/lake.mp4")


@pytest.fixture
def films(object_server):
    object_server.make_bucket()
    object_server.put(str(LAKE), b"water and light")
    return object_server


@pytest.fixture
def only_known_keys(films, monkeypatch):
    """The server knows nobody, so that all credentials are wrong."""
    import moto.settings

    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)


def test_list(films):
    films.put("s3://films/2024/sea/ü ?#%20.mp4", b"12345")
    films.put("s3://films/2024b.mp4", b"")
    found = list(objects.list_objects(LAKE.parent))
    assert [str(info.address) for info in found] == [str(LAKE), "s3://films/2024/sea/ü ?#%20.mp4"]
    assert [info.size for info in found] == [15, 5]
    assert found[0] == objects.head(LAKE)
    assert objects.read(found[1].address)[0] == b"12345"
    assert len(list(objects.list_objects(Address("s3", "films")))) == 3
    assert list(objects.list_objects(Address("s3", "films", "202"))) == []


def test_ranges_are_of_one_version(films):
    info = objects.head(LAKE)
    assert objects.read_range(info, 6, 9) == b"and"
    assert objects.read_range(info, 3, 3) == b""
    films.put(str(LAKE), b"water and night")
    with pytest.raises(ChangedObject, match=str(LAKE)):
        objects.read_range(info, 6, 9)
    assert objects.head(LAKE).version != info.version


def test_download_in_parts(films, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PART_BYTES", 4)
    objects.download(objects.head(LAKE), tmp_path / "lake")
    assert (tmp_path / "lake").read_bytes() == b"water and light"


def test_one_of_two_writers_fails(films):
    lock = LAKE.at("lock")
    first = objects.write(lock, b"first", replacing=None)
    with pytest.raises(ChangedObject):
        objects.write(lock, b"second", replacing=None)
    second = objects.write(lock, b"second", replacing=first)
    with pytest.raises(ChangedObject):
        objects.write(lock, b"third", replacing=first)
    content, found = objects.read(lock)
    assert (content, found.version) == (b"second", second.version)
    objects.delete(lock)
    objects.delete(lock)
    assert not objects.exists(lock)


def test_presigned_urls_need_no_credentials(films):
    url = objects.presign(LAKE, seconds=60)
    assert SECRET not in url
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"water and light"


def test_missing_objects_and_buckets(films):
    missing = LAKE.at("2024/sea.mp4")
    for operation in (objects.head, objects.read):
        with pytest.raises(MissingObject, match="s3://films/2024/sea.mp4"):
            operation(missing)
    assert objects.exists(LAKE)
    assert not objects.exists(missing)
    nowhere = Address("s3", "no-such-bucket", "lake.mp4")
    for fails in (lambda: list(objects.list_objects(nowhere)), lambda: objects.read(nowhere)):
        with pytest.raises(StorageError, match="s3://no-such-bucket: this bucket does not exist.*127.0.0.1"):
            fails()


def test_a_key_that_cannot_be_listed_is_explained(films):
    films.put_raw("films/2024//lake.mp4")
    with pytest.raises(StorageError, match="empty name"):
        list(objects.list_objects(LAKE.parent))


def test_wrong_credentials(only_known_keys, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StorageError, match="s3://films: the credentials are wrong .*AWS_PROFILE") as failed:
        list(objects.list_objects(LAKE))
    with pytest.raises(StorageError, match="s3://films: the credentials are wrong"):
        objects.head(LAKE)  # its answer has no reason, so the server is asked once more
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("vop")]
    shown = "".join([*traceback.format_exception(failed.value), *logged])
    assert KEY_ID not in shown
    assert SECRET not in shown
    assert "<Error>" not in shown


def test_without_credentials(films, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9/169.254.169.254")
    monkeypatch.setitem(objects._RETRIES, "max_retries", 0)
    with pytest.raises(StorageError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        objects.head(LAKE)


def test_a_profile_has_credentials(films, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "profiles").write_text(f"[work]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "profiles"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert objects.head(LAKE).size == 15
    assert KEY_ID in objects.presign(LAKE, seconds=60)
    monkeypatch.setenv("AWS_PROFILE", "play")
    with pytest.raises(StorageError, match="AWS_PROFILE is 'play'"):
        objects.head(LAKE)


def test_an_unreachable_server_is_named(films, monkeypatch):
    monkeypatch.setitem(objects._RETRIES, "max_retries", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:password@127.0.0.1:9")
    with pytest.raises(StorageError, match="cannot be reached at 127.0.0.1:9.*AWS_ENDPOINT_URL") as failed:
        objects.head(LAKE)
    assert "password" not in str(failed.value)


def test_one_refused_object_is_not_all(films, monkeypatch):
    def refused(address, *_):
        raise DeniedObject(address, "access is denied")

    monkeypatch.setattr(objects, "_info", refused)
    monkeypatch.setattr(objects, "read_part", refused)
    with pytest.raises(DeniedObject):
        objects.head(LAKE)


@pytest.mark.parametrize("url", ["localhost:9000", "http://", "http://[::1", "http://films:port", "ftp://films"])
def test_a_wrong_url_of_a_server_is_named(films, monkeypatch, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL is not the URL of a server"):
        objects.head(LAKE)


@pytest.mark.parametrize(("scheme", "named"), [("az", "AZURE_STORAGE_ACCOUNT_NAME"), ("gs", "GOOGLE_APPLICATION_CRED")])
def test_other_providers_name_their_settings(object_server, monkeypatch, tmp_path, scheme, named):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(StorageError, match=named):
        objects.head(Address(scheme, "films", "lake.mp4"))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"pip install 'vop\[objects\]'"):
        objects.head(LAKE)
