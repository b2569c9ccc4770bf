"""The tools as a server of the Model Context Protocol."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from vop.errors import UsageError, VopError
from vop.mcp_server.arguments import refuse_unknown, with_filters
from vop.mcp_server.tools import ExportedClip, FoundMoments, LibraryDescriptions, Tools
from vop.search.library import Library
from vop.version import VERSION

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

_INSTRUCTIONS = (
    "Searches the user's videos for moments by what happens in them. Call search_videos with a sentence that describes "
    "the scene, as in a caption: 'a dog runs on the beach'. Check a result with look_at_moment before you say what it "
    "shows: a search always returns the nearest moments, also if none of them fits; is_weak marks those that probably "
    "do not. A search also finds what people say (heard) and subtitles (written): matched tells what matches, and line "
    "is the line that does. If a moment is not seen, its pictures need not show the scene."
)
_K = 50  # moments of a search at most

_Library = Annotated[str | None, Field(description="The library's name. Needed if there are several.")]
_Segment = Annotated[str, Field(description="A moment's id, from the results of a search.")]


def create_server(libraries: Sequence[Library], *, export_to: Path | None = None) -> MCPServer[None]:
    """Return a server with tools for these libraries.

    Args:
        export_to: the folder in which clips may be written. Without it, the server only reads.

    Raises:
        UsageError: the SDK is not installed.
    """
    try:
        from mcp.server.mcpserver import Image, MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.server.mcpserver.tools import Tool
        from mcp.types import ToolAnnotations
    except ImportError:
        raise UsageError("vop mcp needs the package mcp: pip install 'vop[mcp]'") from None
    _log_to_our_handler()
    tools = Tools(libraries, export_to=export_to)
    registered: list[Tool] = []
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    @contextmanager
    def explained() -> Iterator[None]:
        """Pass the message of our errors on; others stay in the log."""
        try:
            yield
        except VopError as error:
            raise ToolError(str(error)) from error

    def tool(**settings: Any) -> Callable[[Callable[..., Any]], None]:
        """Register a function as a tool, with these settings of `Tool.from_function`."""

        def register(function: Callable[..., Any]) -> None:
            made = Tool.from_function(function, description=inspect.getdoc(function), **settings)
            registered.append(refuse_unknown(made))

        return register

    @tool(title="Search videos", annotations=reading)
    @with_filters
    def search_videos(
        query: Annotated[str, Field(description="A sentence that describes what happens, such as 'a dog runs'.")],
        library: _Library = None,
        k: Annotated[int, Field(ge=1, le=_K, description="The number of moments.")] = 5,
        per_video: Annotated[
            int, Field(ge=1, le=_K, description="The number of moments that one video may have among them.")
        ] = 1,
        **filters: Any,
    ) -> FoundMoments:
        """Find moments in videos by a sentence. Returns the best moment of each video, best first, or more of each."""
        with explained():
            return tools.search(query, name=library, k=k, per_video=per_video, filters=filters)

    @tool(title="Describe libraries", annotations=reading)
    def describe_libraries(library: _Library = None) -> LibraryDescriptions:
        """Describe the libraries of videos: their size, model, folders, and columns of metadata."""
        with explained():
            return tools.describe(library)

    @tool(title="Look at a moment", annotations=reading, structured_output=False)
    def look_at_moment(segment: _Segment, library: _Library = None) -> list[object]:
        """Show a moment as a strip of pictures in the order of time, from left to right."""
        with explained():
            text, picture = tools.look(segment, name=library)
        return [text, Image(data=picture, format="jpeg")]

    if export_to is not None:
        writing = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)

        @tool(title="Export a clip", annotations=writing)
        def export_clip(
            segment: _Segment,
            library: _Library = None,
            start_seconds: Annotated[
                float | None, Field(ge=0, description="Begin here in the video instead of where the moment begins.")
            ] = None,
            end_seconds: Annotated[
                float | None, Field(ge=0, description="End here in the video instead of where the moment ends.")
            ] = None,
            exact: Annotated[
                bool, Field(description="Cut at the exact times. Otherwise the clip may begin lead_seconds earlier.")
            ] = False,
        ) -> ExportedClip:
            """Write a moment, or another part of its video, as a new file in the folder for clips.

            The clip is a copy in the format of the video if possible. With exact=true, it is an MP4.
            """
            with explained():
                return tools.export(
                    segment, name=library, start_seconds=start_seconds, end_seconds=end_seconds, exact=exact
                )

    return MCPServer("vop", version=VERSION, instructions=_INSTRUCTIONS, tools=registered, log_level="WARNING")


def _log_to_our_handler() -> None:
    """Let the SDK log as vop does. It would otherwise give the root logger a handler, so that lines appear twice."""
    ours = logging.getLogger("vop")
    sdk = logging.getLogger("mcp")
    sdk.handlers, sdk.propagate = list(ours.handlers), False
    sdk.setLevel(logging.WARNING)
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
