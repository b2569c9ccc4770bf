"""`vop serve`, started and stopped as a program."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import quote

import pytest

from server.library_data import make_library, write_clips


@pytest.fixture(scope="module")
def library(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    clips = write_clips(folder / "clips")
    return make_library(folder / "demo", [tiny_folder], clips)


@contextmanager
def served(*words, temporary=None, before=None):
    """Start a server: (process, port, printed lines).

    Args:
        temporary: folder for its temporary files.
        before: called in the process before the server starts.
    """
    command = [sys.executable, "-m", "vop", "serve", *map(str, words), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"TMPDIR": str(temporary)} if temporary else {}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def start():
        for number in (signal.SIGINT, signal.SIGHUP):  # background jobs ignore them
            signal.signal(number, signal.SIG_DFL)
        if before:
            before()

    process = subprocess.Popen(command, **pipes, env=environment, preexec_fn=start)
    try:
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C"):
                break
        assert lines, process.stderr.read()
        yield process, int(re.search(r":(\d+)", lines[0])[1]), lines
    finally:
        process.kill()
        process.communicate()


def ask(port: int, path: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def get(port: int, path: str, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer, answer.read()


def end(process) -> tuple[int, float, str]:
    """Press Ctrl-C: exit status, seconds, standard error."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - began, err


def test_a_server_starts_answers_and_stops(library, tiny_folder):
    with served(library.path) as (process, port, lines):
        assert lines[0] == f"http://127.0.0.1:{port}"
        assert lines[1].startswith("  demo: 7 segments of 5 videos, zero-shot (")
        state = json.loads(get(port, "/api/state")[1])
        assert [view["id"] for view in state["views"]] == ["demo"]
        long = quote("犬 " * 10_000)  # 120,000 bytes
        answer, body = get(port, f"/api/views/demo/search?q={long}")
        assert answer.status == 200
        results = json.loads(body)["results"]
        assert len(results) == 5
        answer, body = get(port, f"/api/views/demo/search?q={'a' * 100_001}")
        assert answer.status == 422
        assert "at most 100000 characters" in json.loads(body)["detail"]
        red = next(result for result in results if result["name"] == "red.mp4")
        answer, part = get(port, red["media_url"], Range="bytes=0-99")
        assert (answer.status, len(part)) == (206, 100)
        assert "server" not in {name.lower() for name, _ in answer.getheaders()}
        assert get(port, "/", Host="evil.example")[0].status == 400

        avi = next(result for result in results if result["name"] == "yellow.avi")
        assert get(port, avi["media_url"])[0].status == 200

        # Ctrl-C while one connection is idle, and others wait for clips that are being encoded
        idle = http.client.HTTPConnection("127.0.0.1", port)
        idle.request("GET", "/api/state")
        idle.getresponse().read()
        url = avi["media_url"].partition("?")[0]
        working = [ask(port, f"{url}?start_seconds={number / 1000}&end_seconds=4") for number in range(100)]
        status, seconds, err = end(process)
        for connection in [idle, *working]:
            connection.close()
    assert status == 0
    assert err == "stopped\n"
    assert seconds < 12  # about 2 on an idle machine


def test_closing_the_terminal_stops_the_server(library, tmp_path):
    with served(library.path, temporary=tmp_path) as (process, _, _):
        folders = list(tmp_path.glob("vop-serve-*"))
        assert len(folders) == 1
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert not folders[0].exists()


def test_a_server_with_nohup_stays_and_can_log_to_standard_error(library):
    before = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    with served("--access-log", "-", library.path, before=before) as (process, port, _):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert get(port, "/metrics")[0].status == 404
        _, _, err = end(process)
    access, stopped = err.splitlines()
    assert access.split()[-6:-2] == ["127.0.0.1", "GET", "/metrics", "404"]
    assert stopped == "stopped"


def test_half_sent_requests_do_not_block_others(library):
    """More connections than file descriptors, without a request or with half of one."""
    before = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (128, 128))
    with served(library.path, before=before) as (process, port, _):
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: local"):
            idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(160)]
            for connection in idle:
                with suppress(OSError):  # the server closed it to accept another
                    connection.sendall(sent)
            for number in range(3):
                assert get(port, f"/api/views/demo/search?q=dog{number}")[0].status == 200
            for connection in idle:
                connection.close()
            assert get(port, "/")[0].status == 200
        status, _, err = end(process)
    assert (status, err) == (0, "stopped\n")


