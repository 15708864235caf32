"""What a person can look at and do: every client shows these screens and passes these intents on."""

from __future__ import annotations

import asyncio
import unicodedata
from typing import Final

from clients.presenter import sentences
from clients.presenter.choice import Choice
from clients.presenter.opinions import Clock
from clients.presenter.reading import Reader, card, cards
from clients.presenter.views import (
    Card,
    Film,
    Found,
    History,
    Home,
    Mood,
    Notice,
    Offer,
    Opinion,
    Said,
    Shelf,
    Told,
    Verdict,
)
from marquee.client import AsyncRecommender, MarqueeError

# Characters of a title; the services take 1,024 bytes, which is four of the longest characters each.
LONGEST_TITLE: Final = 200
EVERYTHING: Final = Choice()
STARS: Final = tuple(halves / 2 for halves in range(1, 11))
_LINES = 200


class Presenter:
    """Presents the services to people. One is enough for many people, and for all that they do at the same time.

    `size` is the length of a person's list, at most 100. Why a film is in it is told where Explain says so within
    `reasons_s` seconds: the list is not kept waiting for longer.
    """

    def __init__(self, client: AsyncRecommender, *, size: int = 24, reasons_s: float = 0.1) -> None:
        self._client = client
        self._reader = Reader(client, size, reasons_s)
        self._clock = Clock()

    async def home(self, user_id: str, choice: Choice = EVERYTHING) -> Home:
        """Shows a person's list, why each film is in it, and what is like the films that they liked last."""
        reader = self._reader
        listed, stated, _ = await asyncio.gather(
            reader.listed(user_id, choice), reader.stated(user_id), reader.keep_top()
        )
        known = stated if listed.personal else {}
        reasons, shelves = await asyncio.gather(
            reader.because(user_id, listed.movies, known), reader.shelves(listed, choice, known)
        )
        return Home(
            choice=choice,
            cards=cards(listed.movies, stated, reasons),
            shelves=shelves,
            notices=listed.notices,
            personal=listed.personal,
            whole=listed.whole,
            request_id=listed.request_id,
            opinions=len(stated),
        )

    async def typed(self, text: str, user_id: str = "", limit: int = 8) -> Found:
        """Finds films by what is typed of a title; where a person is named, with what they think of each."""
        text = readable(text)
        if not text:
            return Found(text, (), ())
        try:
            movies, stated = await asyncio.gather(self._reader.titles(text, limit), self._reader.stated(user_id))
        except MarqueeError as error:
            return Found(text, (), (sentences.trouble(error),))
        return Found(text, cards(movies, stated), () if movies else (sentences.nothing_found(text),))

    async def film(self, user_id: str, movie_id: int) -> Film:
        """Shows one film: what is known of it, what speaks for and against it for this person, and what is like it."""
        reader = self._reader
        try:
            movie, stated, similar, reasons = await asyncio.gather(
                self._client.movie(movie_id),
                reader.stated(user_id),
                reader.similar(movie_id),
                reader.reasons(user_id, movie_id),
            )
        except MarqueeError as error:
            return Film(None, (), Shelf("", ()), (sentences.trouble(error),))
        return Film(card(movie, stated), reasons, Shelf(f"Similar to {movie.title}", cards(similar, stated)), ())

    async def history(self, user_id: str) -> History:
        """Shows what a person said lately, newest first."""
        try:
            stated = await self._reader.history(user_id)
            movies = await self._reader.movies(list(stated)[:_LINES])
        except MarqueeError as error:
            return History((), 0, (sentences.trouble(error),))
        lines = tuple(
            Said(Card(movies[movie_id], opinion=one.opinion), one.time)
            for movie_id, one in stated.items()
            if movie_id in movies
        )
        return History(lines, len(stated), ())

    async def offer(self) -> Offer:
        """Lists what can be filtered by."""
        return await self._reader.offer()

    async def like(self, user_id: str, movie_id: int, led_by: str = "") -> Told:
        """Notes that a person likes a film; `led_by` is the request_id of the screen that they said it on."""
        return await self._say(user_id, movie_id, Opinion(Verdict.LIKED), led_by)

    async def dislike(self, user_id: str, movie_id: int, led_by: str = "") -> Told:
        """Notes that a person does not like a film."""
        return await self._say(user_id, movie_id, Opinion(Verdict.DISLIKED), led_by)

    async def rate(self, user_id: str, movie_id: int, stars: float, led_by: str = "") -> Told:
        """Notes a person's rating of a film, 0.5 to 5 stars in halves."""
        if stars not in STARS:
            return Told(False, Notice(Mood.REFUSED, "Rate a film with 0.5 to 5 stars, in halves."))
        return await self._say(user_id, movie_id, Opinion(Verdict.RATED, stars), led_by)

    async def take_back(self, user_id: str, movie_id: int, led_by: str = "") -> Told:
        """Takes back all that a person said about a film."""
        return await self._say(user_id, movie_id, None, led_by)

    async def forget(self, user_id: str) -> Told:
        """Deletes everything about a person, for good."""
        try:
            await self._client.forget(user_id)
        except MarqueeError as error:
            return Told(False, sentences.trouble(error))
        return Told(True, Notice(Mood.HINT, "Everything that you said is deleted."))

    async def _say(self, user_id: str, movie_id: int, opinion: Opinion | None, led_by: str) -> Told:
        try:
            # The store takes events of any film; a person can only mean one that there is.
            movie = await self._client.movie(movie_id)
            recorded = await self._client.record(user_id, self._clock.events(movie_id, opinion), request_id=led_by)
        except MarqueeError as error:
            return Told(False, sentences.trouble(error))
        for failure in recorded.failures:
            return Told(False, sentences.trouble(failure.error))
        return Told(True, Notice(Mood.HINT, sentences.said(opinion, movie.title)))


def readable(text: str) -> str:
    """Makes of anything typed a title that can be looked for: no control characters, one space between words, short."""
    kept = "".join(" " if unicodedata.category(character) in ("Cc", "Cs") else character for character in text)
    return " ".join(kept.split())[:LONGEST_TITLE]
