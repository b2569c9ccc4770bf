"""Routes of the API for searching: by sentences, by a segment, by a file; and the state of the libraries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

from fastapi import APIRouter, HTTPException, Query, Request

from vop.errors import VideoError
from vop.search.confidence import at_least, unknown_note
from vop.search.filters import Order
from vop.search.queries import EXAMPLE_WEIGHT, Sentence, can_be_judged, check_parts
from vop.search.results import Moment
from vop.search.video_moments import VideoMoments
from vop.search.words.searching import MODES
from vop.server.dependencies import (
    PROBLEMS,
    UPLOAD_PROBLEMS,
    LibraryName,
    SegmentId,
    ServicesDependency,
    VideoId,
    ViewId,
    admit,
)
from vop.server.libraries import View, unknown_ids_as_not_found
from vop.server.schemas import (
    MAX_K,
    ExampleParameters,
    FailedFile,
    Failures,
    IndexingState,
    Limits,
    Lines,
    MomentParameters,
    Result,
    SearchParameters,
    SearchResponse,
    SegmentScore,
    SentenceParameters,
    SpokenLine,
    State,
    VideoMomentsResponse,
    ViewState,
)
from vop.server.services import Services
from vop.server.uploads import REQUEST_BODY, received_file
from vop.version import VERSION

router = APIRouter(prefix="/api", responses=PROBLEMS)
T = TypeVar("T")


class Amount(TypedDict):
    """How many moments to return, of all videos and of one, whether near-duplicates count, and in which order."""

    k: int
    per_video: int
    copies: bool
    order: Order


@router.get("/state")
async def state(request: Request, services: ServicesDependency) -> State:
    """List the views: each library with each of its models, and the progress of indexing."""

    async def read() -> list[ViewState]:
        views = []
        for served in services.libraries.by_name.values():
            status = await services.in_search_thread(served.status)
            indexing = IndexingState.of(services.indexing[served.name].job, allowed=services.may_index)
            views += [ViewState.of(view, status, indexing) for view in served.views]
        return views

    limits = Limits(upload_bytes=services.max_upload_bytes, max_k=MAX_K, read_only=services.read_only)
    return State(version=VERSION, views=await admit(request, services, read), limits=limits)


@router.get("/views/{view}/search")
async def search(
    request: Request, services: ServicesDependency, view: ViewId, parameters: Annotated[SentenceParameters, Query()]
) -> SearchResponse:
    """Find moments by sentences."""
    began, searched = time.perf_counter(), services.libraries.view(view)
    sentences, filters, mode = parameters.sentences(), parameters.filters(), MODES[parameters.words]

    async def work() -> tuple[list[Moment], list[str]]:
        models, encoder = searched.encoder()
        asked = await services.in_search_thread(searched.asked, sentences, mode)
        if asked is not None:
            by_pictures = bool(asked.seen) and mode != "only"
            vector, notes = await encoder.sentences(list(asked.seen)) if by_pictures else (None, [])
            fused = partial(
                searched.search_words, encoded_by=models, filters=filters, only=mode == "only", **_amount(parameters)
            )
            return await services.in_search_thread(fused, vector, asked), notes
        vector, notes = await encoder.sentences(sentences)
        judge = can_be_judged(sentences)
        search = partial(searched.search, encoded_by=models, filters=filters, judge=judge, **_amount(parameters))
        return await services.in_search_thread(search, vector), notes

    moments, notes = await admit(request, services, work)
    if note := unknown_note(moments, parameters.min_confidence):
        notes = [*notes, note]
    moments = at_least(moments, parameters.min_confidence)
    return _response(request, services, searched, moments, query="sentences", began=began, notes=notes)


@router.get("/views/{view}/like/{segment}")
async def similar(
    request: Request,
    services: ServicesDependency,
    view: ViewId,
    segment: SegmentId,
    parameters: Annotated[ExampleParameters, Query()],
) -> SearchResponse:
    """Find moments of other videos that are similar to a segment, and match sentences if there are any."""
    began, searched = time.perf_counter(), services.libraries.view(view)
    sentences = parameters.sentences()
    more: dict[str, Any] = {"filters": parameters.filters(), **_amount(parameters)}

    async def work() -> tuple[list[Moment], list[str]]:
        if not sentences:
            return await services.in_search_thread(partial(searched.similar, segment, **more)), []
        models, encoder = searched.encoder()
        found = await services.in_search_thread(searched.segment, segment)
        example = found.embeddings[searched.number]
        vector, notes = await encoder.sentences(sentences, example=example, weight=parameters.weight)
        search = partial(searched.search, vector, encoded_by=models, leave_out=found.video, **more)
        return await services.in_search_thread(search), notes

    moments, notes = await admit(request, services, work)
    return _response(request, services, searched, moments, query="segment", began=began, notes=notes)


@router.post("/views/{view}/search/file", responses=UPLOAD_PROBLEMS, openapi_extra={"requestBody": REQUEST_BODY})
async def search_file(
    request: Request, services: ServicesDependency, view: ViewId, parameters: Annotated[ExampleParameters, Query()]
) -> SearchResponse:
    """Find moments that are similar to an uploaded video or picture, and match sentences if there are any.

    The upload is not kept.
    """
    began, searched = time.perf_counter(), services.libraries.view(view)
    sentences = parameters.sentences()
    if sentences:
        check_parts(sentences, [parameters.weight])  # before the upload
    search = partial(searched.search, filters=parameters.filters(), **_amount(parameters))
    moments, notes = await _with_upload(
        request, services, searched, search, sentences=sentences, weight=parameters.weight
    )
    return _response(request, services, searched, moments, query="file", began=began, notes=notes)


@router.get("/libraries/{library}/videos/{video}/lines")
async def lines(request: Request, services: ServicesDependency, library: LibraryName, video: VideoId) -> Lines:
    """List what is spoken and written in a video, in the order of the times."""
    served = services.libraries.library(library)
    with unknown_ids_as_not_found():
        found = await admit(request, services, partial(services.in_search_thread, served.library.lines, video))
    return Lines(lines=[SpokenLine.of(line) for line in found])


@router.get("/views/{view}/videos/{video}/moments")
async def video_moments(
    request: Request,
    services: ServicesDependency,
    view: ViewId,
    video: VideoId,
    parameters: Annotated[MomentParameters, Query()],
) -> VideoMomentsResponse:
    """Find all moments of one video by sentences, or by a segment."""
    began, searched = time.perf_counter(), services.libraries.view(view)
    parameters.check()
    sentences = [] if parameters.like else parameters.sentences()
    mode = MODES[parameters.words]

    async def work() -> tuple[VideoMoments, list[str]]:
        if parameters.like:
            return await services.in_search_thread(searched.moments_like, parameters.like, video), []
        models, encoder = searched.encoder()
        asked = await services.in_search_thread(searched.asked, sentences, mode)
        seen = sentences if asked is None else list(asked.seen)
        by_pictures = asked is None or (bool(seen) and mode != "only")
        vector, notes = await encoder.sentences(seen) if by_pictures else (None, [])
        find = partial(searched.moments, encoded_by=models, judge=can_be_judged(seen), words=asked)
        return await services.in_search_thread(find, vector, video), notes

    found, notes = await admit(request, services, work)
    query = "segment" if parameters.like else "sentences"
    return _moments_response(request, services, searched, found, query=query, began=began, notes=notes)


@router.post(
    "/views/{view}/videos/{video}/moments/file", responses=UPLOAD_PROBLEMS, openapi_extra={"requestBody": REQUEST_BODY}
)
async def video_moments_file(
    request: Request, services: ServicesDependency, view: ViewId, video: VideoId
) -> VideoMomentsResponse:
    """Find all moments of one video that are similar to an uploaded video or picture. The upload is not kept."""
    began, searched = time.perf_counter(), services.libraries.view(view)
    found, _ = await _with_upload(request, services, searched, partial(searched.moments, video=video))
    return _moments_response(request, services, searched, found, query="file", began=began)


@router.get("/libraries/{library}/segments/{segment}")
async def segment(request: Request, services: ServicesDependency, library: LibraryName, segment: SegmentId) -> Result:
    """Return a segment as a moment with a score of 0, such as that of a link."""
    served = services.libraries.library(library)

    def read() -> Moment:
        with unknown_ids_as_not_found():
            (moment,) = served.library.whole_segments([segment])
        return moment

    moment = await admit(request, services, partial(services.in_search_thread, read))
    return Result.of(moment, served.name, root_path=request.scope["root_path"])


@router.get("/libraries/{library}/failures")
async def failures(
    request: Request,
    services: ServicesDependency,
    library: LibraryName,
    limit: Annotated[int, Query(ge=1, le=100_000, description="Maximum number of files to list.")] = 1000,
) -> Failures:
    """List files that could not be indexed completely, with reasons and next steps, sorted by path."""
    served = services.libraries.library(library)
    found = await admit(request, services, partial(services.in_search_thread, served.library.failures))
    return Failures(failures=[FailedFile.of(failure) for failure in found[:limit]], total=len(found))


def _amount(parameters: SearchParameters) -> Amount:
    return {
        "k": parameters.k,
        "per_video": parameters.per_video,
        "copies": parameters.copies,
        "order": parameters.order,
    }


async def _with_upload(
    request: Request,
    services: Services,
    view: View,
    find: Callable[..., T],
    *,
    sentences: Sequence[Sentence] = (),
    weight: float = EXAMPLE_WEIGHT,
) -> tuple[T, list[str]]:
    """Return what `find` finds, given the embedding of the uploaded file and the models that made it; and notes.

    Args:
        sentences: sentences to search for as well.
        weight: the weight of the file beside them.
    """

    async def work(path: Path) -> tuple[T, list[str]]:
        models, encoder = view.encoder()
        model = encoder.model
        decode = partial(services.worker.decode, num_frames=model.num_frames, resizing=model.resizing)
        vector, notes = await encoder.frames(await services.in_media_thread(decode, path)), list[str]()
        if sentences:
            vector, notes = await encoder.sentences(sentences, example=vector, weight=weight)
        return await services.in_search_thread(partial(find, encoded_by=models), vector), notes

    uploads, max_bytes = services.uploads, services.max_upload_bytes
    with uploads.slot() as slot:
        services.warm_worker()
        async with received_file(request, services.folder, slot, uploads, max_bytes=max_bytes) as path:
            try:
                return await admit(request, services, partial(work, path))
            except VideoError as error:  # its path is our temporary file
                raise HTTPException(422, f"the file cannot be used for a search: {error.reason}") from None


def _moments_response(
    request: Request,
    services: Services,
    view: View,
    found: VideoMoments,
    *,
    query: str,
    began: float,
    notes: Sequence[str] = (),
) -> VideoMomentsResponse:
    response = _response(request, services, view, found.moments, query=query, began=began, notes=notes)
    segments = [SegmentScore.model_validate(segment) for segment in found.segments]
    return VideoMomentsResponse(**dict(response), segments=segments, floor=found.floor)


def _response(
    request: Request,
    services: Services,
    view: View,
    moments: Sequence[Moment],
    *,
    query: str,
    began: float,
    notes: Sequence[str] = (),
) -> SearchResponse:
    services.metrics.search(view.id, query)
    if not all(moment.plays_in_browsers for moment in moments):
        services.warm_worker()  # the page will ask for clips as soon as the user points at a moment
    results = [Result.of(moment, view.served.name, root_path=request.scope["root_path"]) for moment in moments]
    return SearchResponse(results=results, seconds=round(time.perf_counter() - began, 4), notes=list(notes))
