"""What a person says of films, on its way to the services."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from clients.desktop.bridge import Bridge
from clients.presenter import Mood, Opinion, Presenter, Told, Verdict

_SLOT = "say"


class _Word(NamedTuple):
    opinion: Opinion | None
    led_by: str


class Voice:
    """Passes on the newest that a person said of each film, one film after the other.

    However fast somebody clicks, one call is on its way and one word a film waits. While a service is away words wait
    until `again`.
    """

    def __init__(self, bridge: Bridge, presenter: Presenter, user_id: str, heard: Callable[[int, Told], None]) -> None:
        self._bridge = bridge
        self._presenter = presenter
        self._user_id = user_id
        self._heard = heard
        self._waiting: dict[int, _Word] = {}
        self._held = False

    @property
    def quiet(self) -> bool:
        """Says whether everything that was said has been heard."""
        return not self._waiting and not self._bridge.awaits(_SLOT)

    def say(self, movie_id: int, opinion: Opinion | None, led_by: str) -> None:
        """Says an opinion of a film, None taking back; `led_by` is the request_id of the screen it was said on."""
        self._waiting[movie_id] = _Word(opinion, led_by)
        if not self._held and not self._bridge.awaits(_SLOT):
            self._next()

    def again(self) -> None:
        """Says again what could not be heard."""
        self._held = False
        if self._waiting and not self._bridge.awaits(_SLOT):
            self._next()

    def _next(self) -> None:
        movie_id = next(iter(self._waiting))
        word = self._waiting.pop(movie_id)
        self._bridge.ask(_SLOT, self._call(movie_id, word), lambda told: self._done(movie_id, word, told))

    def _call(self, movie_id: int, word: _Word) -> Coroutine[Any, Any, Told]:
        match word.opinion:
            case None:
                return self._presenter.take_back(self._user_id, movie_id, word.led_by)
            case Opinion(Verdict.LIKED):
                return self._presenter.like(self._user_id, movie_id, word.led_by)
            case Opinion(Verdict.DISLIKED):
                return self._presenter.dislike(self._user_id, movie_id, word.led_by)
            case opinion:
                return self._presenter.rate(self._user_id, movie_id, opinion.stars or 0.0, word.led_by)

    def _done(self, movie_id: int, word: _Word, told: Told) -> None:
        if not told.done and told.notice.mood is Mood.AWAY:
            # A newer word of the same film counts instead.
            self._waiting.setdefault(movie_id, word)
            self._held = True
        elif self._waiting:
            self._next()
        self._heard(movie_id, told)
