"""Routes of the API that start and stop an indexing of a library's remembered folders, and list these folders."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, HTTPException, Request

from vop.search import folders
from vop.search.folders import LibraryFolder
from vop.search.store import Store
from vop.server.dependencies import PROBLEMS, LibraryName, ServicesDependency, admit
from vop.server.libraries import ServedLibrary
from vop.server.schemas import IndexedFolder, IndexedFolders, IndexingState
from vop.server.services import Services

router = APIRouter(prefix="/api", responses=PROBLEMS)


@router.get("/libraries/{library}/indexing/folders")
async def indexed_folders(request: Request, services: ServicesDependency, library: LibraryName) -> IndexedFolders:
    """List the folders, files and addresses that the library remembers, and whether each is available now."""
    served = services.libraries.library(library)
    found = await admit(request, services, partial(services.in_search_thread, _described, served.library))
    return IndexedFolders(folders=[IndexedFolder.model_validate(folder) for folder in found])


def _described(library: Store) -> list[LibraryFolder]:
    return folders.describe(folders.read(library.path), library.videos())


@router.post("/libraries/{library}/indexing", status_code=202)
async def start_indexing(request: Request, services: ServicesDependency, library: LibraryName) -> IndexingState:
    """Index what the library remembers, in a process of its own. If one runs already, it goes on."""
    served = _allowed(services, library)
    await admit(request, services, partial(services.in_search_thread, _check_indexable, served.library))
    return IndexingState.of(services.indexing[served.name].start(), allowed=True)


@router.delete("/libraries/{library}/indexing")
async def stop_indexing(services: ServicesDependency, library: LibraryName) -> IndexingState:
    """Stop the indexing after the files that are being read; a second time, at once. Finished files are kept."""
    served = _allowed(services, library)
    return IndexingState.of(services.indexing[served.name].stop(), allowed=True)


def _check_indexable(library: Store) -> None:
    """Raise an error if the library is unavailable, or remembers nothing."""
    library.refresh()
    folders.remembered(library.path)


def _allowed(services: Services, library: str) -> ServedLibrary:
    """Return a library that may be indexed from here.

    Raises:
        HTTPException: 403, this server does not index.
    """
    served = services.libraries.library(library)
    if not services.may_index:
        raise HTTPException(
            403, "this server may not index: start it with a token, or with --indexing if all who reach it may do that"
        )
    return served
