"""What screens are made of, read from the services; where a part cannot be had, the rest is shown without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from clients.presenter import sentences, words
from clients.presenter.choice import Choice
from clients.presenter.opinions import Stated, good, opinions
from clients.presenter.views import Card, Notice, Offer, Opinion, Option, Reason, Shelf
from marquee.client import (
    AsyncRecommender,
    Event,
    ExplainedMovie,
    FeatureSource,
    Filters,
    InvalidRequest,
    MarqueeError,
    Movie,
    Recommendations,
    UserUnknown,
)

_SHELVES = 2
_SHELF = 12
# One call explains so many films at most.
_EXPLAINED = 100
# What a screen needs of a history: one page of the service.
_EVENTS = 1_000
_TOP = 200
_TOP_FRESH_S = 300.0
_OFFER_FRESH_S = 60.0
# Below this a cosine moved by rounding.
_NOTHING = 1e-4


class Listed(NamedTuple):
    """Is a person's list and what is to be said of it; the fields are those of `Home`."""

    movies: tuple[Movie, ...]
    notices: tuple[Notice, ...]
    personal: bool
    whole: bool
    request_id: str


class Reader:
    """Reads parts of screens; remembers of the catalogue what is shown while nobody answers."""

    def __init__(self, client: AsyncRecommender, size: int, reasons_s: float) -> None:
        self._client = client
        self._size = size
        self._reasons_s = reasons_s
        self._top: tuple[Movie, ...] = ()
        self._top_until_s = 0.0
        self._offer = Offer()
        self._offer_until_s = 0.0

    async def listed(self, user_id: str, choice: Choice) -> Listed:
        """Reads a person's list; from memory, where no service answers."""
        try:
            found = await self._client.recommend(user_id, k=self._size, **choice.filters())
        except InvalidRequest as error:
            return Listed((), (sentences.trouble(error),), personal=False, whole=True, request_id="")
        except MarqueeError as error:
            return self._remembered(choice, error)
        notices = tuple(sentences.about(found, self._size))
        movies = tuple(item.movie for item in found)
        return Listed(movies, notices, _personal(found), not found.degraded, found.request_id)

    async def keep_top(self) -> None:
        """Keeps the most watched films in memory, for when no service answers."""
        if time.monotonic() < self._top_until_s:
            return
        try:
            self._top = await self._client.top(k=_TOP)
        except MarqueeError:
            return
        self._top_until_s = time.monotonic() + _TOP_FRESH_S

    async def offer(self) -> Offer:
        """Reads what can be filtered by; the last that was read, where that was a moment ago or cannot be read now."""
        if time.monotonic() < self._offer_until_s:
            return self._offer
        try:
            facets = await self._client.facets()
        except MarqueeError:
            return self._offer
        self._offer = Offer(
            genres=tuple(Option(one.value, one.value, one.movies) for one in facets.genres),
            decades=tuple(Option(one.value, f"{one.value}s", one.movies) for one in facets.decades),
            languages=tuple(Option(one.value, words.language(one.value), one.movies) for one in facets.languages),
        )
        self._offer_until_s = time.monotonic() + _OFFER_FRESH_S
        return self._offer

    async def stated(self, user_id: str) -> Mapping[int, Stated]:
        """Reads a person's newest opinions; none where they cannot be read: the list says that already."""
        try:
            return await self.history(user_id) if user_id else {}
        except MarqueeError:
            return {}

    async def history(self, user_id: str) -> Mapping[int, Stated]:
        """Reads a person's newest opinions, newest first; raises what the SDK raises, but for somebody new."""
        events: list[Event] = []
        try:
            async for event in self._client.history(user_id):
                events.append(event)
                if len(events) == _EVENTS:
                    break
        except UserUnknown:
            return {}
        return opinions(events)

    async def titles(self, text: str, limit: int) -> list[Movie]:
        """Reads films by what is typed of a title; raises what the SDK raises."""
        return [movie async for movie in self._client.search(text, limit=limit)]

    async def movies(self, movie_ids: Iterable[int]) -> dict[int, Movie]:
        """Reads films; those that there are no more are left out."""
        found = await self._client.movies(list(movie_ids))
        return {movie.movie_id: movie for movie in found if movie is not None}

    async def because(self, user_id: str, movies: Sequence[Movie], stated: Mapping[int, Stated]) -> dict[int, str]:
        """Says of each film which opinion brought it into the list, where one did and that is known in time."""
        if not any(good(stated)) or not movies:
            return {}
        try:
            explained = await self._client.explain(
                user_id, [movie.movie_id for movie in movies[:_EXPLAINED]], deadline_s=self._reasons_s
            )
            causes = {one.movie_id: _cause(one, stated) for one in explained}
            titles = await self.movies({cause for cause in causes.values() if cause is not None})
        except MarqueeError:
            return {}
        return {
            movie_id: sentences.because(stated[cause].opinion, titles[cause].title)
            for movie_id, cause in causes.items()
            if cause is not None and cause in titles
        }

    async def reasons(self, user_id: str, movie_id: int) -> tuple[Reason, ...]:
        """Reads what speaks for and against a film, the strongest first; nothing where nothing is known."""
        try:
            explained = await self._client.explain(user_id, [movie_id])
            moving = [one for movie in explained for one in movie.contributions if abs(one.effect) > _NOTHING]
            movies = await self.movies({one.event.movie_id for one in moving})
        except MarqueeError:
            return ()
        reasons = [
            Reason(movies[one.event.movie_id], sentences.did(one.event), one.effect)
            for one in moving
            if one.event.movie_id in movies
        ]
        return tuple(sorted(reasons, key=lambda reason: -abs(reason.weight)))

    async def shelves(self, listed: Listed, choice: Choice, stated: Mapping[int, Stated]) -> tuple[Shelf, ...]:
        """Reads what is like the films that were liked last, without what is in the list."""
        seeds = [movie_id for movie_id, _ in zip(good(stated), range(_SHELVES), strict=False)]
        if not seeds:
            return ()
        known = [*stated, *(movie.movie_id for movie in listed.movies)]
        try:
            titles, rows = await asyncio.gather(
                self.movies(seeds), asyncio.gather(*(self._similar(seed, choice, known) for seed in seeds))
            )
        except MarqueeError:
            return ()
        return tuple(
            Shelf(sentences.because(stated[seed].opinion, titles[seed].title), cards(row, stated))
            for seed, row in zip(seeds, rows, strict=True)
            if seed in titles and row
        )

    async def similar(self, movie_id: int) -> tuple[Movie, ...]:
        """Reads what is like a film; nothing where the index does not have it."""
        try:
            return await self._similar(movie_id, Choice(), ())
        except MarqueeError:
            return ()

    async def _similar(self, movie_id: int, choice: Choice, known: Sequence[int]) -> tuple[Movie, ...]:
        filters: Filters = {**choice.filters(), "exclude": known}
        found = await self._client.similar([movie_id], k=_SHELF, **filters)
        return tuple(item.movie for item in found)

    def _remembered(self, choice: Choice, error: MarqueeError) -> Listed:
        movies = tuple(movie for movie in self._top if choice.lets_through(movie))[: self._size]
        notice = sentences.remembered(error) if movies else sentences.trouble(error)
        return Listed(movies, (notice,), personal=False, whole=False, request_id="")


def cards(
    movies: Sequence[Movie], stated: Mapping[int, Stated], reasons: Mapping[int, str] | None = None
) -> tuple[Card, ...]:
    """Makes a card of each film, in order."""
    told = reasons or {}
    return tuple(
        Card(movie, rank, _opinion(stated, movie.movie_id), told.get(movie.movie_id, ""))
        for rank, movie in enumerate(movies, 1)
    )


def card(movie: Movie, stated: Mapping[int, Stated]) -> Card:
    """Makes the card of a film that is in no list."""
    return Card(movie, opinion=_opinion(stated, movie.movie_id))


def _opinion(stated: Mapping[int, Stated], movie_id: int) -> Opinion | None:
    one = stated.get(movie_id)
    return None if one is None else one.opinion


def _personal(found: Recommendations) -> bool:
    return found.source not in (FeatureSource.COLD_START, FeatureSource.TOP_MOVIES)


def _cause(movie: ExplainedMovie, stated: Mapping[int, Stated]) -> int | None:
    """Finds the film whose good opinion speaks most for another."""
    for one in movie.contributions:
        opinion = stated.get(one.event.movie_id)
        if one.effect > _NOTHING and opinion is not None and opinion.opinion.good:
            return one.event.movie_id
    return None
