"""Runs one command: asks the services through the SDK and prints the answer."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence

from clients.cli import output
from clients.cli.arguments import filters_of, parser
from marquee.client import (
    ConfigError,
    FeatureSource,
    MarqueeError,
    Movie,
    MovieUnknown,
    RankedMovies,
    Recommender,
    ShortReason,
)

_ID = re.compile(r"\d{1,19}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[a-z]+:\S+", re.ASCII)

_SHORT = {
    ShortReason.FILTER: "fewer movies pass the filters",
    ShortReason.EXCLUDED: "what is left was seen or excluded",
    ShortReason.CATALOG: "the catalogue has no more",
    ShortReason.SCORE: "fewer movies are near enough",
    ShortReason.CAPS: "the caps leave no more",
}


def run(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name; returns the exit code.

    0: answered; 1: an error, in one sentence on stderr; 2: the arguments are wrong; 141: nobody reads the output.
    """
    top = parser(os.environ)
    options = top.parse_args(arguments)
    if options.command == "recommend" and not (options.user or options.like or options.dislike):
        top.error("recommend takes a USER, --like or --dislike")
    try:
        with Recommender(options.encoder, options.retriever, deadline_s=options.deadline) as marquee:
            text = _COMMANDS[options.command](marquee, options)
    except ConfigError as error:
        top.error(error.message)
    except MarqueeError as error:
        return _fail(error.message)
    return _write(text)


def _fail(message: str) -> int:
    _say(f"error: {' '.join(message.split())}")
    return 1


def _say(note: str) -> None:
    print(f"python -m clients.cli: {note}", file=sys.stderr)


def _write(text: str) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A title that the terminal's encoding lacks is no reason to print nothing.
        sys.stdout.reconfigure(errors="replace")
    try:
        print(text, flush=True)
    except OSError as error:
        # The interpreter flushes once more on its way out and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141 if isinstance(error, BrokenPipeError) else _fail(f"cannot write the answer: {error.strerror}")
    return 0


def _recommend(marquee: Recommender, options: argparse.Namespace) -> str:
    found = marquee.recommend(
        options.user,
        likes=[_movie_id(marquee, text) for text in options.like],
        dislikes=[_movie_id(marquee, text) for text in options.dislike],
        k=options.k,
        exclude_seen=not options.include_seen,
        **filters_of(options),
    )
    if found.degraded:
        _say("the store of people's events cannot be read now: some may be missing from this")
    if found.source is FeatureSource.COLD_START:
        _say("nothing that the model knows is known of this person; this is for anyone new")
    return _ranked(found, options)


def _similar(marquee: Recommender, options: argparse.Namespace) -> str:
    near = [_movie_id(marquee, text) for text in options.movies]
    away = [_movie_id(marquee, text) for text in options.unlike]
    return _ranked(marquee.similar(near, unlike=away, k=options.k, **filters_of(options)), options)


def _search(marquee: Recommender, options: argparse.Namespace) -> str:
    words = " ".join(options.words)
    found = list(marquee.search(words, limit=options.k))
    if options.json:
        return output.as_json(found)
    if not found:
        raise _no_match(words)
    return output.movies_table(found, sys.stdout)


def _show(marquee: Recommender, options: argparse.Namespace) -> str:
    movies = [_movie(marquee, text) for text in options.movies]
    if options.json:
        return output.as_json(movies)
    return "\n\n".join(output.movie_details(movie, sys.stdout) for movie in movies)


_COMMANDS = {"recommend": _recommend, "search": _search, "show": _show, "similar": _similar}


def _ranked(found: RankedMovies, options: argparse.Namespace) -> str:
    if len(found) < options.k:
        _say(f"{len(found)} of {options.k} movies: {_SHORT.get(found.short_reason, 'the list is short')}")
    return output.as_json(found) if options.json else output.ranked_table(found, sys.stdout)


def _movie_id(marquee: Recommender, text: str) -> int:
    return int(text) if _ID.fullmatch(text) else _movie(marquee, text).movie_id


def _movie(marquee: Recommender, text: str) -> Movie:
    """Finds the movie that a text means: an id, an external id or a title; says which, where it was a title."""
    if _ID.fullmatch(text):
        return marquee.movie(int(text))
    if _EXTERNAL_ID.fullmatch(text):
        return marquee.movie(text)
    for movie in marquee.search(text, limit=1):
        _say(f"{text!r} is {movie}, id {movie.movie_id}")
        return movie
    raise _no_match(text)


def _no_match(text: str) -> MovieUnknown:
    return MovieUnknown(f"no movie matches {text!r}; try fewer words, or look for it with search")
