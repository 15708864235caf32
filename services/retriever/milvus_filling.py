"""Fills a bundle's collection in a Milvus, whoever else is at it, and whenever one is killed. N movies, D dimension.

A collection has a name of its own for each fill. Only when it holds every movie, and Milvus says so, an alias with the
bundle's id points to it, and only the alias is searched: what was left half-filled has no alias. Replicas that load
the same bundle wait while another one's fill grows. Where two fill all the same, one gets the alias, and the other
drops what it filled.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import grpc
import numpy as np

from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, TUNED_AT, Spec
from marquee.errors import BundleError
from marquee.features import Floats

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_log = logging.getLogger(__name__)

ROW, VECTOR = "row", "vector"
_PREFIX = "marquee_"
_NAME = re.compile(r"marquee_([0-9a-f]{64})_(\d{13})_[0-9a-f]{8}")
# Milvus's names of the kinds. It has no lists of half precision over float32 vectors.
_KINDS = {EXACT: "FLAT", IVF: "IVF_FLAT", IVF_FP16: "IVF_FLAT", IVF_SQ8: "IVF_SQ8", HNSW: "HNSW"}

# Vectors that are sent at once, in bytes: well below what a message may have.
_BATCH = 4 << 20
# Seconds that one step may take. A flush or a load that takes longer is gone on with when the bundle is tried again.
_STEP_S = 60.0
# Seconds that a Milvus which just failed gets to drop what was begun; if it does not, it is left behind.
_DROP_S = 5.0
# Seconds between two looks at what another replica, or Milvus, is doing.
_LOOK_S = 0.2
# Seconds after which a fill that does not grow is taken for one whose replica is gone.
_STALLED_S = 10.0
# A node builds the index of a whole segment, of up to a gigabyte, before it counts as built.
_INDEX_STALLED_S = 600.0


class Fill(NamedTuple):
    """Says of which bundle a collection is, and when it was begun (UTC, milliseconds)."""

    bundle_id: str
    begun_ms: int


def alias_of(bundle_id: str) -> str:
    """Names the alias under which a bundle's collection is searched."""
    return f"{_PREFIX}{bundle_id}"


def fill_of(name: str) -> Fill | None:
    """Reads a collection's name; None where it is none of ours."""
    found = _NAME.fullmatch(name)
    return Fill(found[1], int(found[2])) if found else None


def aliases_of(client: MilvusClient, name: str) -> list[str]:
    """Lists the aliases that point to a collection."""
    # Annotated as a list, and a dict.
    found: dict[str, list[str]] = client.list_aliases(name, timeout=_STEP_S)
    return list(found["aliases"])


def search_parameters(spec: Spec, limit: int, *, fast: bool) -> dict[str, int]:
    """Says how hard to look: as the bundle's own index does, or half as hard."""
    part = 0.5 if fast else 1.0
    if spec.kind == EXACT:
        return {}
    if spec.kind == HNSW:
        return {"ef": max(limit, int(part * spec.parameters["ef_search"] * max(1.0, limit / TUNED_AT)))}
    lists = round(part * spec.parameters["nprobe"] * math.sqrt(max(1.0, limit / TUNED_AT)))
    return {"nprobe": max(1, min(spec.parameters["nlist"], lists))}


def _build_parameters(spec: Spec) -> dict[str, int]:
    if spec.kind == EXACT:
        return {}
    if spec.kind == HNSW:
        return {"M": spec.parameters["m"], "efConstruction": spec.parameters["ef_construction"]}
    return {"nlist": spec.parameters["nlist"]}


