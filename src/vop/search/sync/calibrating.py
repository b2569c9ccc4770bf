"""Bring the calibration of a library up to date, on which the confidence of results rests (`vop.search.confidence`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vop.errors import VopError
from vop.search import confidence
from vop.search.confidence import Calibration, Floats, unlikely_captions
from vop.search.lease import check_held
from vop.search.manifest import LibraryModel
from vop.search.models import open_models
from vop.search.schema import matrix
from vop.search.store import Store

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

_CHANGED = 0.05  # the share of segments by which a library may grow or shrink before it is calibrated again
_BATCH_ROWS = 8192


def calibrate(library: Store, opened: Sequence[TextVideoModel] = ()) -> None:
    """Calibrate the models of a library whose number of segments has changed. The caller has the library's lock.

    Args:
        opened: the first models of the library, if they are open already. Another one is opened only if its captions
            were not embedded before. If that is impossible, it has no calibration.
    """
    segments = library.table.count_rows()
    before = confidence.read(library.path)
    after: dict[str, Calibration] = {}
    for number, model in enumerate(library.models):
        had = before.get(model.fingerprint)
        if had is not None and abs(segments - had.segments) <= _CHANGED * had.segments:
            after[model.fingerprint] = had
        elif segments:
            captions = had.captions if had is not None else _embedded(library, model, opened[number : number + 1])
            if captions is not None:
                after[model.fingerprint] = Calibration.of(captions, _batches(library, model.column))
    if after.keys() != before.keys() or any(after[name] is not before[name] for name in after):
        check_held(library.path)
        confidence.write(after, library.path)


def _embedded(library: Store, model: LibraryModel, opened: Sequence[TextVideoModel]) -> Floats | None:
    """Return the embeddings of the captions (c, e); None if the model cannot be opened."""
    if not opened:
        try:
            opened = open_models(library.manifest.with_(models=(model,)), folder=library.path)
        except VopError:
            return None
    embedded: Floats = opened[0].encode_text(unlikely_captions()).numpy()
    return embedded


def _batches(library: Store, column: str) -> Iterator[Floats]:
    """Yield the embeddings of all segments, (n, e) at a time."""
    for batch in library.table.search().select([column]).to_batches(batch_size=_BATCH_ROWS):
        vectors = matrix(pa.chunked_array([batch.column(column)]))
        yield np.asarray(vectors, np.float32)
