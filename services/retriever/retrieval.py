"""What the retriever makes of a bundle: index, filters and catalogue as one model that answers queries.

N movies, D dimension, n hits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from marquee.bundle.catalog import Catalog
from marquee.bundle.format import CATALOG, Bundle
from marquee.engine.index import Hits, Index, Mask, use_threads
from marquee.errors import BundleError, InvalidRequest, MovieUnknown
from marquee.features import Floats, Int64s
from marquee.movies import MovieRecord
from marquee.v1 import types_pb2
from services.retriever.block_list import BlockList
from services.retriever.facets import Facets
from services.retriever.filters import Filters
from services.retriever.finding import Finding, Found, share_of, short_reason
from services.retriever.measures import DETAILS, SEARCHES
from services.retriever.milvus import Collection, Milvus
from services.retriever.queries import MOVIE_FIELDS, Wanted

# Details that are kept for the next list, about 1 kB each.
_MAX_KEPT = 50_000


class Retrieval:
    """Answers queries from one bundle."""

    def __init__(
        self, bundle: Bundle, *, threads: int = 1, block_list: BlockList | None = None, milvus: Milvus | None = None
    ) -> None:
        self._threads = threads
        self.index = Index(bundle, threads=threads, from_file=milvus is None, told=SEARCHES.count)
        self.collection = None if milvus is None else Collection(milvus, bundle)
        if self.collection is None:
            self.index.probe(bundle)
        else:
            self.collection.check(self.index)
        path = bundle.file(CATALOG)
        self.catalog = Catalog(path)
        # A connection serves one thread at a time: a title search of milliseconds must not hold up lookups.
        self.titles = Catalog(path)
        self.block_list = block_list or BlockList()
        self.filters = Filters(self.index, self.catalog.columns(), self.block_list)
        self.facets = Facets(self.filters.facts, self.index.movie_ids)
        self._details = Details(self.catalog)
        if len(missing := self.filters.missing):
            raise BundleError(
                f"{path}: lacks {len(missing)} movies of the index (first: {missing[0]}); export the bundle again"
            )

    def search(self, query_D: Floats, wanted: Wanted, ends_at: float | None = None) -> Found:
        """Finds the nearest movies that are wanted; `query_D` has L2 norm 1.

        `ends_at` is when the answer must be there, on the monotonic clock; None: some time.
        """
        index = self.index if self.collection is None else self.collection.asked(self.index, ends_at)
        if wanted.options is not None:
            return Finding(index, self.filters, query_D, wanted, wanted.options).found()
        mask = self.filters.matching(wanted.filter, wanted.excluded)
        hits = index.search(query_D, wanted.k, mask)
        return self._found(index, hits, wanted, mask)

    def search_many(self, queries_QD: Floats, wanted: Sequence[Wanted], masks: Sequence[Mask | None]) -> list[Found]:
        """Finds what `search` would find for each of Q queries without options, given the masks of what matches."""
        lists = self.index.search_many(queries_QD, [each.k for each in wanted], masks)
        return [
            self._found(self.index, hits, each, mask) for hits, each, mask in zip(lists, wanted, masks, strict=True)
        ]

    def _found(self, index: Index, hits: Hits, wanted: Wanted, mask: Mask | None) -> Found:
        reason = short_reason(index, self.filters, len(hits.movie_ids), wanted, mask)
        return Found(hits, reason, share_of(index, wanted, mask))

    def search_apart(self, query_D: Floats, wanted: Wanted, ends_at: float | None = None) -> Found:
        """Searches in a thread that is not the one that bundles are searched in otherwise."""
        use_threads(self._threads)
        return self.search(query_D, wanted, ends_at)

    def toward(self, examples: Int64s, negatives: Int64s) -> Floats:
        """Makes the query that is near to the examples and away from the negative ones."""
        query_D = self._mean(examples, "movie_ids")
        if len(negatives):
            query_D = query_D - self._mean(negatives, "negative_movie_ids")
        norm = float(np.linalg.norm(query_D))
        # Below this, what is left is rounding and not a direction.
        if norm < 1e-6:
            raise InvalidRequest(
                "movie_ids and negative_movie_ids cancel each other out; send other examples", field="movie_ids"
            )
        return (query_D / norm).astype(np.float32)

    def _mean(self, movie_ids: Int64s, field: str) -> Floats:
        vectors_nD = self.index.vectors(movie_ids)
        if len(vectors_nD) < len(movie_ids):
            known = np.isin(movie_ids, self.index.movie_ids)
            at = int(known.argmin())
            raise MovieUnknown(
                f"{field}[{at}]: movie {movie_ids[at]} is not in the index; leave it out, or search another space",
                field=f"{field}[{at}]",
                metadata={"movie_id": str(movie_ids[at])},
            )
        mean_D: Floats = vectors_nD.mean(axis=0, dtype=np.float64)
        return mean_D

    def details(self, movie_ids: Int64s, names: tuple[str, ...]) -> list[types_pb2.Movie]:
        """Reads the named fields of movies of the index; none where no field is named."""
        return self._details.read(movie_ids.tolist(), names) if names else []


class Details:
    """Reads details of movies, and keeps them: the same popular movies are in list after list."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: dict[tuple[int, tuple[str, ...]], types_pb2.Movie] = {}

    def read(self, movie_ids: Sequence[int], names: tuple[str, ...]) -> list[types_pb2.Movie]:
        """Reads the named fields of movies that are in the catalogue, in their order."""
        found = {movie_id: self._kept.get((movie_id, names)) for movie_id in movie_ids}
        missing = [movie_id for movie_id, movie in found.items() if movie is None]
        DETAILS.count("memory", len(found) - len(missing))
        if missing:
            DETAILS.count("catalogue", len(missing))
            self._fetch(missing, names)
            found.update((movie_id, self._kept[movie_id, names]) for movie_id in missing)
        return [movie for movie in found.values() if movie is not None]

    def _fetch(self, movie_ids: Iterable[int], names: tuple[str, ...]) -> None:
        if len(self._kept) > _MAX_KEPT:
            self._kept.clear()
        for record in self._catalog.get_many(movie_ids):
            if record is not None:
                self._kept[record.movie_id, names] = to_proto(record, names)


def to_proto(record: MovieRecord, names: Sequence[str] = MOVIE_FIELDS) -> types_pb2.Movie:
    """Builds the message of a movie with the named fields; what is not known stays unset."""
    known = ((name, getattr(record, name)) for name in names)
    return types_pb2.Movie(**{name: value for name, value in known if value is not None})
