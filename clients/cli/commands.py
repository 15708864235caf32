"""The commands: each asks the services through the SDK and makes the text that is printed."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence

from clients.cli import output
from clients.cli.arguments import filters_of, options_of
from clients.cli.naming import movie, movie_id, no_match
from clients.cli.saying import say
from clients.presenter.sentences import SHORT
from marquee.client import (
    BatchResult,
    Event,
    Facet,
    FeatureSource,
    Movie,
    RankedMovies,
    Recommendations,
    Recommender,
    ReplicaState,
)
from marquee.client import arm as arm_of

# How many movies of a batch's lists stand on a line.
_SHOWN = 3


def recommend(marquee: Recommender, options: Namespace) -> str:
    """Recommends movies for a person."""
    found = marquee.recommend(
        options.user,
        likes=[movie_id(marquee, text) for text in options.like],
        dislikes=[movie_id(marquee, text) for text in options.dislike],
        k=options.k,
        exclude_seen=not options.include_seen,
        fallback=not options.no_fallback,
        debug=options.debug,
        **options_of(options),
    )
    _say_whose(found)
    return _ranked(found, options)


def _say_whose(found: Recommendations) -> None:
    if found.source is FeatureSource.TOP_MOVIES:
        say(f"this is what most people watch, and the person counts for nothing in it: {found.away}")
    elif found.degraded:
        say("the store of people's events cannot be read now: some may be missing from this")
    if found.source is FeatureSource.COLD_START:
        say("nothing that the model knows is known of this person; this is for anyone new")


def similar(marquee: Recommender, options: Namespace) -> str:
    """Finds movies like others."""
    near = [movie_id(marquee, text) for text in options.movies]
    away = [movie_id(marquee, text) for text in options.unlike]
    found = marquee.similar(near, unlike=away, k=options.k, debug=options.debug, **options_of(options))
    return _ranked(found, options)


def batch(marquee: Recommender, options: Namespace) -> str:
    """Recommends movies for many people."""
    results = list(marquee.batch(_users(options.users), k=options.k, **options_of(options)))
    if options.json:
        return output.as_json(results)
    return output.table(("User", "Best"), [(one.person.user_id, _shown(one)) for one in results], sys.stdout)


def _users(given: Sequence[str]) -> Iterator[str]:
    for user in given:
        yield from (line.rstrip("\r\n") for line in sys.stdin) if user == "-" else (user,)


def _shown(one: BatchResult) -> str:
    if one.recommendations is None:
        return f"error: {one.error}"
    titles = [str(item.movie) for item in one.recommendations.items[:_SHOWN]]
    return ", ".join([*titles, "…"] if len(one.recommendations) > _SHOWN else titles)


def top(marquee: Recommender, options: Namespace) -> str:
    """Lists the most watched movies."""
    return _movies(marquee.top(k=options.k, **filters_of(options)), options)


def search(marquee: Recommender, options: Namespace) -> str:
    """Finds movies by title."""
    words = " ".join(options.words)
    found = list(marquee.search(words, limit=options.k))
    if not found and not options.json:
        raise no_match(words)
    return _movies(found, options)


def show(marquee: Recommender, options: Namespace) -> str:
    """Shows what is known about movies."""
    movies = [movie(marquee, text) for text in options.movies]
    if options.json:
        return output.as_json(movies)
    return "\n\n".join(output.movie_details(one, sys.stdout) for one in movies)


def genres(marquee: Recommender, options: Namespace) -> str:
    """Lists the genres and their numbers of movies."""
    found = marquee.genres()
    return output.as_json(found) if options.json else _counts("Genre", found)


def facets(marquee: Recommender, options: Namespace) -> str:
    """Counts movies by genre, decade and language."""
    found = marquee.facets(**filters_of(options))
    if options.json:
        return output.as_json(found)
    tables = (("Genre", found.genres), ("Decade", found.decades), ("Language", found.languages))
    return "\n\n".join([f"{found.movies:,} movies", *(_counts(name, counted) for name, counted in tables if counted)])


def _counts(name: str, facets: Sequence[Facet]) -> str:
    return output.table((name, "Movies"), [(facet.value, f"{facet.movies:,}") for facet in facets], sys.stdout)


def history(marquee: Recommender, options: Namespace) -> str:
    """Shows what a person did."""
    events = list(marquee.history(options.user))
    if options.json:
        return output.as_json(events)
    titles = marquee.movies([event.movie_id for event in events])
    return output.events_table(list(zip(events, titles, strict=True)), sys.stdout)


def like(marquee: Recommender, options: Namespace) -> str:
    """Records that a person likes a movie."""
    marquee.like(options.user, movie_id(marquee, options.movie))
    return _done(options)


def dislike(marquee: Recommender, options: Namespace) -> str:
    """Records that a person dislikes a movie."""
    marquee.dislike(options.user, movie_id(marquee, options.movie))
    return _done(options)


def rate(marquee: Recommender, options: Namespace) -> str:
    """Records a person's rating of a movie."""
    marquee.rate(options.user, movie_id(marquee, options.movie), options.stars)
    return _done(options)


