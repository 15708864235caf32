"""Reads an events file into columns: of a text file every cell as text, of Parquet as it is stored.

Letters in array names: n rows of the file.

A text file is read line by line: an event is one line, so that the line of a bad row is known without a look at the
good ones, and an unclosed quote costs its own line only.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from marquee.errors import DataError
from training.data.columns import PARQUET_SUFFIXES
from training.data.report import Row

Int64s = npt.NDArray[np.int64]

WRONG_FIELDS = "wrong number of fields"
WRONG_QUOTES = "quotes that do not pair around a field"
# Stands for "::", which pyarrow cannot split at: a control character that no MovieLens file has.
_DAT_SEPARATOR = "\x1f"
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


@dataclass(frozen=True, slots=True)
class Table:
    """Holds the wanted columns of an events file, each a pyarrow ChunkedArray [n].

    `lines` [n] are the rows' lines, from 1. `misfits` are the lines, by reason, that could not be split into cells and
    are not among the n. `quote` gives the text of a line.
    """

    columns: dict[str, Any]
    lines: Int64s
    misfits: dict[str, Int64s]
    quote: Callable[[int], str]

    @property
    def rows_read(self) -> int:
        """Counts the rows of the file, misfits included and blank lines not."""
        return len(self.lines) + sum(len(lines) for lines in self.misfits.values())

    def rows(self, lines: Int64s) -> list[Row]:
        """Quotes lines."""
        return [Row(line, self.quote(line)) for line in lines.tolist()]


def read_table(path: Path, wanted: Sequence[str], delimiter: str) -> Table:
    """Reads the wanted columns of a text or Parquet file.

    Raises DataError where the file is missing, empty or unreadable, or lacks one of the columns.
    """
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return _read_parquet(path, wanted)
    return _read_text(path, wanted, delimiter)


def read_bytes(path: Path) -> bytes:
    """Reads a text file as UTF-8 without byte-order mark; a `.dat` file is converted, its `::` as one character.

    Raises DataError where it is missing, unreadable, empty or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check that it is there and readable") from error
    if path.suffix.lower() == ".dat":
        raw = (raw if raw.isascii() else raw.decode("latin-1").encode()).replace(b"::", _DAT_SEPARATOR.encode())
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if not raw.strip():
        raise DataError(f"{path} is empty: copy it again from where it came")
    _check_utf8(path, raw)
    return raw


def separator(path: Path, delimiter: str) -> str:
    """Says what lies between two cells of what `read_bytes` returned."""
    return _DAT_SEPARATOR if path.suffix.lower() == ".dat" else delimiter


