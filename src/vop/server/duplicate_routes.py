"""Route of the API for near-duplicates: versions of a video, from which an owner can decide what to keep."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request

from vop.search.duplicates import DuplicateGroup, Duplicates, with_sizes
from vop.search.schema import video_of
from vop.search.store import Store
from vop.server.dependencies import PROBLEMS, LibraryName, ServicesDependency, admit
from vop.server.schemas import DuplicateGroups, DuplicateParameters, VersionGroup, VideoVersion
from vop.server.services import Services

router = APIRouter(prefix="/api/libraries/{library}", responses=PROBLEMS)


@router.get("/duplicates")
async def duplicates(
    request: Request,
    services: ServicesDependency,
    library: LibraryName,
    parameters: Annotated[DuplicateParameters, Query()],
) -> DuplicateGroups:
    """List videos that are versions of each other, and exact copies, in parts. It reads the headers of their files."""
    served = services.libraries.library(library)

    async def read() -> tuple[Duplicates, list[DuplicateGroup], dict[str, str]]:
        found = await services.in_search_thread(served.library.duplicates)
        part = found.groups[parameters.skip : parameters.skip + parameters.k]
        groups = await services.in_media_thread(_with_sizes, services, part)
        return found, groups, await services.in_search_thread(_middle_segments, served.library, groups)

    found, groups, segments = await admit(request, services, read)
    library_url = f"{request.scope['root_path']}/api/libraries/{quote(served.name, safe='')}"
    version = partial(VideoVersion.of, segments=segments, library_url=library_url)
    return DuplicateGroups(
        groups=[
            VersionGroup(videos=list(map(version, group.videos)), parts=list(map(version, group.parts)))
            for group in groups
        ],
        total=len(found.groups),
        near_duplicates=found.near_duplicates,
        parts=found.parts,
        exact_copies=found.exact_copies,
        were_compared=found.were_compared,
    )


def _with_sizes(services: Services, groups: tuple[DuplicateGroup, ...]) -> list[DuplicateGroup]:
    def read(path: Path) -> tuple[int, int]:
        return services.worker.stored_size(path)

    return list(with_sizes(groups, read=read))


def _middle_segments(library: Store, groups: list[DuplicateGroup]) -> dict[str, str]:
    """Return the segment in the middle of each video, so that versions show the same."""
    ids = sorted({video.video for group in groups for video in (*group.videos, *group.parts)})
    own: dict[str, list[str]] = defaultdict(list)
    for segment in library.rows_of(ids, columns=["segment"]).column(0).to_pylist() if ids else []:
        own[video_of(segment)].append(segment)
    return {video: segments[len(segments) // 2] for video, segments in own.items()}