def retract(marquee: Recommender, options: Namespace) -> str:
    """Takes back all that a person did with a movie."""
    marquee.retract(options.user, movie_id(marquee, options.movie))
    return _done(options)


def _done(options: Namespace) -> str:
    return output.as_json({"recorded": 1}) if options.json else "recorded"


def forget(marquee: Recommender, options: Namespace) -> str:
    """Deletes everything about a person."""
    told = marquee.forget(options.user)
    if options.json:
        return output.as_json(told)
    what = "deleted" if told.existed else "there was nothing to delete"
    return f"{what}; events dated up to {told.deleted_at.isoformat(timespec='seconds')} are refused from now on"


def explain(marquee: Recommender, options: Namespace) -> str:
    """Shows which events speak for and against movies."""
    movies = [movie(marquee, text) for text in options.movies]
    told = marquee.explain(options.user, [one.movie_id for one in movies])
    if options.json:
        return output.as_json(told)
    names = {one.movie_id: one for one in movies} | _named(
        marquee, [one.event for row in told for one in row.contributions]
    )
    parts = [output.explained(row, names, options.events, sys.stdout) for row in told]
    return "\n\n".join([*parts, *(f"{names[unknown]}: not known to the model" for unknown in told.unknown)])


def _named(marquee: Recommender, events: Sequence[Event]) -> dict[int, Movie]:
    found = marquee.movies(sorted({event.movie_id for event in events}))
    return {one.movie_id: one for one in found if one is not None}


def arm(_: Recommender, options: Namespace) -> str:
    """Says in which arm of an experiment a person is."""
    number = arm_of(options.user, options.salt, options.arms)
    return output.as_json({"arm": number}) if options.json else str(number)


def status(marquee: Recommender, options: Namespace) -> str:
    """Shows what one replica of each service has loaded."""
    found = marquee.status()
    if options.json:
        return output.as_json(found)
    rows = [*_bundles("user_encoder", found.encoder), *_bundles("retriever", found.retriever)]
    columns = ("Service", "Role", "Space", "Bundle", "Tower", "Movies", "Loaded")
    return output.table(columns, rows, sys.stdout)


def _bundles(service: str, state: ReplicaState) -> Iterator[tuple[str, ...]]:
    for one in state.bundles:
        yield (
            service,
            one.role.name.lower(),
            one.space[:12],
            one.bundle_id[:12],
            one.tower,
            f"{one.movies:,}",
            one.loaded_at.isoformat(timespec="seconds"),
        )
    if state.reload_error:
        say(f"the {service} cannot load what is newest: {state.reload_error}")


def _movies(found: Sequence[Movie], options: Namespace) -> str:
    return output.as_json(found) if options.json else output.movies_table(found, sys.stdout)


def _ranked(found: RankedMovies, options: Namespace) -> str:
    if len(found) < options.k:
        say(f"{len(found)} of {options.k} movies: {SHORT.get(found.short_reason, 'the list is short')}")
    if found.debug is not None and not options.json:
        took = f"{found.debug.filter_us} + {found.debug.search_us} + {found.debug.finish_us} µs"
        say(f"{found.debug.matching:,} of {found.debug.candidates:,} movies match; {found.debug.path}, {took}")
    return output.as_json(found) if options.json else output.ranked_table(found, sys.stdout)
