"""Routes of the API for browsing: videos by date, and their folders."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request

from vop.server.dependencies import PROBLEMS, LibraryName, ServicesDependency, admit
from vop.server.schemas import BrowseParameters, BrowseResponse, Folders, FolderState, Result

router = APIRouter(prefix="/api/libraries/{library}", responses=PROBLEMS)


@router.get("/videos")
async def browse(
    request: Request,
    services: ServicesDependency,
    library: LibraryName,
    parameters: Annotated[BrowseParameters, Query()],
) -> BrowseResponse:
    """List videos by the date of their recording, in parts."""
    began, served = time.perf_counter(), services.libraries.library(library)
    read = partial(
        served.library.browse,
        filters=parameters.filters(),
        order=parameters.order,
        k=parameters.k,
        start=parameters.start or None,
        skip=parameters.skip,
    )
    found = await admit(request, services, partial(services.in_search_thread, read))
    root = request.scope["root_path"]
    return BrowseResponse(
        results=[Result.of(video, served.name, root_path=root) for video in found.videos],
        next=found.next,
        total=found.total,
        seconds=round(time.perf_counter() - began, 4),
    )


@router.get("/folders")
async def folders(
    request: Request,
    services: ServicesDependency,
    library: LibraryName,
    parent: Annotated[
        str, Query(max_length=4096, description="A folder's path; empty for the lowest folders that have all videos.")
    ] = "",
) -> Folders:
    """List the folders with videos in a folder."""
    served = services.libraries.library(library)
    read = partial(services.in_search_thread, served.library.browse_folders, parent or None)
    found = await admit(request, services, read)
    return Folders(folders=[FolderState.model_validate(folder) for folder in found])
