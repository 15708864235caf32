"""The user tower, run by ONNX Runtime. B people, L history length, D dimension, N movies, K events left out."""

from __future__ import annotations

import functools
import itertools
import os
import threading

import numpy as np
import numpy.typing as npt

# Read when it is imported: its builds since 1.32 would report to their maker, which no service of ours does unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from marquee.bundle.format import (
    HISTORY_IDS,
    HISTORY_TABLE,
    ITEM_TOWER,
    ITEM_VECTORS,
    MOVIE_IDS,
    USER_TOWER,
    Bundle,
)
from marquee.bundle.probes import PROBE_TOLERANCE, read_probes
from marquee.errors import BundleError
from marquee.features import (
    Encoded,
    Events,
    Floats,
    HistoryIndex,
    Int64s,
    TowerInput,
    Without,
    encode_history,
    encode_without_each,
    pad_batch,
)
from marquee.histories import Histories, ManyEncoded, encode_many

# Runs are cut where their history rows would take more than this 1 MB: larger ones leave the core's cache, and take a
# person up to half as long again.
_RUN_FLOATS = 1 << 18
# Events of padding that cost the pooled tower what one run more does: 0.22 µs each, and 40 µs.
_WORTH_A_RUN = 180


class _Scratch(threading.local):
    """Holds a thread's memory for the history rows of a run."""

    def __init__(self) -> None:
        self.floats = np.empty(_RUN_FLOATS, np.float32)


def _parts(longest_first: list[int], most_rows: int) -> list[slice]:
    """Cuts inputs into runs: each of so many rows at most, padded ones too, where it has more than one input."""
    starts, padding = [0], 0
    for at, length in enumerate(longest_first):
        longest = longest_first[starts[-1]]
        padding += longest - length
        if padding > _WORTH_A_RUN or (at + 1 - starts[-1]) * longest > max(most_rows, longest):
            starts.append(at)
            padding = 0
    return [slice(start, end) for start, end in itertools.pairwise([*starts, len(longest_first)])]


