"""Who asks, and for what: people and events as a MovieLens folder has them, ids that were given, or people made up."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from marquee.errors import DataError

# So many requests of a kind are written beforehand, and sent in turn.
POOL = 1_000
# A file of millions of ratings is in the order of people: its beginning has people enough.
_ROWS = 1_000_000
# Half of those made up have a history shorter than this; MovieLens' middle person has 70 events.
_MEDIAN_HISTORY, _SPREAD, _LONGEST = 70, 1.0, 1_000


class Seen(NamedTuple):
    """Is one rating: who, which movie, and how many stars."""

    user: str
    movie_id: int
    stars: float


class People(NamedTuple):
    """Is who calls are for; `users` are known by id, or else `histories` say what each has seen.

    `ratings` are what they go on to record.
    """

    source: str
    users: Sequence[str]
    histories: Sequence[Sequence[Seen]]
    ratings: Sequence[Seen]


class Popular(NamedTuple):
    """Is a movie and how many have rated it."""

    movie_id: int
    ratings: int


def from_folder(folder: Path, seed: int) -> People:
    """Draws people, each alike, and ratings, so that the busy and the popular come as often as in the data.

    Raises DataError.
    """
    ratings = list(islice(_ratings(folder), _ROWS))
    if not ratings:
        raise DataError(f"{folder} has no ratings: name a folder with a ratings.csv or ratings.dat that has rows")
    rng = random.Random(seed)
    users = sorted({one.user for one in ratings})
    drawn = rng.sample(users, min(POOL, len(users)))
    return People(f"{len(drawn):,} people of {folder}", drawn, (), rng.choices(ratings, k=POOL))


def from_ids(path: Path, popular: Sequence[Popular], seed: int) -> People:
    """Reads ids, one a line, and draws what they record by popularity; raises DataError."""
    try:
        users = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}): name a text file with one user id a line") from error
    if not users:
        raise DataError(f"{path} has no ids: write one user id a line")
    rng = random.Random(seed)
    drawn = rng.sample(users, min(POOL, len(users)))
    return People(f"{len(drawn):,} people of {path}", drawn, (), _drawn_ratings(popular, drawn, POOL, rng))


def made_up(popular: Sequence[Popular], seed: int) -> People:
    """Makes people up: each has seen movies drawn by popularity, as many as people have in MovieLens."""
    rng = random.Random(seed)
    users = [f"{number:04}" for number in range(POOL)]
    histories = [_drawn_ratings(popular, [user], _history_length(rng), rng) for user in users]
    ratings = _drawn_ratings(popular, users, POOL, rng)
    return People(f"{POOL:,} people made up from the catalogue", (), histories, ratings)


def _history_length(rng: random.Random) -> int:
    return min(_LONGEST, max(1, round(_MEDIAN_HISTORY * rng.lognormvariate(0.0, _SPREAD))))


def _drawn_ratings(popular: Sequence[Popular], users: Sequence[str], count: int, rng: random.Random) -> list[Seen]:
    # One is added so that a catalogue that nobody has rated can be drawn from.
    movies = rng.choices(popular, weights=[1 + one.ratings for one in popular], k=count)
    return [Seen(rng.choice(users), one.movie_id, rng.randint(1, 10) / 2) for one in movies]


def _ratings(folder: Path) -> Iterator[Seen]:
    path = next((folder / name for name in ("ratings.csv", "ratings.dat") if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no ratings.csv or ratings.dat: name a folder in MovieLens format with --data")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream) if path.suffix == ".csv" else (line.split("::") for line in stream)
            places = _places(next(rows, []) if path.suffix == ".csv" else None)
            yield from (_seen(row, places) for row in rows if row)
    except (ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); its rows have userId, movieId and rating") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})") from error


def _seen(row: Sequence[str], places: Sequence[int]) -> Seen:
    user, movie, stars = (row[place] for place in places)
    try:
        return Seen(user, int(movie), float(stars))
    except ValueError:
        raise ValueError(f"{','.join(row)!r} is no rating") from None


def _places(head: Sequence[str] | None) -> Sequence[int]:
    return range(3) if head is None else [head.index(name) for name in ("userId", "movieId", "rating")]