def read_parquet(path: Path, wanted: Sequence[str]) -> Any:
    """Reads columns of a Parquet file as a pyarrow Table.

    Raises DataError where it is missing or unreadable, or lacks one of them.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            check_header(path, file.schema_arrow.names, wanted)
            return file.read(columns=list(wanted)).select(list(wanted))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}): write it again, or copy it again") from error


def check_header(path: Path, found: Sequence[str], wanted: Sequence[str], delimiter: str = ",") -> None:
    """Raises DataError, with the header found and the one wanted, unless all wanted columns are there."""
    missing = [name for name in wanted if name not in found]
    if not missing:
        return
    cure = "rename them in the file, or name the file's own in a ColumnMap"
    if len(found) == 1 and any(mark in found[0] for mark in ";\t,|"):
        cure = "its cells seem to be separated otherwise: name the character as ColumnMap.delimiter"
    elif any(cell.strip().isdigit() for cell in found):
        cure = "its first line seems to be data: put the header above it"
    raise DataError(
        f"{path}: the header is '{delimiter.join(found)[:200]}', but '{delimiter.join(wanted)}' is wanted and "
        f"{', '.join(map(repr, missing))} is not in it; {cure}"
    )


def _check_utf8(path: Path, raw: bytes) -> None:
    if raw.isascii():
        return
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = 1 + raw.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}:{line} is not UTF-8: convert the file, such as with 'iconv -f latin1 -t utf-8'"
        ) from error


def _read_parquet(path: Path, wanted: Sequence[str]) -> Table:
    table = read_parquet(path, wanted)
    lines = np.arange(1, table.num_rows + 1)

    def quote(line: int) -> str:
        row = table.slice(line - 1, 1).to_pylist()[0]
        return ", ".join(f"{name}={value}" for name, value in row.items())

    return Table({name: table[name] for name in wanted}, lines, {}, quote)


def _read_text(path: Path, wanted: Sequence[str], delimiter: str) -> Table:
    text = _Lines(read_bytes(path))
    dat = path.suffix.lower() == ".dat"
    delimiter = separator(path, delimiter)
    header = list(wanted) if dat else _header(text.line(1), delimiter)
    check_header(path, header, wanted, delimiter)
    first = 1 if dat else 2
    body, quotes = (text.raw, np.zeros(0, np.int64)) if dat else _blank_wrong_quotes(text, delimiter)
    start = 0 if dat else text.start(2)
    try:
        cells, misfits = _split(pa.py_buffer(body).slice(start), header, wanted, delimiter, quoted=not dat)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as text ({error}): write it again, or copy it again") from error
    misfits += first - 1
    lines = np.delete(np.arange(first, first + cells.num_rows + len(misfits)), misfits - first)
    cells, lines = _without_blank(cells, lines, text)
    reasons = {WRONG_QUOTES: quotes, WRONG_FIELDS: np.setdiff1d(misfits, quotes)}
    quote = partial(_quote, text)
    return Table(dict(zip(wanted, cells.columns, strict=True)), lines, reasons, quote)


def _quote(text: _Lines, line: int) -> str:
    return text.line(line).replace(_DAT_SEPARATOR, "::")


def _header(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [""])]


def _split(body: Any, header: list[str], wanted: Sequence[str], delimiter: str, *, quoted: bool) -> tuple[Any, Int64s]:
    """Splits lines into the wanted cells; returns them and the numbers, from 1, of the lines that do not fit."""
    misfits: list[int] = []

    def skip(row: Any) -> str:
        misfits.append(row.number)
        return "skip"

    numbers = [str(position) for position in range(len(header))]  # a header may name one column twice
    if not body.size:
        return pa.table({name: pa.array([], pa.string()) for name in wanted}), np.zeros(0, np.int64)
    cells = pyarrow.csv.read_csv(
        body,
        # Only a single thread tells the handler the line.
        pyarrow.csv.ReadOptions(use_threads=False, column_names=numbers),
        pyarrow.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        pyarrow.csv.ConvertOptions(
            include_columns=[str(header.index(name)) for name in wanted],
            column_types={number: pa.string() for number in numbers},
        ),
    )
    return cells, np.array(misfits, np.int64)


def _without_blank(cells: Any, lines: Int64s, text: _Lines) -> tuple[Any, Int64s]:
    empty = pc.equal(cells.column(0), "").to_numpy().nonzero()[0]
    blank = [row for row in empty.tolist() if not text.line(int(lines[row]))]
    if not blank:
        return cells, lines
    keep = np.ones(len(lines), bool)
    keep[blank] = False
    return cells.filter(pa.array(keep)), lines[keep]


def _blank_wrong_quotes(text: _Lines, delimiter: str) -> tuple[bytes, Int64s]:
    """Empties the lines in which quotes do not pair around whole fields: they would swallow the lines after them."""
    if b'"' not in text.raw:
        return text.raw, np.zeros(0, np.int64)
    chars = np.frombuffer(text.raw, np.uint8).copy()
    wrong = _wrong_quotes(chars, text.ends, ord(delimiter))
    for line in wrong.tolist():
        chars[text.start(line) : text.end(line)] = ord(" ")
    return chars.tobytes(), wrong


def _wrong_quotes(chars: npt.NDArray[np.uint8], ends: Int64s, delimiter: int) -> Int64s:
    quotes = np.flatnonzero(chars == _QUOTE)
    lines = np.searchsorted(ends, quotes)
    odd = np.bincount(lines, minlength=len(ends) + 1) % 2 == 1
    quotes, lines = quotes[~odd[lines]], lines[~odd[lines]]
    # Every line left has an even number of quotes, so that each pair lies in one line; a doubled one closes and opens.
    opening, closing = quotes[0::2], quotes[1::2]
    before = np.where(opening == 0, _NEWLINE, chars[opening - 1])
    after = np.where(closing + 1 == len(chars), _NEWLINE, chars[np.minimum(closing + 1, len(chars) - 1)])
    fits = np.isin(before, [delimiter, _QUOTE, _NEWLINE]) & np.isin(after, [delimiter, _QUOTE, _NEWLINE, _RETURN])
    wrong = np.union1d(np.flatnonzero(odd), lines[0::2][~fits]) + 1
    return wrong[wrong > 1]


class _Lines:
    """Finds the lines of a text by number, from 1."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def ends(self) -> Int64s:
        return np.flatnonzero(np.frombuffer(self.raw, np.uint8) == _NEWLINE)

    def start(self, line: int) -> int:
        if line > len(self.ends) + 1:
            return len(self.raw)
        return 0 if line == 1 else int(self.ends[line - 2]) + 1

    def end(self, line: int) -> int:
        return int(self.ends[line - 1]) if line <= len(self.ends) else len(self.raw)

    def line(self, line: int) -> str:
        return self.raw[self.start(line) : self.end(line)].decode().rstrip("\r")
