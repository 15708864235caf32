"""A Milvus as the engine of an index: it proposes candidates, of which lists are made here. N movies, D dimension.

pymilvus is an extra of its own, and takes more than a second to import: it is imported where a Milvus is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import numpy as np

from marquee.bundle.format import INDEX, ITEM_VECTORS, Bundle
from marquee.engine.engines import Allowed
from marquee.engine.index import Index
from marquee.engine.kinds import Spec, read_spec
from marquee.errors import BundleError, ConfigError, Unavailable
from marquee.features import Floats, Int64s
from services.common.breaker import Breaker
from services.retriever.milvus_filling import ROW, VECTOR, Filling, alias_of, search_parameters
from services.retriever.settings import EXACTLY, RetrieverSettings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_log = logging.getLogger(__name__)

MILVUS = "milvus"

# Searches that wait for Milvus at once.
_SEARCHES = 32
# What is left of a call's deadline after this part is for what comes after Milvus, or in its place.
_PART_OF_DEADLINE = 0.5
# A Milvus that a caller did not wait for as long as this has not failed.
_FAIR_WAIT_S = 0.02
# For the probes of a bundle that is loaded: nobody waits for them.
_PROBE_S = 10.0
_CONNECT_S = 5.0
# By default gRPC tries a lost connection ever less often, in the end once in two minutes.
_RECONNECT = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.min_reconnect_backoff_ms": 2000,
}
# The most candidates that are asked for. pymilvus makes an object of each; everything that matches is compared sooner.
_DEEPEST = 4096
# Under a mask so many times as many are asked for as should do; where they do not, four times as many again.
_SPARE, _DEEPER = 2.0, 4

_NONE: Int64s = np.zeros(0, np.int64)


class Milvus:
    """Is a retriever's connection to its Milvus, shared by the bundles that it has loaded; any thread may use it.

    Raises ConfigError where pymilvus is not installed, or a file that is named is not there.
    """

    def __init__(self, settings: RetrieverSettings) -> None:
        if importlib.util.find_spec("pymilvus") is None:
            raise ConfigError("--milvus-uri: needs pymilvus, which is not installed; pip install 'marquee[milvus]'")
        if settings.milvus_ca is not None and not settings.milvus_ca.is_file():
            raise ConfigError(f"--milvus-ca: {settings.milvus_ca} is no file; name the CA's certificate, in PEM")
        self._settings = settings
        self.stopping = threading.Event()
        self.searches = ThreadPoolExecutor(_SEARCHES, "milvus-search")
        # pymilvus mends a lost connection inside of calls, and takes the time that it needs. So it is called in other
        # threads than those that answer.
        self._calls = ThreadPoolExecutor(_SEARCHES, "milvus-call")
        self.is_new = True
        self.misses = 0
        self.exactly_instead = settings.milvus_fallback == EXACTLY
        meanwhile = "every vector is compared here" if self.exactly_instead else "searches answer UNAVAILABLE"
        self._breaker = Breaker(f"Milvus at {self.where}", meanwhile)
        self._lock, self._connecting = threading.Lock(), threading.Lock()
        self._client: MilvusClient | None = None

    @property
    def where(self) -> str:
        """Says where it is."""
        return self._settings.milvus_uri

    @property
    def reachable(self) -> bool:
        """Says that the last search was answered, or none was made yet."""
        return self._breaker.reachable

    def count_miss(self) -> None:
        """Counts a search that was answered without Milvus, or refused."""
        with self._lock:
            self.misses += 1

    def close(self) -> None:
        """Ends fills that are going on, and takes no more calls."""
        self.stopping.set()
        self.searches.shutdown(wait=False, cancel_futures=True)
        self._calls.shutdown(wait=False, cancel_futures=True)

    def client(self) -> MilvusClient:
        """Connects, once; raises what pymilvus raises where nobody answers."""
        with self._connecting:
            if self._client is None:
                self._client = connect(self._settings)
            return self._client

    def check_open(self) -> None:
        """Raises Unavailable while Milvus keeps failing, but for one search every half a second, which tries."""
        with self._lock:
            if self._breaker.lets_through(time.monotonic()):
                return
        raise Unavailable(f"{self._breaker.last_error}; it is asked again in a moment: send the call again then")

    def patience_s(self, ends_at: float | None) -> float:
        """Says how long an answer that must be there by then, on the monotonic clock, may wait for Milvus."""
        if ends_at is None:
            return self._settings.milvus_timeout_s
        left_s = max(0.0, ends_at - time.monotonic())
        return min(self._settings.milvus_timeout_s, _PART_OF_DEADLINE * left_s)

    def search(self, name: str, query_D: Floats, limit: int, parameters: dict[str, int], patience_s: float) -> Int64s:
        """Lists the `limit` nearest rows of a collection, best first; raises Unavailable where they do not come."""
        from pymilvus import MilvusException

        asking = self._calls.submit(self._search, name, query_D, limit, parameters, patience_s)
        try:
            rows = asking.result(patience_s)
        except (MilvusException, grpc.RpcError, TimeoutError) as error:
            asking.cancel()
            raise self._note_failure(error, patience_s) from error
        with self._lock:
            self._breaker.succeeded()
        return rows

    def _search(self, name: str, query_D: Floats, limit: int, parameters: dict[str, int], timeout_s: float) -> Int64s:
        found = self.client().search(
            name,
            data=[query_D],
            anns_field=VECTOR,
            limit=limit,
            output_fields=[ROW],
            search_params={"metric_type": "IP", "params": parameters},
            # What is in a collection never changes once it may be searched.
            consistency_level="Eventually",
            timeout=timeout_s,
        )
        return np.array(found[0].ids, np.int64)

    def _note_failure(self, error: Exception, patience_s: float) -> Unavailable:
        timed_out = isinstance(error, TimeoutError) or _code(error) is grpc.StatusCode.DEADLINE_EXCEEDED
        why = f"no answer within {patience_s:.3g} s" if timed_out else told(error)
        message = f"Milvus at {self.where}: {why}; see that it runs, can be reached and is not overloaded"
        # Who waits for less has run out of time, and that says nothing about Milvus.
        if not timed_out or patience_s >= min(self._settings.milvus_timeout_s, _FAIR_WAIT_S):
            with self._lock:
                self._breaker.failed(message, time.monotonic())
        return Unavailable(message)


@contextlib.contextmanager
def open_milvus(settings: RetrieverSettings) -> Iterator[Milvus | None]:
    """Makes the connection that the settings ask for, if they do, and closes it at the end."""
    milvus = Milvus(settings) if settings.milvus_uri else None
    try:
        yield milvus
    finally:
        if milvus is not None:
            milvus.close()


def connect(settings: RetrieverSettings) -> MilvusClient:
    """Makes a client; raises MilvusException where nobody answers."""
    from pymilvus import MilvusClient

    # Each failure is told here, once; pymilvus logs every one with its traceback, past the handlers of the root.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    secrets = {"token": settings.milvus_token} if settings.milvus_token else {}
    trust = {"server_pem_path": str(settings.milvus_ca)} if settings.milvus_ca else {}
    # By itself pymilvus hands out the connection that somebody made to this address before, whomever that one trusted.
    return MilvusClient(
        settings.milvus_uri, timeout=_CONNECT_S, dedicated=True, grpc_options=_RECONNECT, **secrets, **trust
    )


def told(error: Exception) -> str:
    """Words what pymilvus raised, in a line."""
    text = getattr(error, "message", None) or getattr(error, "details", lambda: "")() or type(error).__name__
    return " ".join(str(text).split())[:300]


def _code(error: Exception) -> object:
    code = getattr(error, "code", None)
    return code() if callable(code) else code


class Collection:
    """Is a bundle's collection in a Milvus: filled when this is made, and searched through `asked`.

    Raises BundleError where it cannot be filled. But a process that is to compare vectors while Milvus is away starts
    without it: the first bundle's collection is then filled once Milvus is there.
    """

    def __init__(self, milvus: Milvus, bundle: Bundle) -> None:
        self.milvus = milvus
        self._bundle = bundle
        self.spec: Spec = read_spec(bundle.manifest.index, bundle.file(INDEX))
        self._mending = threading.Lock()
        self.name = alias_of(bundle.id)
        self._is_filled = True
        try:
            self._fill()
        except BundleError as error:
            if not (milvus.is_new and milvus.exactly_instead):
                raise
            self._is_filled = False
            _log.error("%s; until it is, every vector is compared here", error.message)
        milvus.is_new = False

    def _fill(self) -> None:
        from pymilvus import MilvusException

        vectors_ND = np.asarray(self._bundle.array(ITEM_VECTORS), np.float32)
        try:
            client = self.milvus.client()
            Filling(client, self._bundle.id, self.spec, vectors_ND, self.milvus.stopping).run()
        except (MilvusException, grpc.RpcError) as error:
            raise BundleError(
                f"the collection of bundle {self._bundle.id[:12]} cannot be filled: Milvus at {self.milvus.where}: "
                f"{told(error)}; see that it runs and that --milvus-uri and --milvus-token are right"
            ) from error

    def check(self, index: Index) -> None:
        """Replays the bundle's probes, in the collection if it is filled; raises BundleError where others are found."""
        try:
            (index.asking(MILVUS, Probing(self, None)) if self._is_filled else index).probe(self._bundle)
        except Unavailable as error:
            raise BundleError(f"bundle {self._bundle.id[:12]} cannot be probed: {error.message}") from error

    def asked(self, index: Index, ends_at: float | None) -> Index:
        """Makes an index that asks the collection, for a call that must be answered by then."""
        return index.asking(MILVUS, Asking(self, ends_at))

    def mend(self) -> None:
        """Loads the collection, or fills it anew, in the background: a Milvus may have come back without it."""
        if not self.milvus.stopping.is_set() and self._mending.acquire(blocking=False):
            threading.Thread(target=self._mend, name="milvus-mend", daemon=True).start()

    def _mend(self) -> None:
        try:
            self._fill()
        except BundleError as error:
            _log.debug("%s", error.message)
        finally:
            self._mending.release()


