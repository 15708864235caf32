"""Turns columns of cells, text or stored numbers, into arrays, and says which cells cannot be turned.

Letters in array names: n rows, K kinds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marquee.v1 import types_pb2

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

MAX_USER_BYTES = 256
MISSING = frozenset(("", "nan", "NaN"))
_LARGEST = str(2**63 - 1)
_WHOLE = r"^\d{1,19}$"
_DECIMAL = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_KINDS = {name.removeprefix("EVENT_KIND_"): number for name, number in types_pb2.EventKind.items()}


class Users(NamedTuple):
    """Holds user ids by code: `codes` [n] index `ids`."""

    codes: Int64s
    ids: list[str]


def positive_ids(column: Any) -> Int64s:
    """Reads positive 64-bit ids exactly, [n]; 0 where a cell holds none. "12.0" is 12."""
    column = _decoded(column)
    if pa.types.is_string(column.type):
        return _ids_of_text(column)
    ids = _cast(column, pa.int64()).fill_null(0).to_numpy()
    if pa.types.is_floating(column.type):
        stored = _cast(column, pa.float64()).fill_null(0).to_numpy()
        ids = np.where((np.abs(stored) < 2**53) & (stored == ids), ids, 0)
    positive: Int64s = np.maximum(ids, 0)
    return positive


def numbers(column: Any) -> Float64s:
    """Reads numbers, [n]; NaN where a cell holds no finite one."""
    column = _decoded(column)
    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        column = _only(column, pc.match_substring_regex(column, _DECIMAL))
    found: Float64s = _cast(column, pa.float64()).fill_null(np.nan).to_numpy().copy()
    found[~np.isfinite(found)] = np.nan
    return found


def times_ms(column: Any, unit: str) -> Float64s:
    """Reads UTC times as whole milliseconds, [n]; NaN where a cell holds none. Stored dates and times need no unit."""
    if pa.types.is_temporal(column.type):
        return numbers(_cast(_cast(column, pa.timestamp("ms")), pa.int64()))
    return np.round(numbers(column) * (1000.0 if unit == "s" else 1.0))


def users(column: Any) -> Users:
    """Reads user ids as text without surrounding space."""
    column = _decoded(column)
    if pa.types.is_floating(column.type):
        column = _as_whole(_only(column, pc.is_finite(column)))
    text = pc.utf8_trim_whitespace(_cast(column, pa.string()).fill_null(""))
    return Users(*_codes(text))


def event_kinds(column: Any) -> Int64s:
    """Reads kinds of EventKind by name, with or without EVENT_KIND_, or by number, [n]; 0 where it knows none."""
    codes, texts = _codes(_cast(_decoded(column), pa.string()).fill_null(""))
    kind_K = np.array([_kind(text) for text in texts], np.int64)
    return kind_K[codes] if len(texts) else np.zeros(0, np.int64)


def _kind(text: str) -> int:
    name = text.strip().upper().removeprefix("EVENT_KIND_").removesuffix(".0")
    if name.isdecimal():
        return int(name) if int(name) in _KINDS.values() else 0
    return _KINDS.get(name, 0)


def _codes(text: Any) -> tuple[Int64s, list[str]]:
    encoded = text.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _ids_of_text(column: Any) -> Int64s:
    column = pc.utf8_trim_whitespace(column)
    if not pc.all(pc.match_substring_regex(column, _WHOLE)).as_py():
        column = pc.replace_substring_regex(column, r"\.0+$", "")
    short = pc.less(pc.utf8_length(column), len(_LARGEST))
    fits = pc.or_(short, pc.less_equal(column, _LARGEST))  # of equal length, text compares as numbers do
    column = _only(column, pc.and_(pc.match_substring_regex(column, _WHOLE), fits))
    ids: Int64s = _cast(column, pa.int64()).fill_null(0).to_numpy()
    return ids


def _as_whole(column: Any) -> Any:
    """Turns 12.0 to 12 where all are whole: tools that have no missing whole number write such columns."""
    whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53))
    return _cast(column, pa.int64()) if pc.all(whole).as_py() else column


def _only(column: Any, keep: Any) -> Any:
    return pc.if_else(keep, column, pa.scalar(None, column.type))


def _decoded(column: Any) -> Any:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        kind = pa.string()
    return column if column.type == kind else _cast(column, kind)


def _cast(column: Any, kind: Any) -> Any:
    return pc.cast(column, kind, safe=False)
