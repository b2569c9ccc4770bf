"""Turn a query of `Library` into a vector and a search of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from vop.errors import UsageError
from vop.search import queries
from vop.search.arguments import Query, Sentences, clipped, moments_of
from vop.search.manifest import LibraryModel
from vop.search.opened_models import OpenedModels
from vop.search.queries import Example, Sentence, Vector
from vop.search.results import Moment
from vop.search.store import Store
from vop.search.words.query import WordsQuery
from vop.search.words.searching import WordsMode


@dataclass(frozen=True)
class QueryReader:
    """Reads queries for one model of a library.

    Attributes:
        made_by: the model, and its number.
        warn: called with each warning.
    """

    store: Store
    models: OpenedModels
    made_by: LibraryModel
    number: int
    warn: Callable[[str], None]

    def search_of(self, query: Query, words: WordsMode) -> tuple[Vector | None, Query, Callable[..., list[Moment]]]:
        """Return the vector of a query, None if pictures do not count; the part that it stands for; and the search."""
        vector, seen, asked = self.read(query, words)
        if asked is None:
            assert vector is not None
            leave_out = [moment.video for moment in moments_of(query)]
            return vector, seen, partial(self.store.search, vector, leave_out=leave_out)
        return vector, seen, partial(self.store.search_words, vector, asked, only=words == "only")

    def read(self, query: Query, words: WordsMode) -> tuple[Vector | None, Query, WordsQuery | None]:
        """Return the vector of a query, the part that it stands for, and what it asks of words.

        The vector is None if pictures do not count, and the last one if words do not.
        """
        asked = self._asked(query, words)
        if asked is None:
            return self.vector(query), query, None
        by_pictures = asked.seen and words != "only"
        return self.vector(asked.seen) if by_pictures else None, asked.seen, asked

    def _asked(self, query: Query, words: WordsMode) -> WordsQuery | None:
        """Return what a query asks of words; None if it asks only for pictures."""
        is_sentences = isinstance(query, str | Sentence) or (
            isinstance(query, Sequence) and not queries.has_examples(query)
        )
        if not is_sentences:
            if words == "only":
                raise UsageError("words is 'only', which needs a query of sentences; leave it out to search by a file")
            return None
        if not words or not (words == "only" or self.store.has_words()):
            return None
        return WordsQuery.of(queries.parse_sentences(cast("Sentences", query)))

    def vector(self, query: Query) -> Vector:
        """Return the query as a unit vector (e,)."""
        if isinstance(query, Moment):
            vector: Vector = self.store.segment(query.segment).embeddings[self.number]
            return vector
        if isinstance(query, Path | Example):
            return queries.embed_example(self.models.open(self.made_by), clipped(query))
        if isinstance(query, Sequence) and not isinstance(query, str) and queries.has_examples(query):
            return self._mixed(query)
        if isinstance(query, str | Sentence | Sequence):
            sentences = queries.parse_sentences(cast("Sentences", query))
            opened = self.models.open(self.made_by)
            for warning in queries.notes_on(opened, sentences):
                self.warn(warning)
            return queries.embed_sentences(opened, sentences)
        return queries.unit_vector(query, width=self.made_by.embed_dim)

    def _mixed(self, query: Sequence[object]) -> Vector:
        sentences, examples = queries.parse_parts(query)
        vectors = [self.vector(example) for example, _ in examples]
        if sentences:
            opened = self.models.open(self.made_by)
            for warning in queries.cut_short(opened, sentences):
                self.warn(warning)
            vectors += list(opened.encode_text([sentence.text for sentence in sentences]).numpy())
        weights = [weight for _, weight in examples] + [sentence.weight for sentence in sentences]
        return queries.weighted_sum(np.stack(vectors), weights)
