"""Playlists for players, and the signed links in them."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import url2pathname, urlopen

import av
import httpx
import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.browser import serving
from vop.server.app import create_app
from vop.server.playlist_routes import is_direct, playlist_of
from vop.server.signed_links import LINK_SECONDS, SignedLinks

TOKEN = "correct-horse-battery"


def entries(text: str) -> list[tuple[dict[str, str], str]]:
    """Read an M3U playlist as VLC does: the options before each address, and the address."""
    found, options = [], {}
    for line in text.splitlines():
        if line.startswith("#EXTVLCOPT:"):
            name, _, value = line.removeprefix("#EXTVLCOPT:").partition("=")
            options[name] = value
        elif line and not line.startswith("#"):
            found.append((options, line))
            options = {}
    return found


def playlist_path(result: dict) -> str:
    return f"/api/libraries/demo/videos/{result['video']}/playlist.m3u"


@pytest.fixture(scope="module")
def by_name(client):
    return {result["name"]: result for result in results(search(client, "a dog"))}


@pytest.fixture(scope="module")
def address(library):
    with serving(create_app([library.path], token=TOKEN, precision="fp32")) as address:
        yield address


def first_frame(address: str) -> tuple[int, float]:
    """Return the width of a video's first frame, and the video's duration."""
    with av.open(address) as container:
        frame = next(container.decode(video=0))
        return frame.width, container.duration / av.time_base


@pytest.mark.parametrize("name", ["blue & white.mp4", "yellow.avi"])
def test_a_playlist_names_the_file(client, by_name, name):
    parameters = {"start_seconds": 1.5, "address": "file"}
    response = client.get(playlist_path(by_name[name]), params=parameters)
    assert response.headers["content-type"] == "audio/x-mpegurl"
    assert f'filename="{name.rpartition(".")[0]}.m3u"' in response.headers["content-disposition"]
    ((options, url),) = entries(response.text)
    assert options == {"start-time": "1.500"}
    path = url2pathname(urlsplit(url).path)
    assert path == by_name[name]["path"]
    assert first_frame(path) == (64, pytest.approx(4.0, abs=0.2))


def test_a_playlist_for_other_machines_names_the_server(client, by_name):
    response = client.get(playlist_path(by_name["red.mp4"]))
    assert entries(response.text) == [
        ({"start-time": "0.000"}, f"http://testserver/api/libraries/demo/videos/{by_name['red.mp4']['video']}")
    ]


def test_on_the_servers_machine_a_browser_gets_the_path(address, by_name):
    red = by_name["red.mp4"]
    get = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}).get
    ((_, url),) = entries(get(playlist_path(red)).text)
    assert url2pathname(urlsplit(url).path) == red["path"]
    ((_, url),) = entries(get(playlist_path(red), headers={"X-Forwarded-For": "192.168.0.7"}).text)
    assert urlsplit(url).path == f"/api/libraries/demo/videos/{red['video']}"


def test_a_player_opens_the_link_without_the_token(address, by_name):
    red, green = by_name["red.mp4"], by_name["green.mp4"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    response = httpx.get(f"{address}{playlist_path(red)}?address=server", headers=headers)
    ((_, url),) = entries(response.text)
    assert TOKEN not in response.text
    assert first_frame(url) == (64, pytest.approx(1.0, abs=0.1))
    other = url.replace(red["video"], green["video"])
    for refused in (other, url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("expires=", "expires=9")):
        assert httpx.get(refused).status_code == 401
    assert httpx.post(url).status_code == 401
    assert httpx.get(url.partition("?")[0]).status_code == 401
    with urlopen(url) as opened:
        assert opened.status == 200


def test_links_below_a_root_path(library, by_name):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app_of(library, token=TOKEN, root_path="/videos")) as client:
        response = client.get(f"/videos{playlist_path(by_name['red.mp4'])}", headers=headers)
        ((_, url),) = entries(response.text)
        assert urlsplit(url).path == f"/videos/api/libraries/demo/videos/{by_name['red.mp4']['video']}"
        assert client.get(url).status_code == 200
        assert client.get(url.replace("/videos/api", "/api")).status_code == 200  # a proxy has removed it


def test_links_end():
    clock = [1000.0]
    links = SignedLinks(TOKEN, now=lambda: clock[0])
    query = links.query("/api/x")
    assert links.is_right("/api/x", query)
    assert not links.is_right("/api/y", query)
    assert not SignedLinks(TOKEN + "!", now=lambda: clock[0]).is_right("/api/x", query)
    assert not links.is_right("/api/x", query | {"expires": "99999999999"})
    assert not links.is_right("/api/x", {})
    clock[0] += LINK_SECONDS - 1
    assert links.is_right("/api/x", query)
    clock[0] += 1
    assert not links.is_right("/api/x", query)


def test_invalid_playlists_are_refused(client, by_name):
    path = playlist_path(by_name["red.mp4"])
    assert "ends at 1.000" in detail(client.get(path, params={"start_seconds": 1}), 422)
    assert "address" in detail(client.get(path, params={"address": "smb"}), 422)
    assert "'begin'" in detail(client.get(path, params={"begin": 1}), 422)
    assert client.get(path.replace(by_name["red.mp4"]["video"], "0" * 32)).status_code == 404


def test_a_name_cannot_add_lines():
    text = playlist_of("file:///a", name="a\n#EXTVLCOPT:sout=x\rb", duration_seconds=3, start_seconds=1)
    assert entries(text) == [({"start-time": "1.000"}, "file:///a")]


@pytest.mark.parametrize(
    ("client", "headers", "expected"),
    [
        ("127.0.0.1", {"host": "localhost:8000"}, True),
        ("127.0.0.1", {"host": "127.0.0.1:8000"}, True),
        ("::1", {"host": "[::1]:8000"}, True),
        ("192.168.0.7", {"host": "localhost:8000"}, False),
        ("127.0.0.1", {"host": "attic:8000"}, False),
        ("127.0.0.1", {"host": "localhost:9000"}, False),  # a tunnel
        ("127.0.0.1", {"host": "localhost"}, False),
        ("127.0.0.1", {"host": "localhost:8000", "x-forwarded-for": "192.168.0.7"}, False),
        ("127.0.0.1", {}, False),
    ],
)
def test_which_requests_come_from_the_servers_machine(client, headers, expected):
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "client": (client, 5), "server": ("127.0.0.1", 8000), "headers": pairs}
    assert is_direct(scope) is expected


def test_the_access_log_has_no_signatures(library, caplog):
    with TestClient(app_of(library)) as client, caplog.at_level("INFO", logger="vop.server.access"):
        client.get("/healthz", params={"signature": "secret", "expires": 3})
    assert any("expires=3" in message for message in caplog.messages)
    assert not any("secret" in message for message in caplog.messages)
