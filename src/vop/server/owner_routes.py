"""Routes of the API for the owner's tags and favourites.

`SecurityMiddleware` refuses requests without the token, and requests of other sites' pages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request
from starlette.convertors import PathConvertor, register_url_convertor

from vop.search.owners import MAX_CHARACTERS, Marks, Target
from vop.search.store import Store
from vop.server.dependencies import PROBLEMS, LibraryName, ServicesDependency, admit
from vop.server.libraries import unknown_ids_as_not_found
from vop.server.schemas import MarkState, MomentTimes, OwnMark, OwnMarks, TagCount, Tags
from vop.server.services import Services

router = APIRouter(prefix="/api/libraries/{library}", responses=PROBLEMS)


class _Text(PathConvertor):
    """As `path`, with line breaks, which are spaces in a tag."""

    regex = "(?s:.*)"


register_url_convertor("text", _Text())

TargetId = Annotated[str, Path(max_length=100, description="The id of a video or of a segment.")]
Tag = Annotated[str, Path(max_length=4 * MAX_CHARACTERS, description="A tag; / is allowed in it.")]
Times = Annotated[MomentTimes, Query()]


@router.get("/tags")
async def tags(request: Request, services: ServicesDependency, library: LibraryName) -> Tags:
    """List all tags by name, and count the favourites."""
    marks = await _marks(request, services, library)
    return Tags(
        tags=[TagCount(tag=tag, count=count) for tag, count in marks.tags().items()],
        favourites=sum(mark.is_favourite for mark in marks.all),
    )


@router.get("/marks")
async def marks(request: Request, services: ServicesDependency, library: LibraryName) -> OwnMarks:
    """Export the tags and favourites of all videos and moments."""
    found = await _marks(request, services, library)
    return OwnMarks(marks=[OwnMark.model_validate(mark) for mark in found.all])


@router.get("/marks/{id}")
async def mark(
    request: Request, services: ServicesDependency, library: LibraryName, id: TargetId, times: Times
) -> MarkState:
    """Return the tags of a video or moment, and whether it is a favourite."""
    return await _answer(request, services, library, id, times, None)


@router.put("/marks/{id}/tags/{tag:text}")
async def add_tag(
    request: Request, services: ServicesDependency, library: LibraryName, id: TargetId, tag: Tag, times: Times
) -> MarkState:
    """Add a tag to a video or moment."""
    return await _answer(request, services, library, id, times, lambda own, target: own.changed(target, add=[tag]))


@router.delete("/marks/{id}/tags/{tag:text}")
async def remove_tag(
    request: Request, services: ServicesDependency, library: LibraryName, id: TargetId, tag: Tag, times: Times
) -> MarkState:
    """Remove a tag from a video or moment. A moment keeps the tags of the whole video."""
    return await _answer(request, services, library, id, times, lambda own, target: own.changed(target, remove=[tag]))


@router.put("/marks/{id}/favourite")
async def add_favourite(
    request: Request, services: ServicesDependency, library: LibraryName, id: TargetId, times: Times
) -> MarkState:
    """Make a video or moment a favourite."""
    return await _answer(
        request, services, library, id, times, lambda own, target: own.changed(target, is_favourite=True)
    )


@router.delete("/marks/{id}/favourite")
async def remove_favourite(
    request: Request, services: ServicesDependency, library: LibraryName, id: TargetId, times: Times
) -> MarkState:
    """Make a video or moment not a favourite any more. A moment of a video that is one as a whole stays one."""
    return await _answer(
        request, services, library, id, times, lambda own, target: own.changed(target, is_favourite=False)
    )


async def _marks(request: Request, services: Services, library: str) -> Marks:
    store = services.libraries.library(library).library
    return await admit(request, services, partial(services.in_search_thread, lambda: store.marks))


async def _answer(
    request: Request,
    services: Services,
    library: str,
    id: str,
    times: MomentTimes,
    change: Callable[[Marks, Target], Marks] | None,
) -> MarkState:
    """Change the marks of a video or moment, and return its state.

    Raises:
        HTTPException: the server is read-only.
        NotFound: the library does not have the video.
    """
    store = services.libraries.library(library).library
    if change is not None and services.read_only:
        raise HTTPException(403, "this server is read-only: tags and favourites cannot be changed")
    work = partial(_change, store, id, times, change)
    return await admit(request, services, partial(services.in_search_thread, work))


def _change(store: Store, id: str, times: MomentTimes, change: Callable[[Marks, Target], Marks] | None) -> MarkState:
    with unknown_ids_as_not_found():
        target = store.target(id)
    if (times.start_seconds, times.end_seconds) != (None, None):
        target = store.target(id, start_seconds=times.start_seconds, end_seconds=times.end_seconds)
    marks = store.marks if change is None else store.change_marks(lambda own: change(own, target))
    (tags, is_favourite), (video_tags, is_video_favourite) = marks.of_target(target), marks.of(target.video)
    return MarkState(
        tags=list(tags),
        is_favourite=is_favourite,
        video_tags=list(video_tags),
        is_video_favourite=is_video_favourite,
    )
