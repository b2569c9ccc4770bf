"""Route of the API for examples: sentences that find something in a library."""

from __future__ import annotations

import asyncio

import numpy as np
from fastapi import APIRouter, Request

from vop.search.examples import everyday_captions, said_example, seen_examples
from vop.search.queries import Sentence
from vop.search.results import Moment
from vop.server.dependencies import PROBLEMS, ServicesDependency, ViewId, admit
from vop.server.kept_examples import KeptExamples
from vop.server.libraries import View
from vop.server.schemas import Examples
from vop.server.services import Services

router = APIRouter(prefix="/api/views/{view}", responses=PROBLEMS)

_MOST_LINES = 2000  # to choose a spoken example from


@router.get("/examples")
async def examples(request: Request, services: ServicesDependency, view: ViewId) -> Examples:
    """Return example sentences that find something in the library: what it shows, and words that are said in it."""
    searched, kept = services.libraries.view(view), services.examples.get(view)
    model = searched.model.fingerprint
    if kept is None or not kept.holds(model):
        found = await admit(request, services, lambda: _found(services, searched))
        kept = services.examples[view] = KeptExamples(found, model)
    return kept.examples


async def _found(services: Services, view: View) -> Examples:
    models, encoder = view.encoder()
    captions = everyday_captions()
    encoded = await asyncio.gather(*(encoder.sentences([Sentence(caption)]) for caption in captions))
    vectors = [vector for vector, _ in encoded]

    def best(vector: np.ndarray) -> list[Moment]:
        moments = view.library.search(vector, k=1, model=models.models[view.number])
        return view.library.judged(moments, vector, model=models.models[view.number])

    def work() -> Examples:
        said = said_example(view.library.words.texts(limit=_MOST_LINES))
        return Examples(seen=seen_examples(captions, vectors, best), said=[said] if said else [])

    return await services.in_search_thread(work)
