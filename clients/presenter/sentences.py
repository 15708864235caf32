"""What to tell a person when a list is not what it could be, or something failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from clients.presenter import words
from clients.presenter.views import Mood, Notice, Opinion, Verdict
from marquee.client import (
    DeadlineExceeded,
    Event,
    EventKind,
    FeatureSource,
    InvalidRequest,
    MarqueeError,
    MovieUnknown,
    RankedMovies,
    Recommendations,
    ShortReason,
    StoreUnavailable,
    Unavailable,
)

# Why a list is short, as the end of a sentence.
SHORT: Final = {
    ShortReason.FILTER: "no more pass the filters",
    ShortReason.EXCLUDED: "what is left was seen or excluded",
    ShortReason.CATALOG: "there are no more",
    ShortReason.SCORE: "no others are near enough",
    ShortReason.CAPS: "the caps leave no more",
}
_EMPTY = {
    ShortReason.FILTER: "No film passes your filters. Take one away.",
    ShortReason.EXCLUDED: "You know every film that is left. Take a filter away.",
}


_DID = {
    EventKind.LIKED: "you like it",
    EventKind.DISLIKED: "you do not like it",
    EventKind.NOT_INTERESTED: "you did not want to see it",
    EventKind.WATCHED: "you watched it",
    EventKind.CLICKED: "you looked at it",
    EventKind.WATCHLISTED: "you want to watch it",
}


def trouble(error: MarqueeError) -> Notice:
    """Says that something failed, and what happens next; the error's own words are for the operator."""
    match error:
        case DeadlineExceeded():
            text = "The answer takes too long. Try again in a moment."
        case StoreUnavailable():
            text = "What you said cannot be read or saved right now. Try again in a moment."
        case Unavailable():
            text = "The film service is away right now. It is looked for again by itself."
        case MovieUnknown():
            return Notice(Mood.REFUSED, "There is no such film.", error.message)
        case InvalidRequest():
            return Notice(Mood.REFUSED, f"That cannot be done: {error.message}", error.message)
        case _:
            text = "The film service cannot answer this. Its operator has to look at it."
    return Notice(Mood.AWAY, text, error.message)


def about(found: Recommendations, wanted: int) -> Iterator[Notice]:
    """Yields what a person is to know of a list that was found for them."""
    if found.source is FeatureSource.TOP_MOVIES:
        yield Notice(
            Mood.AWAY,
            "Personal recommendations are away right now. Until they are back, this is what most people watch.",
            found.away.message if found.away else "",
        )
    elif found.degraded:
        yield Notice(Mood.AWAY, "What you said lately cannot be read right now, so this list may lack some of it.")
    elif found.source is FeatureSource.COLD_START:
        yield Notice(Mood.HINT, "This is what most people watch. Like a few films, and it becomes your list.")
    yield from short(found, wanted)


def short(found: RankedMovies, wanted: int) -> Iterator[Notice]:
    """Yields why a list is shorter than what was wanted, where it is."""
    if len(found) >= wanted:
        return
    if not found.items:
        yield Notice(Mood.HINT, _EMPTY.get(found.short_reason, "No film is left to show."))
    elif found.short_reason in SHORT:
        yield Notice(Mood.HINT, f"Only {words.count(len(found), 'film')}: {SHORT[found.short_reason]}.")


def remembered(error: MarqueeError) -> Notice:
    """Says that a list is from memory because no service answers."""
    return Notice(
        Mood.AWAY,
        "The film service is away right now. Until it is back, this is what most people watched before.",
        error.message,
    )


def nothing_found(text: str) -> Notice:
    """Says that no title is like what was typed."""
    return Notice(Mood.HINT, f"No film is called “{text}”. Try fewer or other words.")


def because(opinion: Opinion, title: str) -> str:
    """Says which opinion brought a film into a list."""
    if opinion.verdict is Verdict.RATED:
        return f"Because you gave {title} {words.stars(opinion.stars or 0.0)}"
    return f"Because you liked {title}"


def did(event: Event) -> str:
    """Says what a person did, as a reason: "you liked it"."""
    if event.kind is EventKind.RATED:
        return f"you gave it {words.stars(event.stars or 0.0)}"
    return _DID.get(event.kind, "you know it")


def said(opinion: Opinion | None, title: str) -> str:
    """Says what was noted."""
    match opinion:
        case None:
            return f"Taken back: you say nothing about {title} any more."
        case Opinion(Verdict.LIKED):
            return f"Noted: you like {title}."
        case Opinion(Verdict.DISLIKED):
            return f"Noted: you do not like {title}."
        case _:
            return f"Noted: you gave {title} {words.stars(opinion.stars or 0.0)}."
