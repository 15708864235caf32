"""What a service says of itself to Prometheus: calls, times, queues and what is loaded, at `http://HOST:PORT/metrics`.

Every name begins with `marquee_<service>_`. Each service has a registry of its own, so that two of them may live in one
process. What is counted elsewhere, or is a state, is read when somebody asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common.interceptors import Call, Context, given_up
from services.common.limiter import Lane
from services.common.spaces import Spaces, role_name

# From a tenth of a millisecond, which a cheap call takes, to longer than anybody waits; seconds.
_CALL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STAGE_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LAG_EVERY_S = 0.1

_method: ContextVar[_Method | None] = ContextVar("method", default=None)


class _Method:
    """Counts the calls of one method; what it needs for that is looked up once."""

    def __init__(self, telemetry: Telemetry, name: str) -> None:
        self._telemetry = telemetry
        self._name = name
        self._calls: dict[grpc.StatusCode | None, Counter] = {}
        self._stages: dict[str, Histogram] = {}
        self.seconds = telemetry.seconds.labels(name)
        self.in_flight = 0

    def ended(self, code: grpc.StatusCode | None, seconds: float) -> None:
        self.in_flight -= 1
        self.seconds.observe(seconds)
        counter = self._calls.get(code)
        if counter is None:
            counter = self._telemetry.calls.labels(self._name, "OK" if code is None else code.name)
            self._calls[code] = counter
        counter.inc()

    def stage_ended(self, stage: str, seconds: float) -> None:
        histogram = self._stages.get(stage)
        if histogram is None:
            histogram = self._stages[stage] = self._telemetry.stages.labels(self._name, stage)
        histogram.observe(seconds)


class stage:  # noqa: N801  # reads as a statement: with stage("store"): ...
    """Times a part of the call that runs here; does nothing outside of calls, or where nobody asks for metrics."""

    __slots__ = ("_began", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        method = _method.get()
        if method is not None:
            method.stage_ended(self._name, time.perf_counter() - self._began)


class Telemetry:
    """Holds the metrics of one service, `service` being the middle of their names."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = f"marquee_{service}_"
        self.calls = Counter(f"{self._prefix}calls", "Calls that ended.", ["method", "code"], registry=self.registry)
        self.seconds = Histogram(
            f"{self._prefix}call_seconds",
            "Time of a call from its acceptance to its answer, without reading and writing messages.",
            ["method"],
            buckets=_CALL_BUCKETS,
            registry=self.registry,
        )
        self.stages = Histogram(
            f"{self._prefix}stage_seconds",
            "Time of a part of a call.",
            ["method", "stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._lag = Histogram(
            f"{self._prefix}event_loop_lag_seconds",
            "How much later than due the event loop comes to a timer.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            f"{self._prefix}calls_in_flight",
            "Calls that were accepted and have not ended.",
            ["method"],
            registry=self.registry,
        )

    def stage(self, method: str, call: Call) -> Call:
        """Is the stage that counts a method's calls."""
        name = method.rpartition("/")[2]
        counted = _Method(self, name)
        self._in_flight.labels(name).set_function(lambda: counted.in_flight)

        async def told(request: Any, context: Context) -> Any:
            _method.set(counted)
            counted.in_flight += 1
            began = time.perf_counter()
            try:
                answer = await call(request, context)
            except asyncio.CancelledError:
                counted.ended(given_up(context), time.perf_counter() - began)
                raise
            except BaseException:
                counted.ended(context.code(), time.perf_counter() - began)
                raise
            counted.ended(None, time.perf_counter() - began)
            return answer

        return told

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Adds a number that goes up and down, read when somebody asks."""
        Gauge(self._prefix + name, about, registry=self.registry).set_function(read)

    def counter(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Adds a number that only grows, read when somebody asks."""
        self._register(lambda: [CounterMetricFamily(self._prefix + name, about, read())])

    def watch_lanes(self, lanes: Iterable[Lane]) -> None:
        """Adds what the limiter counts."""
        kept = tuple(lanes)
        self._register(lambda: _of_lanes(self._prefix, kept))

    def watch_spaces(self, spaces: Spaces[Any]) -> None:
        """Adds what is loaded, and whether a newer pointer could not be followed."""
        self._register(lambda: _of_spaces(self._prefix, spaces))

    def _register(self, read: Callable[[], Iterable[Metric]]) -> None:
        self.registry.register(_Read(read))

    async def watch_loop(self) -> None:
        """Measures how late the event loop is, until cancelled."""
        while True:
            due = time.monotonic() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self._lag.observe(max(0.0, time.monotonic() - due))

    @contextlib.asynccontextmanager
    async def served(self, host: str, port: int) -> AsyncIterator[int]:
        """Answers Prometheus in a thread of its own; gives the port. Raises OSError where it cannot listen."""
        server, thread = start_http_server(port, host, self.registry)
        try:
            yield server.server_port
        finally:
            # Half a second: the thread looks no more often whether it should end.
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            thread.join()


class _Read(Collector):
    """Is read when somebody asks."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


def _of_lanes(prefix: str, lanes: Sequence[Lane]) -> list[Metric]:
    running = GaugeMetricFamily(f"{prefix}calls_running", "Calls of a class that have a place.", labels=["class"])
    waiting = GaugeMetricFamily(f"{prefix}calls_waiting", "Calls of a class that wait for one.", labels=["class"])
    refused = CounterMetricFamily(
        f"{prefix}calls_refused", "Calls of a class that got no place, and why.", labels=["class", "reason"]
    )
    for lane in lanes:
        running.add_metric([lane.name], lane.running)
        waiting.add_metric([lane.name], lane.waiting)
        refused.add_metric([lane.name, "queue_full"], lane.refused)
        refused.add_metric([lane.name, "given_up"], lane.given_up)
    return [running, waiting, refused]


def _of_spaces(prefix: str, spaces: Spaces[Any]) -> list[Metric]:
    bundles = InfoMetricFamily(f"{prefix}bundle", "Bundles that are loaded.", labels=["role"])
    movies = GaugeMetricFamily(f"{prefix}bundle_movies", "Movies of the bundles that are loaded.", labels=["role"])
    loaded_at = GaugeMetricFamily(
        f"{prefix}bundle_loaded_timestamp_seconds", "When a bundle was loaded, since the epoch.", labels=["role"]
    )
    for loaded in spaces.loaded():
        role, manifest = [role_name(loaded)], loaded.bundle.manifest
        names = {"space": manifest.space, "revision": manifest.revision, "bundle_id": loaded.bundle.id}
        bundles.add_metric(role, names)
        movies.add_metric(role, manifest.movies)
        loaded_at.add_metric(role, loaded.loaded_at_ms / 1000)
    state = spaces.state()
    generation = GaugeMetricFamily(
        f"{prefix}registry_generation", "Generation that was applied last.", state.generation
    )
    failed = GaugeMetricFamily(
        f"{prefix}reload_failed", "1 while a newer pointer cannot be followed.", float(bool(state.reload_error))
    )
    return [bundles, movies, loaded_at, generation, failed]
