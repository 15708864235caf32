"""From answers to text: tables to read, JSON for machines."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table

from marquee.client import Contribution, Event, ExplainedMovie, MarqueeError, Movie, RankedMovies

# Columns that stand on the right.
_NUMBERS = ("#", "Score", "Ratings", "Id", "Movies", "Effect", "Generation")
# A pipe or a file has no width: rows stay whole, however long a title is.
_UNBOUNDED = 10_000


def as_json(value: object) -> str:
    """Writes an answer as one JSON document, in ASCII, so that no encoding of the terminal can harm it."""
    return json.dumps(value, default=_plain, indent=2)


def _plain(value: object) -> object:
    match value:
        case enum.Enum():
            return value.name.lower()
        case dt.date():
            return value.isoformat()
        case MarqueeError():
            return {"reason": value.reason, "message": value.message}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} is not JSON")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], stream: TextIO) -> str:
    """Writes rows under the names of their columns."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return _render(made, stream)


def ranked_table(ranked: RankedMovies, stream: TextIO) -> str:
    """Writes a ranked list as a table."""
    rows = [
        (
            str(item.rank),
            item.movie.title,
            _or_dash(item.movie.year),
            _list(item.movie.genres),
            score_text(item.score),
            _id(item.movie),
        )
        for item in ranked
    ]
    return table(("#", "Title", "Year", "Genres", "Score", "Id"), rows, stream)


def movies_table(movies: Sequence[Movie], stream: TextIO) -> str:
    """Writes movies as a table."""
    rows = [
        (movie.title, _or_dash(movie.year), _list(movie.genres), str(movie.rating_count), _id(movie))
        for movie in movies
    ]
    return table(("Title", "Year", "Genres", "Ratings", "Id"), rows, stream)


def events_table(events: Sequence[tuple[Event, Movie | None]], stream: TextIO) -> str:
    """Writes events, each with its movie where that is known, as a table."""
    rows = [(when(event), did(event), _named(event.movie_id, movie), str(event.movie_id)) for event, movie in events]
    return table(("When", "What", "Movie", "Id"), rows, stream)


def explained(row: ExplainedMovie, names: Mapping[int, Movie], most: int, stream: TextIO) -> str:
    """Writes a movie's score, and the events that say most about it."""
    head = f"{_named(row.movie_id, names.get(row.movie_id))}: score {row.score:.3f}"
    return f"{head}\n{effects(row.contributions, names, most, stream)}" if row.contributions else head


def effects(told: Iterable[Contribution], names: Mapping[int, Movie], most: int, stream: TextIO) -> str:
    """Writes what events do for a movie, those that do most, as a table."""
    strongest = sorted(told, key=lambda one: -abs(one.effect))[:most]
    rows = [
        (
            f"{one.effect:+.4f}",
            did(one.event),
            _named(one.event.movie_id, names.get(one.event.movie_id)),
            when(one.event),
        )
        for one in strongest
    ]
    return table(("Effect", "What", "Movie", "When"), rows, stream)


def when(event: Event) -> str:
    """Writes when an event happened, in UTC."""
    return "–" if event.time is None else event.time.strftime("%Y-%m-%d %H:%M")


def did(event: Event) -> str:
    """Writes what somebody did."""
    told = event.kind.name.lower().replace("_", " ")
    return told if event.stars is None else f"{told} {event.stars:g}"


def _named(movie_id: int, movie: Movie | None) -> str:
    return f"movie {movie_id}" if movie is None else str(movie)


def score_text(score: float | None) -> str:
    """Writes a score."""
    return "–" if score is None else f"{score:.3f}"


def movie_details(movie: Movie, stream: TextIO) -> str:
    """Writes all that is known about one movie."""
    return f"{movie}\n{lines(_details(movie), stream)}"


def lines(named: Iterable[tuple[str, str]], stream: TextIO) -> str:
    """Writes what is known, a line each; what is not known is left out."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, text in named:
        if text:
            made.add_row(name, text)
    return _render(made, stream)


def _details(movie: Movie) -> Iterable[tuple[str, str]]:
    yield "id", _id(movie)
    yield "external id", movie.external_id or ""
    yield "genres", _list(movie.genres)
    yield "language", movie.language or ""
    yield "released", movie.release_date.isoformat() if movie.release_date else ""
    yield "runtime", f"{movie.runtime_minutes} min" if movie.runtime_minutes else ""
    yield "directors", _list(movie.directors)
    yield "cast", _list(movie.cast)
    yield (
        "ratings",
        "" if movie.mean_rating is None else f"{movie.mean_rating:.2f} stars, {movie.rating_count:,} ratings",
    )


def _render(renderable: RenderableType, stream: TextIO) -> str:
    goal = Console(file=stream)
    # Rendered to memory: rich would write to a stream that is full or closed, out of reach of who handles that.
    console = Console(
        file=io.StringIO(),
        force_terminal=goal.is_terminal,
        width=goal.width if goal.is_terminal else _UNBOUNDED,
        # Titles are text: as markup, "[REC]" would vanish.
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _id(movie: Movie) -> str:
    return str(movie.movie_id)


def _list(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _or_dash(value: object) -> str:
    return "–" if value is None else str(value)
