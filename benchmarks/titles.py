"""How fast titles are found while they are typed, and how often in spite of a typing error: in this process."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee.bundle.catalog import Catalog, write_catalog
from marquee.movies import MovieRecord
from training.data import load_dataset

_TITLES = 60_000
_ASKED = 500
_SHOWN = 5
_SEED = 20
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def measure(work: Work) -> list[Row]:
    """Searches the titles of the data, and 60,000 of which most are put together from their parts."""
    given = load_dataset(work.data).movies
    rows: list[Row] = []
    for movies in (given, recombined(given, _TITLES, seed=_SEED)):
        say(f"searching {len(movies):,} titles")
        path = work.folder / f"titles-{len(movies)}.sqlite"
        write_catalog(path, movies)
        with Catalog(path) as catalog:
            rows += _search(catalog, movies)
        rows.append(Row("titles", f"catalogue of {len(movies):,} titles", path.stat().st_size / 1e6, "MB", None, ""))
    return rows


class _Asked(NamedTuple):
    found: bool
    ms: float


def _search(catalog: Catalog, movies: Sequence[MovieRecord]) -> Iterator[Row]:
    rng = random.Random(_SEED)
    chosen = rng.sample(movies, min(_ASKED, len(movies)))
    whole = [_ask(catalog, movie, movie.title) for movie in chosen]
    edited = [_ask(catalog, movie, one_edit(movie.title, rng)) for movie in chosen]
    # A letter of each title, and all before it.
    typed = [_ask(catalog, movie, movie.title[: rng.randint(1, len(movie.title))]) for movie in chosen]
    of = f"of {len(movies):,} titles"
    yield _share(f"whole {of} in the first {_SHOWN}", whole, None)
    yield _share(f"{of} with one random edit in the first {_SHOWN}", edited, 90.0)
    for name, asked in (("whole", whole), ("with one random edit", edited), ("typed up to a letter", typed)):
        times = sorted(each.ms for each in asked)
        yield Row(
            "titles", f"p99 {of}, {name}", _quantile(times, 0.99), "ms", 5.0, f"p50 {_quantile(times, 0.5):.2f} ms"
        )


def _ask(catalog: Catalog, movie: MovieRecord, query: str) -> _Asked:
    started = time.perf_counter()
    found = catalog.search(query, limit=10)
    ms = 1000 * (time.perf_counter() - started)
    return _Asked(movie.movie_id in [one.movie_id for one in found[:_SHOWN]], ms)


def _share(measured: str, asked: Sequence[_Asked], goal: float | None) -> Row:
    share = 100 * sum(each.found for each in asked) / len(asked)
    return Row("titles", measured, share, "%", goal, f"{len(asked)} titles", at_least=True)


def _quantile(ascending: Sequence[float], part: float) -> float:
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))]


def recombined(movies: Iterable[MovieRecord], count: int, *, seed: int) -> list[MovieRecord]:
    """Adds movies until there are `count`: the beginning of one title, the end of another, ratings by a power law."""
    rng = random.Random(seed)
    made = list(movies)
    words = [movie.title.split() for movie in made]
    titles = {movie.title for movie in made}
    following = max(movie.movie_id for movie in made)
    while len(made) < count:
        start, end = rng.choice(words), rng.choice(words)
        title = " ".join(start[: rng.randint(1, len(start))] + end[rng.randint(0, len(end) - 1) :])
        if title not in titles:
            titles.add(title)
            following += 1
            made.append(
                MovieRecord(following, title, rng.randint(1920, 2020), rating_count=int(rng.paretovariate(0.6)))
            )
    return made


def one_edit(title: str, rng: random.Random) -> str:
    """Makes a typing error: a letter too many, too few or another one, or two swapped."""
    while True:
        at, letter = rng.randrange(len(title)), rng.choice(_LETTERS)
        start, end = title[:at], title[at:]
        edits = (start + letter + end, start + end[1:], start + letter + end[1:], start + end[1:2] + end[:1] + end[2:])
        edited = rng.choice(edits)
        if edited != title:
            return edited
