"""The API's questions: what is here, search by words, by a segment, by a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request

from vop.errors import VideoError
from vop.search.results import Moment
from vop.server.answers import (
    MAX_K,
    PROBLEMS,
    UPLOAD_PROBLEMS,
    Asked,
    AskedInWords,
    Failures,
    Found,
    Limits,
    State,
    failed,
    result_of,
    state_of,
)
from vop.server.desk import Desk, TheDesk
from vop.server.uploads import BODY, received
from vop.server.views import View, views_of
from vop.version import VERSION

router = APIRouter(prefix="/api", responses=PROBLEMS)


@router.get("/state")
async def state(request: Request, desk: TheDesk) -> State:
    """The libraries, each under each of its models, and whether an indexing runs."""

    async def look() -> list:
        views = []
        for served in desk.views.libraries.values():
            status = await desk.look_up(served.status)
            views += [state_of(view, status) for view in views_of(served)]
        return views

    views = await desk.admit(request, look)
    limits = Limits(upload_bytes=desk.max_upload_bytes, max_k=MAX_K)
    return State(version=VERSION, views=views, limits=limits)


@router.get("/views/{view}/search")
async def search(request: Request, desk: TheDesk, view: str, asked: Annotated[AskedInWords, Query()]) -> Found:
    """Moments that sentences describe."""
    began, seen = time.perf_counter(), desk.views.view(view)
    sentences = asked.sentences()

    async def look() -> tuple[list[Moment], list[str]]:
        opened = seen.opened()
        vector, notes = await opened.encoders[seen.number].sentences(sentences)
        return await desk.look_up(seen.search, vector, made_by=opened, **asked.how()), notes

    moments, notes = await desk.admit(request, look)
    return _found(request, desk, seen, moments, began, notes)


@router.get("/views/{view}/like/{segment}")
async def like(request: Request, desk: TheDesk, view: str, segment: str, asked: Annotated[Asked, Query()]) -> Found:
    """Moments of other videos that resemble a segment."""
    began, seen = time.perf_counter(), desk.views.view(view)
    moments = await desk.admit(request, partial(desk.look_up, seen.like, segment, **asked.how()))
    return _found(request, desk, seen, moments, began)


@router.post("/views/{view}/search/file", responses=UPLOAD_PROBLEMS, openapi_extra={"requestBody": BODY})
async def search_file(request: Request, desk: TheDesk, view: str, asked: Annotated[Asked, Query()]) -> Found:
    """Moments that resemble a video or a picture, which is not kept."""
    began, seen = time.perf_counter(), desk.views.view(view)
    how = asked.how()

    async def look(path: Path) -> list[Moment]:
        opened = seen.opened()
        encoder = opened.encoders[seen.number]
        wanted = {"num_frames": encoder.model.num_frames, "size": encoder.model.image_size}
        vector = await encoder.frames(await desk.make(desk.worker.decode, path, **wanted))
        return await desk.look_up(seen.search, vector, made_by=opened, **how)

    with desk.uploads.place() as place:
        desk.expect_media()
        async with received(request, desk.folder, place, desk.uploads, max_bytes=desk.max_upload_bytes) as path:
            try:
                moments = await desk.admit(request, partial(look, path))
            except VideoError as error:  # its path is one of ours
                raise HTTPException(422, f"the file cannot be searched by: {error.reason}") from None
    return _found(request, desk, seen, moments, began)


@router.get("/libraries/{library}/failures")
async def failures(
    request: Request, desk: TheDesk, library: str, limit: Annotated[int, Query(ge=1, le=100_000)] = 1000
) -> Failures:
    """Files that are not, or not wholly, in a library, with the reasons; by path."""
    served = desk.views.library(library)
    rows = await desk.admit(request, partial(desk.look_up, served.library.failures))
    return Failures(failures=[failed(row) for row in rows[:limit]], total=len(rows))


def _found(
    request: Request, desk: Desk, view: View, moments: Sequence[Moment], began: float, notes: Sequence[str] = ()
) -> Found:
    if not all(moment.plays_in_browsers for moment in moments):
        desk.expect_media()  # they are played when the pointer is over them
    results = [result_of(moment, view.served.name, root_path=request.scope["root_path"]) for moment in moments]
    return Found(results=results, seconds=round(time.perf_counter() - began, 4), notes=list(notes))