class Filling:
    """Sees to it that the collection of a bundle is there, and whole."""

    def __init__(
        self, client: MilvusClient, bundle_id: str, spec: Spec, vectors_ND: Floats, stopping: threading.Event
    ) -> None:
        self._client = client
        self._alias = alias_of(bundle_id)
        self._bundle_id = bundle_id
        self._spec = spec
        self._vectors_ND = vectors_ND
        self._stopping = stopping

    def run(self) -> None:
        """Fills a collection where there is none, or none that is whole, and has the alias point to it.

        Raises BundleError where the process stops meanwhile, and what pymilvus raises.
        """
        pointed = self._pointed()
        if pointed and self._is_whole(pointed):
            return
        found = self._await_another()
        if not (found and self._finish(found)):
            started = time.monotonic()
            name = self._fill()
            if not self._finish(name):
                raise BundleError(
                    f"{name} in Milvus does not hold {len(self._vectors_ND)} movies, though all were sent; look at "
                    "Milvus's log"
                )
            _log.info("filled %s with %d movies in %.1f s", name, len(self._vectors_ND), time.monotonic() - started)

    def _fills(self) -> list[str]:
        names = self._client.list_collections(timeout=_STEP_S)
        return sorted(name for name in names if (fill := fill_of(name)) and fill.bundle_id == self._bundle_id)

    def _pointed(self) -> str:
        """Names the collection that the alias points to, "" where there is none."""
        return next((name for name in self._fills() if self._alias in aliases_of(self._client, name)), "")

    def _is_whole(self, name: str) -> bool:
        self._client.load_collection(name, timeout=_STEP_S)
        (counted,) = self._client.query(
            name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=_STEP_S
        )
        return int(counted["count(*)"]) == len(self._vectors_ND)

    def _await_another(self) -> str:
        """Waits while fills of other replicas grow; names one that has everything, "" where none will."""
        counts: dict[str, int] = {}
        grew_at = time.monotonic()
        while now := {name: self._rows_in(name) for name in self._fills()}:
            if whole := [name for name, rows in now.items() if rows >= len(self._vectors_ND)]:
                return whole[0]
            if now != counts:
                counts, grew_at = now, time.monotonic()
            elif time.monotonic() >= grew_at + _STALLED_S:
                break
            self._pause()
        return ""

    def _rows_in(self, name: str) -> int:
        # Not exact, as a count is; but one may ask before a collection is loaded.
        return int(self._client.get_collection_stats(name, timeout=_STEP_S)["row_count"])

    def _pause(self) -> None:
        self._stopping.wait(_LOOK_S)
        self._check_stopping()

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise BundleError("the process stops: the collection is filled by whoever loads the bundle next")

    def _fill(self) -> str:
        name = f"{self._alias}_{time.time_ns() // 1_000_000:013d}_{secrets.token_hex(4)}"
        self._create(name)
        try:
            size = max(1, min(10_000, _BATCH // (4 * self._vectors_ND.shape[1])))
            for start in range(0, len(self._vectors_ND), size):
                self._check_stopping()
                rows = enumerate(np.ascontiguousarray(self._vectors_ND[start : start + size]), start)
                # Not insert: pymilvus tries again what it does not know to have failed, and rows would be there twice.
                self._client.upsert(name, [{ROW: row, VECTOR: vector_D} for row, vector_D in rows], timeout=_STEP_S)
        except BaseException:
            self._drop_unfinished(name)
            raise
        return name

    def _drop_unfinished(self, name: str) -> None:
        from pymilvus import MilvusException

        with contextlib.suppress(MilvusException, grpc.RpcError):
            self._client.drop_collection(name, timeout=_DROP_S)

    def _create(self, name: str) -> None:
        """Makes an empty collection, with its index, and has it loaded."""
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self._vectors_ND.shape[1])
        index = self._client.prepare_index_params()
        index.add_index(
            VECTOR,
            index_type=_KINDS[self._spec.kind],
            index_name=VECTOR,
            metric_type="IP",
            params=_build_parameters(self._spec),
        )
        self._client.create_collection(
            name, schema=schema, index_params=index, consistency_level="Strong", timeout=_STEP_S
        )

    def _finish(self, name: str) -> bool:
        """Has what was sent written and indexed, and points the alias to it; False where it does not hold everything.

        Each step may be done twice, by two replicas at once, and gone on with after one was killed.
        """
        self._client.flush(name, timeout=_STEP_S)
        self._await_index(name)
        if not self._is_whole(name):
            return False
        self._point(name)
        return True

    def _await_index(self, name: str) -> None:
        """Waits while the index grows; raises BundleError where it stands still for too long."""
        left, grew_at = self._unindexed(name), time.monotonic()
        while left > 0:
            self._pause()
            now_left = self._unindexed(name)
            if now_left < left:
                left, grew_at = now_left, time.monotonic()
            elif time.monotonic() >= grew_at + _INDEX_STALLED_S:
                raise BundleError(
                    f"{name} in Milvus: {left} movies have waited for their index for {_INDEX_STALLED_S:g} s; see that "
                    "its index nodes run. The bundle is tried again by itself"
                )

    def _unindexed(self, name: str) -> int:
        return int(self._client.describe_index(name, VECTOR, timeout=_STEP_S)["pending_index_rows"])

    def _point(self, name: str) -> None:
        from pymilvus import MilvusException

        try:
            self._client.create_alias(name, self._alias, timeout=_STEP_S)
        except MilvusException:
            pointed = self._pointed()
            if pointed == name:
                return
            if pointed and self._is_whole(pointed):
                self._client.drop_collection(name, timeout=_STEP_S)
                return
            self._client.alter_alias(name, self._alias, timeout=_STEP_S)
