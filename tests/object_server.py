"""An S3-compatible server on this machine, for tests: moto's, over HTTP."""

from __future__ import annotations

import logging
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

KEY_ID, SECRET = "AKIATESTINGTESTING00", "a-secret-that-nobody-may-see"
SETTINGS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}


class ObjectServer:
    """A running server. Its methods change buckets as another program would.

    Attributes:
        url: for `AWS_ENDPOINT_URL`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def make_bucket(self, bucket: str = "films") -> str:
        self._send("PUT", bucket)
        return f"s3://{bucket}"

    def put(self, address: str, content: bytes | Path) -> None:
        import obstore

        store, key = self._store(address)
        obstore.put(store, key, content.read_bytes() if isinstance(content, Path) else content)

    def delete(self, address: str) -> None:
        import obstore

        obstore.delete(*self._store(address))

    def _store(self, address: str) -> tuple[Any, str]:
        from obstore.store import S3Store

        bucket, _, key = address.removeprefix("s3://").partition("/")
        keys = {"access_key_id": KEY_ID, "secret_access_key": SECRET, "region": "us-east-1"}
        return S3Store(bucket, endpoint=self.url, client_options={"allow_http": True}, **keys), key

    def empty(self) -> None:
        self._send("POST", "moto-api/reset")

    def put_raw(self, path: str) -> None:
        """Make an empty object of any key, also of one that `put` refuses."""
        self._send("PUT", path)

    def _send(self, method: str, path: str) -> None:
        request = urllib.request.Request(f"{self.url}/{quote(path)}", method=method)
        with urllib.request.urlopen(request) as response:
            response.read()


@contextmanager
def running() -> Iterator[ObjectServer]:
    pytest.importorskip("obstore", reason="the extra `objects` is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto's server is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield ObjectServer(f"http://{host}:{port}")
    finally:
        server.stop()


def without_settings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Hide the credentials of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
