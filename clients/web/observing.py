"""What an operator wants to see: what each replica has loaded, and how fast the services answer now."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.error
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from http.client import HTTPException
from typing import Final, NamedTuple, Protocol

from prometheus_client.parser import text_string_to_metric_families

from clients.cli import replicas as resolving
from clients.cli.connection import Connection
from clients.cli.metrics_page import read_page
from marquee.client import AsyncRecommender, EncoderState, MarqueeError, Metric, ReplicaState

_DEADLINE_S: Final = 1.0
# Rates over less are noise; several operators who look share what was read.
_LEAST_S: Final = 1.0
_MOST_BYTES: Final = 4 << 20
_CALLS, _SECONDS = "grpc_server_handled_total", "grpc_server_handling_seconds_bucket"
# Which program has a service; of others, such as the health, nothing is told.
_PROGRAMS: Final = {
    "marquee.v1.UserEncoderService": "user_encoder",
    "marquee.v1.LiveFeaturesService": "user_encoder",
    "marquee.v1.RetrieverService": "retriever",
    "marquee.v1.CatalogService": "retriever",
}


class _Ask(Protocol):
    def __call__(self, client: AsyncRecommender, /, *, deadline_s: float | None) -> Awaitable[ReplicaState]: ...


@dataclass(frozen=True, slots=True)
class Replica:
    """Is one replica: what it says of itself, or why it does not."""

    service: str
    address: str
    state: ReplicaState | None
    error: str = ""

    @property
    def store(self) -> str:
        """Says how an encoder's store is; empty for a retriever."""
        if not isinstance(self.state, EncoderState):
            return ""
        store = self.state.store
        return f"{store.kind}, " + ("reachable" if store.reachable else f"away: {store.last_error}")


@dataclass(frozen=True, slots=True)
class Rate:
    """Is what one method did of late: calls and failures a second, and latencies in milliseconds."""

    service: str
    method: str
    calls: float
    failures: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """Is what the services did in the last `seconds`; `problems` says which of them did not tell."""

    rows: tuple[Rate, ...]
    seconds: float
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Is a part of an evaluation: metrics by systems, for one protocol and one kind of target."""

    title: str
    systems: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Metric | None, ...]], ...]


def tables(metrics: Sequence[Metric]) -> tuple[Table, ...]:
    """Arranges the figures of a bundle's evaluation."""
    groups: defaultdict[tuple[str, str], list[Metric]] = defaultdict(list)
    for metric in metrics:
        groups[metric.protocol, metric.targets].append(metric)
    return tuple(
        _table(f"Protocol {protocol}, {targets} targets", group) for (protocol, targets), group in groups.items()
    )


def _table(title: str, metrics: Sequence[Metric]) -> Table:
    systems = tuple(dict.fromkeys(metric.system for metric in metrics))
    found = {(metric.name, metric.system): metric for metric in metrics}
    names = dict.fromkeys(metric.name for metric in metrics)
    return Table(title, systems, tuple((name, tuple(found.get((name, one)) for one in systems)) for name in names))


class Replicas:
    """Asks every replica of both services what it has loaded; addresses are resolved anew each time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clients: dict[resolving.Replica, AsyncRecommender] = {}
        # One look at a time: it closes what the look before asked and nobody has any more.
        self._turn = asyncio.Lock()

    async def states(self) -> tuple[Replica, ...]:
        """Reads the state of every replica; one that does not answer says why."""
        async with self._turn:
            encoders, retrievers = await asyncio.gather(
                self._of("user_encoder", self._connection.encoder, AsyncRecommender.encoder_state),
                self._of("retriever", self._connection.retriever, AsyncRecommender.retriever_state),
            )
            found = encoders + retrievers
            await self._let_go({replica.address for replica in found})
            return found

    async def close(self) -> None:
        """Closes the clients."""
        await self._let_go(set())

    async def _let_go(self, found: Set[str]) -> None:
        """Closes the clients of replicas at other addresses than those found."""
        for replica in [one for one in self._clients if one.address not in found]:
            await self._clients.pop(replica).close()

    async def _of(self, service: str, addresses: str | list[str], ask: _Ask) -> tuple[Replica, ...]:
        text = addresses if isinstance(addresses, str) else ",".join(addresses)
        try:
            found = await asyncio.to_thread(resolving.replicas, text)
        except MarqueeError as error:
            return (Replica(service, text, None, error.message),)
        return tuple(await asyncio.gather(*(self._state(service, replica, ask) for replica in found)))

    async def _state(self, service: str, replica: resolving.Replica, ask: _Ask) -> Replica:
        try:
            return Replica(service, replica.address, await ask(self._client(replica), deadline_s=_DEADLINE_S))
        except MarqueeError as error:
            return Replica(service, replica.address, None, error.message)

    def _client(self, replica: resolving.Replica) -> AsyncRecommender:
        # Of both addresses only the one that is asked for is ever connected to.
        if replica not in self._clients:
            self._clients[replica] = AsyncRecommender(
                replica.address,
                replica.address,
                api_key=self._connection.api_key,
                tls=self._connection.named(replica),
            )
        return self._clients[replica]


class _Key(NamedTuple):
    service: str
    method: str


@dataclass(slots=True)
class _Sample:
    """Is what was counted since the services started; buckets are cumulative, by their upper bound in seconds."""

    calls: defaultdict[_Key, float]
    failures: defaultdict[_Key, float]
    buckets: defaultdict[_Key, defaultdict[float, float]]


class Meter:
    """Reads services' metrics, at most once a second, and says what happened since the last time."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._urls = urls
        self._clock = clock
        self._last: Mapping[str, _Sample] | None = None
        self._at_s = 0.0
        self._rates = Rates((), 0.0, ())
        self._turn = asyncio.Lock()

    @property
    def used(self) -> bool:
        """Says whether there is anything to read."""
        return bool(self._urls)

    async def rates(self) -> Rates:
        """Says what happened of late; no rows where this is the first look."""
        async with self._turn:
            now = self._clock()
            if self._last is None or now - self._at_s >= _LEAST_S:
                await self._read(now)
            return self._rates

    async def _read(self, now: float) -> None:
        texts = await asyncio.gather(*(asyncio.to_thread(_fetch, url) for url in self._urls))
        problems = tuple(text.problem for text in texts if text.problem)
        looks = {url: _sample(text.body) for url, text in zip(self._urls, texts, strict=True) if not text.problem}
        before, seconds = self._last or {}, now - self._at_s
        # Of a service that missed a look it is not known when its calls were.
        rows = _rows([_since(before[url], look) for url, look in looks.items() if url in before], seconds)
        self._rates = Rates(rows, 0.0 if self._last is None else seconds, problems)
        self._last, self._at_s = looks, now