def test_health_metrics_and_access_log(library, tmp_path):
    log = tmp_path / "access.log"
    with served(library.path, "--metrics", "--access-log", log, "--log-level", "info") as (process, port, _):
        answer, body = get(port, "/healthz")
        assert (answer.status, json.loads(body)["status"]) == (200, "ok")
        answer, body = get(port, "/metrics")
        assert b'vop_http_requests_total{method="GET",route="/healthz",status="200"} 1.0' in body
        while len(log.read_text().splitlines()) < 2:  # a line is written after its response
            time.sleep(0.01)
        rotated = log.rename(tmp_path / "access.log.1")
        assert get(port, "/nowhere?token=secret")[0].status == 404
        _, _, err = end(process)
    assert "INFO vop.server: opened the library demo" in err
    assert [line.split()[-6:-1] for line in rotated.read_text().splitlines()] == [
        ["127.0.0.1", "GET", "/healthz", "200", str(len('{"status":"ok","reasons":[]}'))],
        ["127.0.0.1", "GET", "/metrics", "200", str(len(body))],
    ]
    assert [line.split()[-6:-2] for line in log.read_text().splitlines()] == [["127.0.0.1", "GET", "/nowhere", "404"]]


class TestToken:
    TOKEN = "correct-horse-battery"

    @pytest.mark.parametrize("source", ["file", "environment"])
    def test_tokens_can_stay_out_of_the_process_list(self, library, tmp_path, monkeypatch, source):
        words = []
        if source == "file":
            (tmp_path / "token").write_text(f"{self.TOKEN}\n")
            words = ["--token-file", tmp_path / "token"]
        else:
            monkeypatch.setenv("VOP_TOKEN", self.TOKEN)
        with served(library.path, *words, "--root-path", "/videos/") as (process, port, lines):
            assert lines[0] == f"http://127.0.0.1:{port}/videos/"
            assert self.TOKEN not in "".join(lines)
            assert self.TOKEN not in " ".join(process.args)
            assert get(port, "/api/state")[0].status == 401
            bearer = {"Authorization": f"Bearer {self.TOKEN}"}
            for path in ("/api/state", "/videos/api/state"):
                assert get(port, path, **bearer)[0].status == 200
            results = json.loads(get(port, "/videos/api/views/demo/search?q=dog", **bearer)[1])["results"]
            assert all(result["media_url"].startswith("/videos/api/") for result in results)
            assert get(port, results[0]["strip_url"], **bearer)[0].status == 200
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
        assert err == ""

    def test_empty_tokens_are_refused(self, vop, library, tmp_path, monkeypatch):
        (tmp_path / "token").write_text("\n")
        status, _, err = vop("serve", library.path, "--token-file", tmp_path / "token")
        assert (status, "the token is empty" in err) == (2, True)
        monkeypatch.setenv("VOP_TOKEN", " ")
        status, _, err = vop("serve", library.path)
        assert (status, "VOP_TOKEN: the token is empty" in err) == (2, True)


class TestRefusals:
    def test_other_addresses_need_a_token(self, vop, library):
        status, out, err = vop("serve", library.path, "--host", "0.0.0.0")
        assert (status, out) == (2, "")
        assert "--host 0.0.0.0" in err
        assert "--token" in err
        assert "--no-token" in err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--token", ""], "--token ''"),
            (["--token", "short"], "--token 'short'"),
            (["--port", "70000"], "--port 70000"),
            (["--max-upload-mb", "0"], "--max-upload-mb 0"),
            (["--queue", "0"], "--queue 0"),
            (["--memory", "-1"], "--memory -1"),
            (["--memory", "nan"], "--memory nan"),
            (["--root-path", "videos"], "--root-path 'videos'"),
            (["--root-path", "/api"], "--root-path /api"),
            (["--token-file", "/no/such/file"], "--token-file /no/such/file: cannot be read"),
            (["--host", ""], "--host ''"),
            (["--log-level", "loud"], "--log-level loud"),
            (["--access-log", "/no/such/folder/file"], "--access-log /no/such/folder/file: cannot be written"),
            (["--host", "no.such.host.invalid", "--no-token"], "--host no.such.host.invalid"),
            (["--host", "192.0.2.1", "--no-token"], "--host 192.0.2.1"),
            (["--port", "0", "--precision", "fp8"], "fp8"),
        ],
    )
    def test_invalid_options_are_refused(self, vop, library, words, said):
        status, out, err = vop("serve", library.path, *words)
        assert (status, out) == (2, "")
        assert said in err

    def test_taken_ports_suggest_a_free_one(self, vop, library):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            status, out, err = vop("serve", library.path, "--port", port)
        assert (status, out) == (2, "")
        free = int(re.search(rf"--port {port} is taken by another program; --port (\d+) is free", err)[1])
        assert free > port
        socket.create_server(("127.0.0.1", free)).close()

    def test_missing_libraries_are_refused(self, vop, tmp_path):
        status, _, err = vop("serve", tmp_path, "--port", "0")
        assert status == 2
        assert f"{tmp_path}: no library" in err
