"""What a screen shows, as frozen values; every text in them is ready to be read."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable
from dataclasses import dataclass

from clients.presenter import words
from clients.presenter.choice import Choice
from marquee.client import Movie


class Mood(enum.Enum):
    """Says how a notice is meant: a hint, a service that is away, or an order that was not followed."""

    HINT = "hint"
    AWAY = "away"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Notice:
    """Is a sentence to the person, in place or above the list. `detail` is what an operator wants to know, or empty."""

    mood: Mood
    text: str
    detail: str = ""


class Verdict(enum.Enum):
    """Says what a person thinks of a film."""

    LIKED = "liked"
    DISLIKED = "disliked"
    RATED = "rated"


@dataclass(frozen=True, slots=True)
class Opinion:
    """Is the one opinion that a person has of a film; `stars`, 0.5 to 5, where they rated it."""

    verdict: Verdict
    stars: float | None = None

    @property
    def good(self) -> bool:
        """Says whether it speaks for the film."""
        return self.verdict is Verdict.LIKED or (self.stars or 0.0) >= words.GOOD_STARS

    def __str__(self) -> str:
        match self.verdict:
            case Verdict.LIKED:
                return "You like it"
            case Verdict.DISLIKED:
                return "You do not like it"
            case Verdict.RATED:
                return f"You gave it {words.stars(self.stars or 0.0)}"


@dataclass(frozen=True, slots=True)
class Card:
    """Is one film on a screen: what the person thinks of it, and why it is there. `rank` counts from 1; 0: no list."""

    movie: Movie
    rank: int = 0
    opinion: Opinion | None = None
    reason: str = ""

    @property
    def hue(self) -> int:
        """Is the film's colour, as degrees of the colour wheel: that of its most telling genre."""
        return words.hue(self.movie.genres)

    @property
    def line(self) -> str:
        """Says year and genres in a line: "1979 · Horror, Sci-Fi"."""
        return words.line(self.movie)

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Lists what is known of the film, as pairs of name and text."""
        return words.facts(self.movie)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Is a row of films under a headline: "Because you liked Alien"."""

    headline: str
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Home:
    """Is a person's first screen. `personal`: made of what they said. `whole`: nothing is away, no need to look again.

    `request_id` is to be given back with what the person does on this screen. `opinions` counts the films that they
    said something about, as far as it could be read.
    """

    choice: Choice
    cards: tuple[Card, ...]
    shelves: tuple[Shelf, ...]
    notices: tuple[Notice, ...]
    personal: bool
    whole: bool
    request_id: str
    opinions: int


@dataclass(frozen=True, slots=True)
class Found:
    """Is what was found for a title that is being typed."""

    text: str
    cards: tuple[Card, ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """Is one thing that the person said, and how much it moves a film: above 0 it speaks for the film."""

    movie: Movie
    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Film:
    """Is a film's own screen; `card` is None where there is no such film, or nobody who could say."""

    card: Card | None
    reasons: tuple[Reason, ...]
    similar: Shelf
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """Is a line of a history: the film, the opinion, and when it was said."""

    card: Card
    time: dt.datetime | None


@dataclass(frozen=True, slots=True)
class History:
    """Is what a person said, newest first; `total` counts also what is not among `lines`."""

    lines: tuple[Said, ...]
    total: int
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """Is one value to filter by: what to send, what to read, and how many films have it."""

    value: str
    label: str
    films: int


@dataclass(frozen=True, slots=True)
class Offer:
    """Is what can be chosen, the largest first; decades by time. Empty where nobody can say."""

    genres: tuple[Option, ...] = ()
    decades: tuple[Option, ...] = ()
    languages: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """Is what became of something that a person did: a sentence, and whether it was done."""

    done: bool
    notice: Notice


@dataclass(frozen=True, slots=True)
class Changes:
    """Says how a list differs from the one before: ids that are new in it, ids that left it."""

    new: frozenset[int]
    gone: frozenset[int]

    def __str__(self) -> str:
        match len(self.new):
            case 0:
                return "Your list stays as it is."
            case 1:
                return "1 film is new in your list."
            case count:
                return f"{count} films are new in your list."


def changes(before: Iterable[int], cards: Iterable[Card]) -> Changes:
    """Compares the ids that were shown before with a list."""
    was, now = frozenset(before), frozenset(card.movie.movie_id for card in cards)
    return Changes(now - was, was - now)
