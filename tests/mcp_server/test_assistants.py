"""Assistants search libraries by the Model Context Protocol, in a real process."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from search.libraries import a_file, make_library
from search.owners_videos import write_video
from search.words_media import srt
from vop.cli import build_parser, main
from vop.errors import UsageError, VopError
from vop.mcp_server.server import create_server
from vop.mcp_server.tools import Tools
from vop.search.filters import FILTERS
from vop.search.library import Library
from vop.search.sync import index
from vop.video.probe import probe

mcp = pytest.importorskip("mcp")
ROOT = Path(__file__).parents[2]
SOURCES, DOCS = str(ROOT / "src"), ROOT / "docs"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """A library of two videos of 4 s."""
    place = tmp_path_factory.mktemp("assistants")
    for seed, name in enumerate("ab"):
        write_video(place / "videos" / f"{name}.mp4", seed=seed)
    (place / "about.csv").write_text("file,author\na.mp4,ann\nb.mp4,bob\n")
    index(place / "library", [place / "videos"], model="mini", metadata=place / "about.csv", workers=1)
    return place / "library"


def text_of(result) -> str:
    return " ".join(block.text for block in result.content if block.type == "text")


def test_a_process_serves_a_library(library, tmp_path):
    clips = tmp_path / "clips"
    before = {path: path.stat().st_mtime_ns for path in library.rglob("*") if path.is_file()}

    async def talk() -> None:
        words = ["-m", "vop", "--debug", "mcp", str(library), "--allow-export", str(clips)]
        process = mcp.StdioServerParameters(
            command=sys.executable,
            args=words,
            env={"PYTHONPATH": SOURCES, **{name: value for name, value in os.environ.items() if "THREADS" in name}},
        )
        async with mcp.Client(process, read_timeout_seconds=200) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert {name: tool.annotations.read_only_hint for name, tool in tools.items()} == {
                **{"search_videos": True, "describe_libraries": True, "look_at_moment": True, "export_clip": False}
            }
            described = (await client.call_tool("describe_libraries", {})).structured_content["libraries"]
            assert [(one["name"], one["videos"], one["columns"]) for one in described] == [("library", 2, ["author"])]
            assert described[0]["folders"] == [{"path": str(library.parent / "videos"), "videos": 2, "available": True}]

            found = await client.call_tool("search_videos", {"query": "a red heart", "k": 5})
            moments = found.structured_content["moments"]
            assert {Path(moment["path"]).name for moment in moments} == {"a.mp4", "b.mp4"}
            assert moments[0]["score"] >= moments[1]["score"]
            assert json.loads(text_of(found))["moments"] == moments
            filtered = await client.call_tool("search_videos", {"query": "a red heart", "where": ["author=bob"]})
            (bob,) = filtered.structured_content["moments"]
            assert (Path(bob["path"]).name, bob["columns"]) == ("b.mp4", {"author": "bob"})

            seen = await client.call_tool("look_at_moment", {"segment": bob["segment"]})
            (picture,) = [block for block in seen.content if block.type == "image"]
            assert picture.mime_type == "image/jpeg"
            strip = Image.open(io.BytesIO(base64.b64decode(picture.data)))
            assert strip.width > strip.height
            assert bob["path"] in text_of(seen)

            wanted = {"segment": bob["segment"], "start_seconds": 1, "end_seconds": 3, "exact": True}
            exported = (await client.call_tool("export_clip", wanted)).structured_content
            assert [exported[f"{name}_seconds"] for name in ("start", "end", "lead")] == [1, 3, 0]
            assert Path(exported["file"]).parent == clips
            assert probe(exported["file"]).duration_seconds == pytest.approx(2, abs=0.3)

            for name, arguments, part in [
                ("search_videos", {"query": "a dog", "library": "holidays"}, "holidays"),
                ("search_videos", {"query": " "}, "empty"),
                ("search_videos", {"query": "a dog", "where": ["colour=red"]}, "colour"),
                ("search_videos", {"query": "a dog", "k": 1000}, "50"),
                ("search_videos", {"query": "a dog", "tags": ["beach"]}, "tags"),
                ("describe_libraries", {"name": "library"}, "name"),
                ("look_at_moment", {"segment": "../../etc/passwd"}, "not the id"),
                ("export_clip", {"segment": bob["segment"], "start_seconds": 9}, "from 0 to 4 s"),
            ]:
                failed = await client.call_tool(name, arguments)
                assert failed.is_error, name
                assert part in text_of(failed)

    asyncio.run(talk())
    assert {path: path.stat().st_mtime_ns for path in library.rglob("*") if path.is_file()} == before


def test_it_only_reads_by_default(library):
    async def listed() -> set[str]:
        async with mcp.Client(create_server([Library.open(library)])) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    assert asyncio.run(listed()) == {"search_videos", "describe_libraries", "look_at_moment"}
    with pytest.raises(UsageError, match="--allow-export"):
        Tools([Library.open(library)]).export("x")


def test_a_search_has_every_filter(library):
    async def talk() -> None:
        async with mcp.Client(create_server([Library.open(library)])) as client:
            schemas = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
            assert [schema["additionalProperties"] for schema in schemas.values()] == [False] * 3
            properties = schemas["search_videos"]["properties"]
            assert schemas["search_videos"]["required"] == ["query"]
            assert [*properties] == ["query", "library", "k", "per_video", *(option.name for option in FILTERS)]
            for option in FILTERS:
                names = {float: "number", bool: "boolean", str: "string"}
                kind = {"type": names[option.type]}
                listed = {"type": "array", "items": kind} if option.repeatable else kind
                assert properties[option.name]["anyOf"] == [listed, {"type": "null"}]
                assert properties[option.name]["description"] == option.help

            for filters in ({"tag": ["beach"]}, {"near": "48.2,16.4,5"}, {"favourites": True}, {"name": "c"}):
                found = await client.call_tool("search_videos", {"query": "a red heart", **filters})
                assert found.structured_content["moments"] == [], filters
            ignored = {option.name: None for option in FILTERS} | {"favourites": False, "tag": []}
            found = await client.call_tool("search_videos", {"query": "a red heart", **ignored})
            assert len(found.structured_content["moments"]) == 2

    asyncio.run(talk())


def test_a_moment_tells_which_line_matches(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", seed=0)
    (tmp_path / "videos" / "a.srt").write_text(srt((0.5, 1.5, "A walrus sings")), encoding="utf-8")
    write_video(tmp_path / "videos" / "b.mp4", seed=1)
    index(tmp_path / "library", [tmp_path / "videos"], model="mini", workers=1)

    async def found() -> list[dict]:
        async with mcp.Client(create_server([Library.open(tmp_path / "library")])) as client:
            result = await client.call_tool("search_videos", {"query": "a walrus sings"})
            return result.structured_content["moments"]

    written, seen = asyncio.run(found())
    assert (Path(written["path"]).name, written["matched"][-1]) == ("a.mp4", "written")
    assert written["line"] == {"text": "A walrus sings", "start_seconds": 0.5, "end_seconds": 1.5, "source": "a.srt"}
    assert (Path(seen["path"]).name, seen["matched"], seen["line"]) == ("b.mp4", ["seen"], None)


def test_several_libraries_have_names(tmp_path):
    made = [Library(make_library(tmp_path / place / "films", [a_file("/v/a.mp4")])) for place in "ab"]
    tools = Tools(made)
    assert [(one.name, one.path) for one in tools.describe().libraries] == [
        ("films", str(made[0].path)),
        ("films-2", str(made[1].path)),
    ]
    with pytest.raises(UsageError, match="films-2"):
        tools.look("x")


def test_a_missing_library_does_not_hide_the_others(tmp_path):
    made = [Library(make_library(tmp_path / name, [a_file("/v/a.mp4")])) for name in ("films", "away")]
    tools = Tools(made)
    made[1].path.rename(tmp_path / "elsewhere")
    described = tools.describe().libraries
    assert [(one.name, one.videos, one.error is None) for one in described] == [("films", 1, True), ("away", 0, False)]
    assert str(made[1].path) in (described[1].error or "")
    (tmp_path / "elsewhere").rename(made[1].path)
    assert [one.videos for one in tools.describe().libraries] == [1, 1]


def test_each_clip_becomes_a_new_file(tmp_path):
    for number, folder in enumerate(["a", "b"]):
        write_video(tmp_path / "videos" / folder / "a.mp4", seed=number)
    index(tmp_path / "library", [tmp_path / "videos"], model="mini", workers=1)
    opened, clips = Library.open(tmp_path / "library"), tmp_path / "clips"
    first, other = (moment.segment for moment in opened.search("a red heart", k=2))
    tools = Tools([opened], export_to=clips)
    exported = [
        tools.export(first, start_seconds=1.1, end_seconds=2.2),
        tools.export(first, start_seconds=1.6, end_seconds=2.9),
        tools.export(first, start_seconds=1.6, end_seconds=2.9, exact=True),
        tools.export(other, start_seconds=1.1, end_seconds=2.2),
        Tools([opened], export_to=clips).export(first, start_seconds=1.1, end_seconds=2.2),  # started again
    ]
    names = [Path(clip.file).name for clip in exported]
    assert names == [f"{number:03d} a 00.00.01-00.00.02.mp4" for number in range(1, 6)]
    assert names == sorted(path.name for path in clips.iterdir())


def test_a_clip_tells_how_much_earlier_it_begins(tmp_path):
    write_video(tmp_path / "videos" / "a.mkv", seed=0)
    index(tmp_path / "library", [tmp_path / "videos"], model="mini", workers=1)
    opened = Library.open(tmp_path / "library")
    (moment,) = opened.search("a red heart", k=1)
    tools = Tools([opened], export_to=tmp_path / "clips")
    copied = tools.export(moment.segment, start_seconds=1, end_seconds=2)
    exact = tools.export(moment.segment, start_seconds=1, end_seconds=2, exact=True)
    assert [Path(clip.file).suffix for clip in (copied, exact)] == [".mkv", ".mp4"]
    assert [(clip.start_seconds, clip.end_seconds) for clip in (copied, exact)] == [(1, 2)] * 2
    assert [clip.lead_seconds for clip in (copied, exact)] == [1, 0]  # the first frame is the last key frame before 1 s


def test_clips_of_the_same_time_do_not_replace_each_other(library, tmp_path):
    opened = Library.open(library)
    (moment,) = opened.search("a red heart", k=1)
    servers = [Tools([opened], export_to=tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(4) as threads:
        clips = list(threads.map(lambda tools: tools.export(moment.segment, exact=True), servers * 2))
    assert {Path(clip.file) for clip in clips} == {*tmp_path.iterdir()}
    assert sorted(Path(clip.file).name[:4] for clip in clips) == ["001 ", "002 ", "003 ", "004 "]


def test_a_changed_video_is_not_exported(library, tmp_path):
    opened = Library.open(library)
    tools = Tools([opened], export_to=tmp_path)
    row = opened._store.table.to_arrow().select(["segment", "path"]).to_pylist()[0]
    state = os.stat(row["path"])
    os.utime(row["path"], (0, 0))
    try:
        with pytest.raises(VopError, match="changed since it was indexed"):
            tools.export(row["segment"])
    finally:
        os.utime(row["path"], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert list(tmp_path.iterdir()) == []


def test_the_documented_file_of_servers_starts_this_command():
    (block,) = re.findall(r"```json\n(.*?)```", (DOCS / "assistants.md").read_text(encoding="utf-8"), re.DOTALL)
    (server,) = json.loads(block)["mcpServers"].values()
    assert Path(server["command"]).name == "vop"
    assert build_parser().parse_args(server["args"]).allow_export is None


def test_the_documented_tools_exist(library, tmp_path):
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "assistants.md").read_text(encoding="utf-8"), re.MULTILINE)

    async def listed() -> list[str]:
        async with mcp.Client(create_server([Library.open(library)], export_to=tmp_path)) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    assert asyncio.run(listed()) == rows


def test_the_extra_is_named(library, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    assert main(["mcp", str(library)]) == 2
    assert "vop[mcp]" in capsys.readouterr().err
