"""Content-kNN: what is like the movies of a history by genres, years, language, people and title words.

N movies, T tokens, Q queries, L history length, C candidates.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from marquee.features import Floats, Int64s, content_tokens, rating_signal
from marquee.movies import MovieRecord
from training.split import Queries

# Half a star stands this far below the middle: weights are never negative.
_LOWEST_SIGNAL = -1.25
_NEIGHBOURS = (5, 20, 0)
_RATING_POWERS = (0.0, 1.0, 2.0)


class ContentConfig(NamedTuple):
    """Says how content is compared.

    `idf` weighs tokens by their rarity. `neighbours` are the most similar movies of the history that count, 0 for all:
    the profile then is their mean. A movie of the history weighs as its distance from the lowest rating, to the
    `rating_power`.
    """

    idf: bool = True
    neighbours: int = 0
    rating_power: float = 0.0


def content_grid() -> Iterator[ContentConfig]:
    """Yields the settings to choose from."""
    yield from itertools.starmap(ContentConfig, itertools.product((True, False), _NEIGHBOURS, _RATING_POWERS))


class ContentKnn:
    """Scores movies by the cosine of their content with that of a history's movies."""

    def __init__(self, movies: Sequence[MovieRecord], config: ContentConfig) -> None:
        vectorizer = TfidfVectorizer(analyzer=content_tokens, use_idf=config.idf, binary=True, dtype=np.float32)
        try:
            self._content_NT = vectorizer.fit_transform(movies)
        except ValueError:  # no movie has a token
            self._content_NT = sparse.csr_matrix((len(movies), 1), dtype=np.float32)
        self._config = config

    def scores(self, queries: Queries, items_C: Int64s) -> Floats:
        """Scores some of the movies for each query, [Q, C]; 0 where the history is empty."""
        candidates_CT = self._content_NT[items_C]
        scores_QC = np.zeros((queries.size, len(items_C)), np.float32)
        for query, (start, end) in enumerate(zip(queries.starts, queries.ends, strict=True)):
            if start < end:
                scores_QC[query] = self._score(queries, slice(start, end), candidates_CT)
        return scores_QC

    def _score(self, queries: Queries, of: slice, candidates_CT: sparse.csr_matrix) -> Floats:
        log = queries.log
        weights_L = (rating_signal(log.kinds[of], log.values[of]) - _LOWEST_SIGNAL) ** self._config.rating_power
        similar_LC = cosine_similarity(self._content_NT[log.items[of]], candidates_CT) * weights_L[:, None]
        count = self._config.neighbours
        if 0 < count < len(similar_LC):
            similar_LC = np.partition(similar_LC, -count, axis=0)[-count:]
        scores_C: Floats = similar_LC.mean(axis=0)
        return scores_C
