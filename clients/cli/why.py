"""Why a person is, or is not, shown a movie."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from clients.cli import output
from clients.cli.arguments import filters_of
from clients.cli.naming import is_id, movie
from marquee.client import (
    Contribution,
    Event,
    FeatureSource,
    Filters,
    Movie,
    MovieUnknown,
    PermissionDenied,
    Recommendations,
    Recommender,
    UserUnknown,
)

# As many as one list can have.
_MOST = 1_000
# Events that are shown of those that explain.
_EFFECTS = 8
# Scores are rounded to this on the way.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Why:
    """Is all that decides whether a person is shown a movie.

    `seen`: it is among what they have seen; `events`: theirs on it, for who may read their history. `known`: the model
    knows it. `blocked`: the services' block list has it. `dropped_by`: the filters that it does not pass. `score`: the
    cosine, None where the movie cannot be found at all. `rank`: its place among what may be shown, and for a movie that
    they have seen among seen ones as well; None beyond 1,000. `among`: how many those are. `contributions`: what the
    person's events do for it, what speaks most for it first.
    """

    user: str
    movie: Movie
    verdict: str
    seen: bool
    events: tuple[Event, ...]
    known: bool
    blocked: bool
    dropped_by: tuple[str, ...]
    score: float | None
    rank: int | None
    among: int
    source: FeatureSource
    contributions: tuple[Contribution, ...]


def why(marquee: Recommender, options: Namespace) -> str:
    """Says why a person is, or is not, shown a movie."""
    found = look(marquee, options.user, _film(marquee, options.movie), options.k, filters_of(options))
    if options.json:
        return output.as_json(found)
    named = marquee.movies(sorted({one.event.movie_id for one in found.contributions}))
    return _text(found, {one.movie_id: one for one in named if one is not None})


def _film(marquee: Recommender, text: str) -> Movie:
    """Finds the movie that a text means; of one that the block list hides there is no more than the id."""
    try:
        return movie(marquee, text)
    except MovieUnknown:
        hidden = Movie(int(text), "") if is_id(text) else None
        if hidden is None or not _is_known(marquee, hidden):
            raise
        return hidden


def _text(found: Why, names: Mapping[int, Movie]) -> str:
    told = [
        ("seen", "yes" if found.seen else "no"),
        ("did", ", ".join(f"{output.did(event)} on {output.when(event)}" for event in found.events)),
        ("known to the model", "yes" if found.known else "no"),
        ("blocked", "yes" if found.blocked else "no"),
        ("filtered out by", ", ".join(found.dropped_by) or "nothing"),
        ("score", output.score_text(found.score)),
        ("rank", "–" if found.rank is None else f"{found.rank:,} of {found.among:,}"),
    ]
    title = str(found.movie) or f"movie {found.movie.movie_id}"
    head = f"{title} for {found.user}: {found.verdict}\n{output.lines(told, sys.stdout)}"
    if not found.contributions:
        return head
    return f"{head}\n\n{output.effects(found.contributions, names, _EFFECTS, sys.stdout)}"


def look(marquee: Recommender, user: str, film: Movie, k: int, filters: Filters) -> Why:
    """Finds out whether a movie is seen, blocked or filtered, where it stands, and what speaks for it."""
    alone = _alone(marquee, user, film, {})
    events = tuple(event for event in _history(marquee, user) if event.movie_id == film.movie_id)
    seen = bool(events) or (bool(alone) and not _alone(marquee, user, film, {}, exclude_seen=True))
    known = bool(alone) or _is_known(marquee, film)
    score = alone.items[0].score if alone else None
    ranked = _at_least(marquee, user, score, filters, exclude_seen=not seen)
    rank = ranked.movie_ids.index(film.movie_id) + 1 if film.movie_id in ranked.movie_ids else None
    dropped_by = _dropped_by(marquee, user, film, filters) if alone else ()
    return Why(
        user=user,
        movie=film,
        verdict=_verdict(seen, known, bool(alone), dropped_by, rank, k),
        seen=seen,
        events=events,
        known=known,
        blocked=known and not alone,
        dropped_by=dropped_by,
        score=score,
        rank=rank,
        among=ranked.debug.matching if ranked.debug else 0,
        source=ranked.source,
        contributions=_contributions(marquee, user, film) if known else (),
    )


def _verdict(seen: bool, known: bool, found: bool, dropped_by: Sequence[str], rank: int | None, k: int) -> str:
    if not known:
        return "not shown: no loaded model knows it; it gets in with the next refresh"
    if not found:
        return "not shown: the block list has it"
    if seen:
        return "not shown: they have seen it"
    if dropped_by:
        return f"not shown: it does not pass {', '.join(dropped_by)}"
    if rank is None:
        return f"not shown: more than {_MOST:,} movies are nearer to them"
    if rank > k:
        return f"not shown among {k}: {rank - 1:,} movies are nearer to them"
    return f"shown: number {rank} of {k}"


def _history(marquee: Recommender, user: str) -> Sequence[Event]:
    try:
        return list(marquee.history(user))
    except (UserUnknown, PermissionDenied):
        return ()


def _alone(
    marquee: Recommender, user: str, film: Movie, filters: Filters, *, exclude_seen: bool = False
) -> Recommendations:
    """Asks for this movie and no other."""
    only: Filters = {**filters, "only": [film.movie_id]}
    return marquee.recommend(user, k=1, exclude_seen=exclude_seen, fallback=False, **only)


def _at_least(
    marquee: Recommender, user: str, score: float | None, filters: Filters, *, exclude_seen: bool
) -> Recommendations:
    """Asks for all that is as near as the movie."""
    least = None if score is None else score - _ROUNDING
    return marquee.recommend(
        user, k=_MOST, exclude_seen=exclude_seen, min_score=least, debug=True, fallback=False, **filters
    )


def _is_known(marquee: Recommender, film: Movie) -> bool:
    try:
        marquee.similar([film.movie_id], k=1)
    except MovieUnknown:
        return False
    return True


def _dropped_by(marquee: Recommender, user: str, film: Movie, filters: Filters) -> tuple[str, ...]:
    """Names the filters that drop the movie, each asked alone."""
    given = {name: value for name, value in filters.items() if value not in (None, [], ())}
    return tuple(name for name, value in given.items() if not _alone(marquee, user, film, _one(name, value)))


def _one(name: str, value: object) -> Filters:
    return cast("Filters", {name: value})


def _contributions(marquee: Recommender, user: str, film: Movie) -> tuple[Contribution, ...]:
    try:
        told = marquee.explain(user, [film.movie_id])
    except UserUnknown:
        return ()
    return next((one.contributions for one in told), ())
