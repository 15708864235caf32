"""What the files of a dataset are called and which column holds what."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from marquee.errors import ConfigError

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
PARQUET_SUFFIXES = (".parquet", ".pq")
_REQUIRED = ("user", "movie", "time", "title")


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Names the files and columns of a dataset; the defaults are MovieLens'.

    `events_file` may be a pattern for several files, such as "events/*.parquet".
    A `.dat` file is MovieLens 1M's: no header, fields in the order of the names here, between `::`, in latin-1. Any
    other text file has a header line and is UTF-8. `rating_min` to `rating_max` is mapped linearly to 0.5 to 5 stars;
    without `rating_min` it is a tenth of `rating_max`, so that 10 points become 5 stars and 6 become 3. `kind` holds
    names of EventKind or their numbers; without it every event is RATED. `value` may be "" where `kind` is named:
    then no event can be RATED. `movies_key` is the id column of the movies file, `movie` where it is "". `genres` and
    `year` may be "". Raises ConfigError, which names the field that is wrong.
    """

    events_file: str = "ratings.csv"
    movies_file: str = "movies.csv"
    user: str = "userId"
    movie: str = "movieId"
    value: str = "rating"
    time: str = "timestamp"
    kind: str = ""
    time_unit: Literal["s", "ms"] = "s"
    rating_min: float | None = None
    rating_max: float = 5.0
    movies_key: str = ""
    title: str = "title"
    genres: str = "genres"
    year: str = ""
    genre_separator: str = "|"
    delimiter: str = ","

    def __post_init__(self) -> None:
        self._check_files()
        self._check_names()
        self._check_rating()
        if self.time_unit not in ("s", "ms"):
            raise _wrong("time_unit", self.time_unit, "write 's' for seconds or 'ms' for milliseconds")
        if not self.genre_separator:
            raise _wrong("genre_separator", "", "name what lies between two genres, such as '|'")
        if len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\r\n':
            raise _wrong(
                "delimiter", self.delimiter, "name the one ASCII character between two cells, such as ',' or '\\t'"
            )

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Lists the columns wanted of the events file, in the order of a `.dat` file."""
        return tuple(name for name in (self.user, self.movie, self.value, self.time, self.kind) if name)

    @property
    def movie_columns(self) -> tuple[str, ...]:
        """Lists the columns wanted of the movies file, in the order of a `.dat` file."""
        return tuple(name for name in (self.key, self.title, self.genres, self.year) if name)

    @property
    def key(self) -> str:
        """Names the id column of the movies file."""
        return self.movies_key or self.movie

    @property
    def lowest(self) -> float:
        """Says which rating is half a star."""
        return self.rating_max / 10 if self.rating_min is None else self.rating_min

    def _check_files(self) -> None:
        for field in ("events_file", "movies_file"):
            name = getattr(self, field)
            if PurePath(name).suffix.lower() not in TEXT_SUFFIXES + PARQUET_SUFFIXES:
                known = ", ".join(TEXT_SUFFIXES + PARQUET_SUFFIXES)
                raise _wrong(field, name, f"name a file that ends in one of {known}")

    def _check_names(self) -> None:
        for field in _REQUIRED:
            if not getattr(self, field):
                raise _wrong(field, "", "name the column that holds it")
        if not self.value and not self.kind:
            raise _wrong("value", "", "name the column of ratings, or name `kind` where events have none")
        for names in (self.event_columns, self.movie_columns):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ConfigError(f"ColumnMap: column {twice!r} is named for two fields; name one column for each")

    def _check_rating(self) -> None:
        if not self.lowest < self.rating_max < float("inf") or self.lowest == float("-inf"):
            raise _wrong(
                "rating_max", self.rating_max, f"name a finite number above the lowest rating, {self.lowest:g}"
            )


def _wrong(field: str, found: object, cure: str) -> ConfigError:
    return ConfigError(f"ColumnMap.{field} is {found!r}: {cure}", field=field)


def read_columns(path: Path) -> ColumnMap:
    """Reads a ColumnMap from a JSON file; raises ConfigError, which names the file and what is wrong."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is not a JSON file that can be read ({error})") from error
    known = {field.name: str(field.default) for field in dataclasses.fields(ColumnMap)}
    unknown = sorted(set(fields) - known.keys()) if isinstance(fields, dict) else [str(fields)]
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]!r} is not a field of a column map; there are {', '.join(known)}")
    for name, value in fields.items():
        wanted = (int, float) if name in ("rating_min", "rating_max") else (str,)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ConfigError(f"{path}: {name} is {value!r}; it must be {'a number' if float in wanted else 'a text'}")
    return ColumnMap(**fields)
