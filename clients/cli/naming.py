"""Which movie a text means."""

from __future__ import annotations

import re

from clients.cli.saying import say
from marquee.client import Movie, MovieUnknown, Recommender

_ID = re.compile(r"\d{1,19}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[a-z]+:\S+", re.ASCII)


def is_id(text: str) -> bool:
    """Says whether a text is a movie's id."""
    return _ID.fullmatch(text) is not None


def movie_id(marquee: Recommender, text: str) -> int:
    """Finds the id of the movie that a text means; asks nobody where it is one."""
    return int(text) if is_id(text) else movie(marquee, text).movie_id


def movie(marquee: Recommender, text: str) -> Movie:
    """Finds the movie that a text means: an id, an external id or a title; says which, where it was a title."""
    if is_id(text):
        return marquee.movie(int(text))
    if _EXTERNAL_ID.fullmatch(text):
        return marquee.movie(text)
    for found in marquee.search(text, limit=1):
        say(f"{text!r} is {found}, id {found.movie_id}")
        return found
    raise no_match(text)


def no_match(text: str) -> MovieUnknown:
    """Says that no movie is called so."""
    return MovieUnknown(f"no movie matches {text!r}; try fewer words, or look for it with search")