class _Text(NamedTuple):
    body: str
    problem: str


def _fetch(url: str) -> _Text:
    try:
        return _Text(read_page(url, timeout_s=_DEADLINE_S, most_bytes=_MOST_BYTES), "")
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return _Text("", f"{url} does not answer ({reason}); start the service with --metrics-port")


def _nothing() -> _Sample:
    return _Sample(defaultdict(float), defaultdict(float), defaultdict(lambda: defaultdict(float)))


def _sample(text: str) -> _Sample:
    sample = _nothing()
    # Whatever answered there may be no Prometheus exporter; what was read before it was cut off counts.
    with contextlib.suppress(ValueError):
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                _add(sample, one.name, one.labels, one.value)
    return sample


def _add(sample: _Sample, name: str, labels: Mapping[str, str], value: float) -> None:
    service = _PROGRAMS.get(labels.get("grpc_service", ""))
    if service is None:
        return
    key = _Key(service, labels.get("grpc_method", ""))
    if name == _CALLS:
        sample.calls[key] += value
        sample.failures[key] += value if labels.get("grpc_code") != "OK" else 0.0
    elif name == _SECONDS:
        sample.buckets[key][float(labels["le"])] += value


def _since(before: _Sample, after: _Sample) -> _Sample:
    """Says what one service counted between two looks."""
    if any(after.calls[key] < calls for key, calls in before.calls.items()):
        # It was started anew in between, and counts from 0 again.
        before = _nothing()
    since = _nothing()
    for key, calls in after.calls.items():
        since.calls[key] = calls - before.calls[key]
        since.failures[key] = after.failures[key] - before.failures[key]
        for bound, count in after.buckets[key].items():
            since.buckets[key][bound] = count - before.buckets[key][bound]
    return since


def _rows(counted: Sequence[_Sample], seconds: float) -> tuple[Rate, ...]:
    """Adds up what all services counted, a row for each method."""
    rows = []
    for key in sorted({key for sample in counted for key in sample.calls}):
        counts: defaultdict[float, float] = defaultdict(float)
        for sample in counted:
            for bound, count in sample.buckets[key].items():
                counts[bound] += count
        calls = sum(sample.calls[key] for sample in counted)
        failures = sum(sample.failures[key] for sample in counted)
        ordered = dict(sorted(counts.items()))
        p50, p99 = quantile(ordered, 0.5), quantile(ordered, 0.99)
        rows.append(Rate(key.service, key.method, calls / seconds, failures / seconds, p50, p99))
    return tuple(rows)


def quantile(counts: Mapping[float, float], share: float) -> float | None:
    """Estimates a quantile, in milliseconds, from cumulative counts by upper bound in seconds, ascending.

    Inside a bucket all values are taken to be spread evenly; in the last, unbounded one, for its lower bound. None
    where nothing was counted.
    """
    total = max(counts.values(), default=0.0)
    if total <= 0:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for high, count in counts.items():
        if count >= wanted and count > below:
            reached = low if high == float("inf") else low + (high - low) * (wanted - below) / (count - below)
            return 1000 * reached
        low, below = high, count
    return None