class Encoder:
    """Turns people's merged events into query vectors, in one bundle's space."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.spec = bundle.features
        self.space = bundle.space
        # On one core a transformer takes as long a person in a batch as alone, a millisecond or more.
        self.gains_by_batches = bundle.manifest.tower.kind == "pooled"
        self._name = bundle.file(USER_TOWER)
        history_ids = np.asarray(bundle.array(HISTORY_IDS), np.int64)
        self._index = HistoryIndex(history_ids)
        self._table = np.asarray(bundle.array(HISTORY_TABLE), np.float32)
        if self._table.shape != (len(history_ids), self.spec.dimension):
            raise BundleError(
                f"{bundle.file(HISTORY_TABLE)}: is {self._table.shape}, the bundle has {len(history_ids)} history ids "
                f"and {self.spec.dimension} dimensions; export the bundle again"
            )
        self.session = open_session(bundle, USER_TOWER, threads)
        self._scratch = _Scratch()
        self.movies = MovieVectors(bundle)

    def prepare(self, merged: Events, as_of_ms: int) -> Encoded:
        """Encodes merged events (oldest first) as the tower's input."""
        return encode_history(merged, self._index, as_of_ms, self.spec)

    def prepare_many(self, histories: Histories, as_of_ms_B: Int64s) -> ManyEncoded:
        """Encodes the merged events of B people as the tower's input."""
        return encode_many(histories, self._index, as_of_ms_B, self.spec)

    def prepare_without_each(self, merged: Events, as_of_ms: int, most: int) -> Without:
        """Encodes merged events (oldest first) without each of the newest `most` that the tower reads."""
        return encode_without_each(merged, self._index, as_of_ms, self.spec, most)

    def run(self, tower: TowerInput) -> Floats:
        """Runs the tower on B inputs, those of much the same length together; returns L2-normalised vectors [B, D]."""
        lengths_B = np.count_nonzero(tower.kinds, axis=1)
        longest_first = np.argsort(-lengths_B, kind="stable")
        parts = _parts(lengths_B[longest_first].tolist(), _RUN_FLOATS // self.spec.dimension)
        if len(parts) == 1:
            return self.run_whole(tower)
        vectors_BD = np.empty((len(lengths_B), self.spec.dimension), np.float32)
        for part in parts:
            whose = longest_first[part]
            length = lengths_B[whose[0]]
            vectors_BD[whose] = self.run_whole(TowerInput._make(column[whose, :length] for column in tower))
        return vectors_BD

    def run_whole(self, tower: TowerInput) -> Floats:
        """Runs the tower on B inputs as one batch, however large; returns L2-normalised vectors [B, D]."""
        if tower.rows.shape[1] == 0:
            tower = _one_padded_column(tower)
        vectors: Floats = self.session.run(None, self.feeds(tower))[0]
        return vectors

    def feeds(self, tower: TowerInput) -> dict[str, Floats | Int64s]:
        """Makes what `session` takes of the tower's input: the rows of its history, and the rest as it is.

        Valid until this thread's next call.
        """
        return {
            "rows": self._rows(tower.rows),
            "ratings": tower.ratings,
            "ages": tower.ages,
            "gaps": tower.gaps,
            "kinds": tower.kinds,
        }

    def _rows(self, rows_BL: Int64s) -> Floats:
        size = rows_BL.size * self.spec.dimension
        if size > _RUN_FLOATS:
            return self._table[rows_BL]
        out = self._scratch.floats[:size].reshape(*rows_BL.shape, self.spec.dimension)
        # Into memory that is there: fresh pages take longer than what is written to them. "clip" writes to it directly.
        return np.take(self._table, rows_BL, axis=0, out=out, mode="clip")

    def encode(self, merged: Events, as_of_ms: int) -> tuple[Floats, Encoded]:
        """Encodes one person; returns the vector [D] and the account of what went into it."""
        encoded = self.prepare(merged, as_of_ms)
        return self.run(encoded.tower)[0], encoded

    def encode_batch(self, inputs: list[Encoded]) -> Floats:
        """Encodes B prepared people in one run; returns [B, D]."""
        return self.run(pad_batch([one.tower for one in inputs]))

    def probe(self, bundle: Bundle) -> None:
        """Replays the bundle's probes; raises BundleError where a vector is off by more than 1 - cos = 1e-5."""
        probes = read_probes(bundle)
        for number, (events, as_of_ms, expected) in enumerate(probes.cases()):
            vector, _ = self.encode(events, as_of_ms)
            gap = 1.0 - float(vector @ expected)
            if not gap <= PROBE_TOLERANCE:
                raise BundleError(
                    f"{self._name}: probe {number} is off by 1 - cos = {gap:.2e} (allowed {PROBE_TOLERANCE:.0e}); "
                    "this machine or library computes another model: do not serve it"
                )


class MovieVectors:
    """Finds the vectors of a bundle's movies; its files are mapped, and nothing is read of them until it is asked."""

    def __init__(self, bundle: Bundle) -> None:
        self._ids = bundle.array(MOVIE_IDS)
        self._vectors_ND = bundle.array(ITEM_VECTORS)

    @functools.cached_property
    def _index(self) -> HistoryIndex:
        return HistoryIndex(np.asarray(self._ids, np.int64))

    def find(self, movie_ids: Int64s) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Says which movies there are, and returns the vectors of those [N, D]."""
        rows = self._index.rows(movie_ids)
        known = rows >= 0
        return known, np.asarray(self._vectors_ND[rows[known]], np.float32)


class ItemTower:
    """Embeds movies from their history rows and content."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self._session = open_session(bundle, ITEM_TOWER, threads)

    def embed(self, rows_ND: Floats, content_NT: Int64s) -> Floats:
        """Embeds movies that have history rows; returns L2-normalised vectors [N, D]."""
        vectors: Floats = self._session.run(["vectors"], {"rows": rows_ND, "content": content_NT})[0]
        return vectors

    def content_rows(self, content_NT: Int64s, dimension: int) -> Floats:
        """Computes history rows [N, D] for movies that were never trained on, from their content."""
        rows_ND = np.zeros((len(content_NT), dimension), np.float32)
        rows: Floats = self._session.run(["content_rows"], {"rows": rows_ND, "content": content_NT})[0]
        return rows


def open_session(bundle: Bundle, name: str, threads: int) -> onnxruntime.InferenceSession:
    """Opens an ONNX file of the bundle on `threads` CPU threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(bundle.file(name)), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base class
        raise BundleError(f"{bundle.file(name)}: ONNX Runtime cannot open it ({error})") from error


def _one_padded_column(tower: TowerInput) -> TowerInput:
    # An empty history is one column of padding: kind 0 masks it, and no kernel has to cope with length 0.
    people = len(tower.rows)
    zeros = np.zeros((people, 1), np.int64)
    return TowerInput(zeros, np.zeros((people, 1), np.float32), zeros, zeros, zeros)