class Asking:
    """Asks a collection in the name of one call; is an Engine.

    Where Milvus does not answer, it either proposes nothing, and the index compares every vector itself, or raises
    Unavailable.
    """

    def __init__(self, collection: Collection, ends_at: float | None) -> None:
        self._collection = collection
        self._ends_at = ends_at
        self.lost = False

    def propose(self, query_D: Floats, wanted: int, allowed: Allowed | None, *, fast: bool) -> Int64s:
        """Lists `wanted` rows, or none where Milvus has no more to give: then everything has to be compared.

        Under a mask more are asked for and what is not allowed is left out: ids of thousands of seen movies, or of half
        the catalogue, are no expression to send with every search.
        """
        most = min(_DEEPEST, wanted if allowed is None else wanted + allowed.excluded)
        asked = most if allowed is None else min(most, math.ceil(_SPARE * wanted / allowed.share))
        while wanted <= most and not self.lost:
            rows = self._ask(query_D, asked, fast)
            rows = rows if allowed is None else rows[allowed.mask_N[rows]][:wanted]
            if len(rows) == wanted:
                return rows
            if asked == most:
                break
            asked = min(_DEEPER * asked, most)
        return _NONE

    def _ask(self, query_D: Floats, limit: int, fast: bool) -> Int64s:
        milvus = self._collection.milvus
        try:
            milvus.check_open()
            return self._search(query_D, limit, fast, milvus.patience_s(self._ends_at))
        except Unavailable:
            milvus.count_miss()
            if not milvus.exactly_instead:
                raise
            self.lost = True
            return _NONE

    def _search(self, query_D: Floats, limit: int, fast: bool, patience_s: float) -> Int64s:
        collection = self._collection
        parameters = search_parameters(collection.spec, limit, fast=fast)
        try:
            return collection.milvus.search(collection.name, query_D, limit, parameters, patience_s)
        except Unavailable:
            collection.mend()
            raise


class Probing(Asking):
    """Asks a collection that was just filled: patiently, and with nothing else to fall back on."""

    def _ask(self, query_D: Floats, limit: int, fast: bool) -> Int64s:
        return self._search(query_D, limit, fast, _PROBE_S)
