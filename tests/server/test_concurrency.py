"""Several requests at once: they share forward passes, are limited in number, and end with their clients."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import httpx
import pytest

from server.library_data import make_library, write_clips
from vop.search.store import Store
from vop.server.access import AllowedHosts
from vop.server.app import create_app
from vop.server.encoding import Batcher
from vop.server.errors import Unavailable
from vop.server.rate_limiter import ConcurrencyLimiter


class Slow:
    """Computes the lengths of texts after `open` is set, and records its calls."""

    def __init__(self, **settings) -> None:
        self.calls: list[list[str]] = []
        self.open = threading.Event()
        self.thread = ThreadPoolExecutor(1)
        self.batcher: Batcher[int] = Batcher(self.lengths, self.thread, **settings)

    def lengths(self, texts: list[str]) -> list[int]:
        self.calls.append(texts)
        assert self.open.wait(10)
        if "bad" in texts:
            raise ValueError("bad is bad")
        return [len(text) for text in texts]

    async def ask(self, *texts: str) -> list[int]:
        return await self.batcher(texts)

    async def started(self, calls: int) -> None:
        while len(self.calls) < calls:
            await asyncio.sleep(0.001)


class TestBatcher:
    def test_waiting_requests_share_a_call(self):
        async def scenario():
            slow = Slow()
            first = asyncio.create_task(slow.ask("a"))
            await slow.started(1)
            others = [asyncio.create_task(slow.ask("x" * number, "y")) for number in range(2, 22)]
            await asyncio.sleep(0)
            slow.open.set()
            assert await first == [1]
            assert await asyncio.gather(*others) == [[number, 1] for number in range(2, 22)]
            return slow.calls

        calls = asyncio.run(scenario())
        assert [len(texts) for texts in calls] == [1, 21]  # y once

    def test_simultaneous_requests_share_a_call(self):
        async def scenario():
            slow = Slow()
            slow.open.set()
            await asyncio.gather(*(slow.ask(str(number)) for number in range(50)))
            return slow.calls

        assert len(asyncio.run(scenario())) == 1

    def test_calls_have_a_maximum_size(self):
        async def scenario():
            slow = Slow(batch_size=8)
            slow.open.set()
            assert await slow.ask(*(str(number) for number in range(20))) == [1] * 10 + [2] * 10
            return slow.calls

        assert [len(texts) for texts in asyncio.run(scenario())] == [8, 8, 4]

    def test_recent_results_are_cached(self):
        async def scenario():
            slow = Slow(cache_size=2)
            slow.open.set()
            for text in ("a", "b", "a", "c", "a", "b"):
                assert await slow.ask(text) == [1]
            long = "x" * 5000
            for _ in range(2):
                assert await slow.ask(long) == [5000]
            return slow.calls

        assert asyncio.run(scenario()) == [["a"], ["b"], ["c"], ["b"], ["x" * 5000], ["x" * 5000]]

    def test_cancelled_requests_are_not_computed(self):
        async def scenario():
            slow = Slow()
            first = asyncio.create_task(slow.ask("a"))
            await slow.started(1)
            cancelled, waiting = asyncio.create_task(slow.ask("b")), asyncio.create_task(slow.ask("c"))
            await asyncio.sleep(0)
            cancelled.cancel()
            first.cancel()
            await asyncio.sleep(0)
            slow.open.set()
            assert await waiting == [1]
            assert cancelled.cancelled()
            assert first.cancelled()
            return slow.calls

        assert asyncio.run(scenario()) == [["a"], ["c"]]

    def test_an_error_fails_only_its_requests(self):
        async def scenario():
            slow = Slow()
            slow.open.set()
            with pytest.raises(ValueError, match="bad is bad"):
                await slow.ask("bad", "also")
            assert await slow.ask("good") == [4]

        asyncio.run(scenario())


class TestConcurrencyLimiter:
    def test_requests_over_the_limit_are_refused(self):
        limiter = ConcurrencyLimiter(2)
        with limiter.slot(), limiter.slot():
            with pytest.raises(Unavailable, match="busy with 2 requests"), limiter.slot():
                raise AssertionError("a third request was accepted")
            assert limiter.active == 2
        with limiter.slot():
            assert limiter.active == 1

    def test_an_error_frees_the_slot(self):
        limiter = ConcurrencyLimiter(1)
        with pytest.raises(KeyError), limiter.slot():
            raise KeyError("x")
        assert limiter.active == 0


@pytest.fixture(scope="module")
def library(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("batching")
    clips = {name: path for name, path in write_clips(folder / "clips").items() if name.endswith(".mp4")}
    return make_library(folder / "demo", [tiny_folder], clips)


@asynccontextmanager
async def serving(library, **settings):
    """Yield the application, and an asynchronous client for it."""
    app = create_app([library.path], hosts=AllowedHosts("testserver"), precision="fp32", **settings)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        try:
            yield app, client
        finally:
            app.state.services.close()


def model_of(app):
    return app.state.services.libraries.by_name["demo"].open.encoders[0].model


class TestServer:
    def test_requests_share_forward_passes(self, library, monkeypatch):
        passes = []

        async def scenario():
            async with serving(library) as (app, client):
                model = model_of(app)
                embed = model.embed_tokens

                def counted(ids):
                    passes.append(len(ids))
                    return embed(ids)

                monkeypatch.setattr(model, "embed_tokens", counted)
                requests = [
                    client.get("/api/views/demo/search", params={"q": f"a dog {number}"}) for number in range(40)
                ]
                responses = await asyncio.gather(*requests)
                again = await client.get("/api/views/demo/search", params={"q": "a dog 7"})
                return responses, again

        responses, again = asyncio.run(scenario())
        assert {response.status_code for response in responses} == {200}
        assert again.json()["results"] == responses[7].json()["results"]
        assert sum(passes) == 40
        assert len(passes) <= 4

    def test_requests_over_the_limit_get_503(self, library, monkeypatch):
        gate = threading.Event()
        search = Store.search

        def slow(self, *args, **kwargs):
            assert gate.wait(10)
            return search(self, *args, **kwargs)

        monkeypatch.setattr(Store, "search", slow)

        async def scenario():
            async with serving(library, max_requests=5) as (app, client):

                def ask(number):
                    return client.get("/api/views/demo/search", params={"q": f"a dog {number}"})

                inside = [asyncio.create_task(ask(number)) for number in range(5)]
                while app.state.services.requests.active < 5:
                    await asyncio.sleep(0.001)
                refused = await asyncio.gather(*(ask(number) for number in range(20)), client.get("/api/state"))
                gate.set()
                return refused, await asyncio.gather(*inside), await ask(0)

        refused, inside, after = asyncio.run(scenario())
        assert {response.status_code for response in refused} == {503}
        assert refused[0].headers["retry-after"] == "1"
        assert "busy with 5 requests" in refused[0].json()["detail"]
        assert {response.status_code for response in [*inside, after]} == {200}

    def test_a_disconnected_client_frees_its_slot(self, library, monkeypatch):
        gate = threading.Event()
        searched = []

        def slow(self, *args, **kwargs):
            searched.append(args)
            assert gate.wait(10)
            return []

        monkeypatch.setattr(Store, "search", slow)
        monkeypatch.setattr("vop.server.services.usable_cores", lambda: 2)
        monkeypatch.setattr("vop.server.services.SEARCH_THREADS", 2)

        async def scenario():
            async with serving(library, max_requests=4) as (app, _):
                goes = asyncio.Event()

                async def receive():
                    await goes.wait()
                    return {"type": "http.disconnect"}

                async def send(message):
                    pass

                requests = [asyncio.create_task(app(scope(f"q=dog{number}"), receive, send)) for number in range(4)]
                async with asyncio.timeout(10):  # two search, the others wait for a thread
                    while len(searched) < 2 or app.state.services.requests.active < 4:
                        await asyncio.sleep(0.001)
                goes.set()
                await asyncio.gather(*requests)
                assert app.state.services.requests.active == 0
                gate.set()
                await asyncio.sleep(0.05)

        asyncio.run(scenario())
        assert len(searched) == 2  # the other two requests were still waiting


def scope(query: str) -> dict:
    return {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"},
        **{"path": "/api/views/demo/search", "raw_path": b"/api/views/demo/search", "root_path": ""},
        "query_string": query.encode(),
        "headers": [(b"host", b"testserver")],
    }
