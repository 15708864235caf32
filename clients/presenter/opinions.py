"""From a person's events to the one opinion that they have of each film, and back."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from clients.presenter.views import Opinion, Verdict
from marquee.client import Event, EventKind

_VERDICTS = {
    EventKind.LIKED: Verdict.LIKED,
    EventKind.DISLIKED: Verdict.DISLIKED,
    EventKind.NOT_INTERESTED: Verdict.DISLIKED,
    EventKind.RATED: Verdict.RATED,
}
_KINDS = {
    Verdict.LIKED: EventKind.LIKED,
    Verdict.DISLIKED: EventKind.DISLIKED,
    Verdict.RATED: EventKind.RATED,
}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)


class Stated(NamedTuple):
    """Is an opinion and when it was stated."""

    opinion: Opinion
    time: dt.datetime | None


def opinions(events: Iterable[Event]) -> dict[int, Stated]:
    """Reads the newest opinion of each film from events that come newest first; the order stays."""
    found: dict[int, Stated] = {}
    for event in events:
        verdict = _VERDICTS.get(event.kind)
        if verdict is not None and event.movie_id not in found:
            found[event.movie_id] = Stated(Opinion(verdict, event.stars), event.time)
    return found


def good(stated: Mapping[int, Stated]) -> Iterator[int]:
    """Yields the films that are well thought of, in the order of the opinions."""
    return (movie_id for movie_id, one in stated.items() if one.opinion.good)


class Clock:
    """Tells times that are milliseconds apart: what is said later counts, however fast it follows."""

    def __init__(self) -> None:
        self._last_ms = 0

    def events(self, movie_id: int, opinion: Opinion | None) -> list[Event]:
        """Writes the events that make this the only opinion of a film; None takes all of it back."""
        # Room for the retraction before the event, which must not fall on the last event's time.
        self._last_ms = max(time.time_ns() // 1_000_000, self._last_ms + 2)
        now = _EPOCH + self._last_ms * _MILLISECOND
        if opinion is None:
            return [Event(movie_id, EventKind.RETRACTED, time=now)]
        # A like and a dislike are kinds of their own: without the retraction, both would count.
        before = Event(movie_id, EventKind.RETRACTED, time=now - _MILLISECOND)
        return [before, Event(movie_id, _KINDS[opinion.verdict], opinion.stars, now)]
