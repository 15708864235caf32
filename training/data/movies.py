"""Reads the movies file, and the metadata and links that may lie beside it, into movie records.

These files are small beside the events, so that they are read row by row; a quoted cell may hold line breaks.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from marquee.errors import DataError
from marquee.movies import MovieRecord, parse_title
from training.data.columns import PARQUET_SUFFIXES, ColumnMap
from training.data.report import Rejects, Row
from training.data.tables import WRONG_FIELDS, check_header, read_bytes, read_parquet, separator

METADATA_FILE = "metadata.csv"
LINKS_FILE = "links.csv"
_METADATA_COLUMNS = ("movieId", "language", "release_date", "runtime_minutes", "directors", "cast")
_LINKS_COLUMNS = ("movieId", "imdbId", "tmdbId")
_NO_GENRES = "(no genres listed)"
# What tools write into a cell that has nothing in it.
_NOTHING = frozenset(("", "nan", "none", "null", "n/a", "<na>", "\\n"))
# Of a title and a year that were put together where there was no year.
_NO_YEAR = re.compile(r" *\((?:nan|<na>)\) *$", re.IGNORECASE)
_DATE = re.compile(r"(?!0000)\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_WHOLE = re.compile(r"(\d{1,19})(?:\.0+)?", re.ASCII)
_PAGES = {"imdb": "https://www.imdb.com/title/{}/", "tmdb": "https://www.themoviedb.org/movie/{}"}
_YEARS = range(1800, 2100)
_LARGEST_ID = 2**63 - 1


class Movies(NamedTuple):
    """Holds the movies by ascending id, and the account of what was dropped of each file."""

    records: list[MovieRecord]
    with_metadata: int
    rejects: list[Rejects]


class _Record(NamedTuple):
    line: int
    cells: dict[str, str]
    fits: bool = True

    @property
    def row(self) -> Row:
        return Row(self.line, ",".join(self.cells.values()))


def load_movies(folder: Path, columns: ColumnMap) -> Movies:
    """Reads the movies of a folder, with metadata.csv and links.csv where they lie there.

    Raises DataError where a file cannot be used or most of its rows are bad, or no movie is left.
    """
    by_id, rejects = _read_movies(folder / columns.movies_file, columns)
    metadata, bad_metadata = _read_optional(folder / METADATA_FILE, _METADATA_COLUMNS)
    links, bad_links = _read_optional(folder / LINKS_FILE, _LINKS_COLUMNS)
    described = sorted(by_id.keys() & metadata.keys())
    for movie_id in described:
        by_id[movie_id] = _with_metadata(by_id[movie_id], metadata[movie_id], bad_metadata)
    for movie_id in by_id.keys() & links.keys():
        by_id[movie_id] = _with_links(by_id[movie_id], links[movie_id].cells)
    records = [by_id[movie_id] for movie_id in sorted(by_id)]
    return Movies(records, len(described), [rejects, bad_metadata, bad_links])


def _read_movies(path: Path, columns: ColumnMap) -> tuple[dict[int, MovieRecord], Rejects]:
    by_id, rejects = _by_id(path, columns.movie_columns, columns.key, columns)
    if not by_id:
        raise DataError(f"{path} has no movies: copy it again from where it came")
    return {movie_id: _movie(movie_id, record.cells, columns) for movie_id, record in by_id.items()}, rejects


def _read_optional(path: Path, wanted: Sequence[str]) -> tuple[dict[int, _Record], Rejects]:
    if not path.exists():
        return {}, Rejects(path)
    return _by_id(path, wanted, "movieId", ColumnMap())


def _by_id(path: Path, wanted: Sequence[str], key: str, columns: ColumnMap) -> tuple[dict[int, _Record], Rejects]:
    """Reads the rows of a file by movie id.

    Of two rows of one id the one whose cells sort first is kept, so that the order of rows does not matter.
    """
    rejects, records = Rejects(path), list(_records(path, wanted, columns))
    by_id: dict[int, _Record] = {}
    for record in records:
        movie_id = _whole(record.cells[key]) if record.fits else None
        if not record.fits:
            rejects.add(WRONG_FIELDS, [record.row])
        elif not movie_id or movie_id > _LARGEST_ID:
            rejects.add(f"{key} is not a whole number from 1 to 2^63 - 1", [record.row])
        elif movie_id not in by_id:
            by_id[movie_id] = record
        else:
            by_id[movie_id], second = sorted((by_id[movie_id], record), key=lambda one: tuple(one.cells.values()))
            rejects.note(f"{key} occurs twice", [second.row])
    rejects.refuse_if_mostly_bad(len(records))
    return by_id, rejects


def _records(path: Path, wanted: Sequence[str], columns: ColumnMap) -> Iterator[_Record]:
    if path.suffix.lower() in PARQUET_SUFFIXES:
        rows = read_parquet(path, wanted).to_pylist()
        for line, row in enumerate(rows, 1):
            yield _Record(line, {name: _text(row[name], columns.genre_separator) for name in wanted})
    else:
        yield from _text_records(path, wanted, columns.delimiter)


def _text_records(path: Path, wanted: Sequence[str], delimiter: str) -> Iterator[_Record]:
    text, dat = io.StringIO(read_bytes(path).decode(), newline=""), path.suffix.lower() == ".dat"
    delimiter = separator(path, delimiter)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if dat else csv.QUOTE_MINIMAL
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
    line = 1
    try:
        header = list(wanted) if dat else [cell.strip() for cell in next(reader)]
        check_header(path, header, wanted, delimiter)
        places = [(name, header.index(name)) for name in wanted]
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                yield _Record(line, {name: cells[place] for name, place in places})
            elif cells:
                yield _Record(line, {str(place): cell for place, cell in enumerate(cells)}, fits=False)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{line}: a quoted cell that starts here is not closed as it should be ({error}): "
            "close the quote, or double it where it belongs to the text"
        ) from error


def _text(value: Any, list_separator: str) -> str:
    """Writes a stored value as a text file would hold it."""
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return list_separator.join(map(str, value))
    return str(value)


def _movie(movie_id: int, cells: dict[str, str], columns: ColumnMap) -> MovieRecord:
    raw = _NO_YEAR.sub("", cells[columns.title])
    title, year = parse_title("" if raw.strip().lower() in _NOTHING else raw)
    if columns.year:
        own = _whole(cells[columns.year])
        year = own if own in _YEARS else year
    genres = _names(cells[columns.genres], columns.genre_separator) if columns.genres else ()
    return MovieRecord(movie_id, title, year, tuple(name for name in genres if name != _NO_GENRES))


def _with_metadata(movie: MovieRecord, record: _Record, rejects: Rejects) -> MovieRecord:
    cells = {name: "" if cell.strip().lower() in _NOTHING else cell.strip() for name, cell in record.cells.items()}
    date, minutes = cells["release_date"], _whole(cells["runtime_minutes"])
    if not _DATE.fullmatch(date) and date:
        rejects.note("release_date is not YYYY-MM-DD; the cell was left out", [record.row])
        date = ""
    if minutes is None and cells["runtime_minutes"]:
        rejects.note("runtime_minutes is not a whole number; the cell was left out", [record.row])
    year = int(date[:4]) if movie.year is None and date else movie.year
    return movie._replace(
        year=year if year in _YEARS else movie.year,
        language=cells["language"],
        release_date=date,
        runtime_minutes=minutes or None,
        directors=_names(cells["directors"], "|"),
        cast=_names(cells["cast"], "|"),
    )


def _with_links(movie: MovieRecord, cells: dict[str, str]) -> MovieRecord:
    imdb, tmdb = _whole(cells["imdbId"].strip().removeprefix("tt")), _whole(cells["tmdbId"])
    # The number is written anew: a spreadsheet eats the zeros of "0114709".
    ids = ([f"imdb:tt{imdb:07}"] if imdb else []) + ([f"tmdb:{tmdb}"] if tmdb else [])
    return movie._replace(external_id=ids[0] if ids else "", links=tuple(map(_page, ids)))


def _page(external_id: str) -> str:
    source, _, number = external_id.partition(":")
    return _PAGES[source].format(number)


def _names(cell: str, between: str) -> tuple[str, ...]:
    """Splits a cell into the names in it, each once, in their order."""
    names = (name.strip() for name in cell.split(between))
    return tuple(dict.fromkeys(name for name in names if name.lower() not in _NOTHING))


def _whole(cell: str) -> int | None:
    """Reads a whole number; "12.0" is 12."""
    match = _WHOLE.fullmatch(cell.strip())
    return int(match[1]) if match else None
