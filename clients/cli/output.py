"""From answers to text: tables to read, JSON for machines."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import io
import json
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table

from marquee.client import Movie, RankedMovies

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
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} is not JSON")


def ranked_table(ranked: RankedMovies, stream: TextIO) -> str:
    """Writes a ranked list as a table."""
    table = _table("#", "Title", "Year", "Genres", "Score", "Id")
    for item in ranked:
        rank, score = str(item.rank), "–" if item.score is None else f"{item.score:.3f}"
        table.add_row(
            rank, item.movie.title, _or_dash(item.movie.year), _list(item.movie.genres), score, _id(item.movie)
        )
    return _render(table, stream)


def movies_table(movies: Sequence[Movie], stream: TextIO) -> str:
    """Writes movies as a table."""
    table = _table("Title", "Year", "Genres", "Ratings", "Id")
    for movie in movies:
        table.add_row(movie.title, _or_dash(movie.year), _list(movie.genres), str(movie.rating_count), _id(movie))
    return _render(table, stream)


def movie_details(movie: Movie, stream: TextIO) -> str:
    """Writes all that is known about one movie."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _details(movie):
        if text:
            table.add_row(name, text)
    return f"{movie}\n{_render(table, stream)}"


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


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in ("#", "Score", "Ratings", "Id") else "left", overflow="fold")
    return table


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
