"""Recommends in this process: the engine that the services serve, over a bundle and people's events.

Letters in array names: B people, D dimension, N movies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clients.batch.events import People, read_people
from clients.batch.lists import Lists, Origin, Wanted, join
from marquee.bundle.catalog import Catalog
from marquee.bundle.format import CATALOG, Bundle, open_bundle
from marquee.bundle.registry import Registry
from marquee.engine.encoder import Encoder
from marquee.engine.facts import Facts, Mask, check_filter
from marquee.engine.index import Hits, Index, use_blas_threads
from marquee.errors import RegistryError
from marquee.features import NO_EVENTS, Floats, Int64s
from marquee.histories import Pair, merge_many, seen_many

# People that are encoded together: some hundreds of thousands of events, and no gain beyond.
_TOGETHER = 1024
# Queries that are compared with all movies in one matrix product: 64 take a third of the time a query of 8, and no more
# gain much. Their scores, of which there are so many at once, take 64 MB.
_MOST_QUERIES = 64
_SCORES = 1 << 24


class InProcess:
    """Recommends with a bundle of this machine; `place` is its folder, or the registry whose active one it is."""

    def __init__(self, place: Path, events: Path, *, in_registry: bool, threads: int) -> None:
        self._place = place
        self._events = events
        self._in_registry = in_registry
        self._threads = threads

    def origin(self, bundle_id: str) -> Origin:
        """Opens the bundle, and verifies it."""
        bundle = self._open(bundle_id)
        self.model = Model(bundle, self._threads)
        return Origin(bundle.id, bundle.space)

    def _open(self, bundle_id: str) -> Bundle:
        if not self._in_registry:
            return open_bundle(self._place)
        registry = Registry(self._place)
        wanted = bundle_id or registry.read().active
        if not wanted:
            raise RegistryError(f"{self._place}: no bundle is active; run `python -m marquee.bundle activate` first")
        return registry.open(wanted)

    def people(self) -> list[str]:
        """Lists everybody in the order of their first event."""
        return self._people.user_ids

    def source(self) -> str:
        """Names the events by their hash."""
        return f"events {self._people.fingerprint()}"

    @functools.cached_property
    def _people(self) -> People:
        return read_people(self._events)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {user_id: number for number, user_id in enumerate(self._people.user_ids)}

    def recommend(self, user_ids: Sequence[str], wanted: Wanted, origin: Origin, done: Callable[[int], None]) -> Lists:
        """Makes people's lists, some hundred people at a time."""
        parts = []
        for start in range(0, len(user_ids), _TOGETHER):
            some = user_ids[start : start + _TOGETHER]
            parts.append(self.model.recommend(self.pairs(some), wanted))
            done(len(some))
        return join(parts)

    def pairs(self, user_ids: Sequence[str]) -> list[Pair]:
        """Looks people's events up, none for who has none."""
        return [self._pair(user_id) for user_id in user_ids]

    def _pair(self, user_id: str) -> Pair:
        number = self._numbers.get(user_id)
        return Pair(user_id, NO_EVENTS, NO_EVENTS if number is None else self._people.history(number))


class Model:
    """Is a bundle's tower, index and catalogue."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.encoder = Encoder(bundle, threads=threads)
        self.encoder.probe(bundle)
        self.index = Index(bundle, threads=threads)
        self.index.probe(bundle)
        use_blas_threads(threads)
        self._catalog = bundle.file(CATALOG)
        self._passing: tuple[bytes, Mask] | None = None

    def recommend(self, people: Sequence[Pair], wanted: Wanted) -> Lists:
        """Makes the lists of those who have events."""
        histories = merge_many(people)
        having = np.flatnonzero(histories.sizes_B).tolist()
        encoded = self.encoder.prepare_many(histories, np.full(len(people), wanted.as_of_ms))
        vectors_BD = self.encoder.run(encoded.tower)[having]
        seen = seen_many(histories) if wanted.exclude_seen else None
        hits = list(self._search(vectors_BD, seen and [seen[at] for at in having], wanted))
        return Lists(
            [people[at].user_id for at in having],
            np.array([len(one.movie_ids) for one in hits], np.int64),
            np.concatenate([one.movie_ids for one in hits] or [np.zeros(0, np.int64)]),
            np.concatenate([one.scores for one in hits] or [np.zeros(0, np.float32)]),
        )

    def _search(self, vectors_BD: Floats, seen: list[Int64s] | None, wanted: Wanted) -> Iterator[Hits]:
        passing = self._mask_of(wanted)
        step = max(1, min(_MOST_QUERIES, _SCORES // self.index.count))
        for start in range(0, len(vectors_BD), step):
            some_BD = vectors_BD[start : start + step]
            masks: list[Mask | None] = [passing] * len(some_BD)
            if seen is not None:
                masks = [self._mask(passing, ids) for ids in seen[start : start + step]]
            yield from self.index.search_many(some_BD, [wanted.k] * len(some_BD), masks)

    def _mask(self, passing: Mask | None, seen: Int64s) -> Mask:
        mask = np.ones(self.index.count, bool) if passing is None else passing.copy()
        mask[self.index.rows(seen)] = False
        return mask

    def _mask_of(self, wanted: Wanted) -> Mask | None:
        """Marks the movies that pass the filter; the catalogue is read for the first list only."""
        key = wanted.filter.SerializeToString(deterministic=True)
        if not key:
            return None
        if self._passing is None or self._passing[0] != key:
            check_filter(wanted.filter, "filter")
            mask = np.ones(self.index.count, bool)
            with Catalog(self._catalog) as catalog:
                Facts(self.index.movie_ids, catalog.columns()).keep(mask, wanted.filter)
            mask[self.index.rows(np.array(wanted.filter.exclude_ids, np.int64))] = False
            self._passing = key, mask
        return self._passing[1]
