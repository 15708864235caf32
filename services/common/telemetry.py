"""What a service says of itself to Prometheus: calls, times, queues and what is loaded, at `http://HOST:PORT/metrics`.

Calls have the names and labels that all of the gRPC ecosystem has for them, `grpc_server_…`; every other name begins
with `marquee_<service>_`. Each service has a registry of its own, so that two of them may live in one process. What is
counted elsewhere, or is a state, is read when somebody asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common.interceptors import Call, Context, given_up
from services.common.limiter import Lane
from services.common.measures import BATCH_SIZE, Kinds, Sizes, listen
from services.common.spaces import Spaces, role_name

# From a tenth of a millisecond, which a cheap call takes, to longer than anybody waits; seconds.
_CALL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STAGE_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LAG_EVERY_S = 0.1
_GRPC_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class _Name(NamedTuple):
    """Is a method as its metrics name it, label by label; streams are not counted."""

    grpc_type: str
    grpc_service: str
    grpc_method: str


def _name_of(path: str) -> _Name:
    service, _, method = path.removeprefix("/").partition("/")
    return _Name("UNARY", service, method)


class _Method:
    """Counts the calls of one method, and hears what is said of them; what it needs for that is looked up once."""

    def __init__(self, telemetry: Telemetry, name: _Name) -> None:
        self._telemetry = telemetry
        self.name = name
        self.started = 0
        self.ended: dict[str, int] = {}
        self._seconds = telemetry.seconds.labels(*name)
        self._stages: dict[str, Histogram] = {}
        self._sizes: dict[str, Histogram] = {}
        self._kinds: dict[tuple[str, str], Counter] = {}

    def end(self, code: grpc.StatusCode | None, seconds: float) -> None:
        """Counts a call that has ended."""
        self._seconds.observe(seconds)
        name = "OK" if code is None else code.name
        self.ended[name] = self.ended.get(name, 0) + 1

    def stage_ended(self, name: str, seconds: float) -> None:
        """Adds the time of a stage."""
        histogram = self._stages.get(name)
        if histogram is None:
            histogram = self._stages[name] = self._telemetry.stages.labels(self.name.grpc_method, name)
        histogram.observe(seconds)

    def observed(self, sizes: Sizes, value: float) -> None:
        """Adds a number to its histogram."""
        histogram = self._sizes.get(sizes.name)
        if histogram is None:
            made = self._telemetry.histogram(sizes)
            histogram = self._sizes[sizes.name] = made.labels(self.name.grpc_method)
        histogram.observe(value)

    def counted(self, kinds: Kinds, kind: str, times: int) -> None:
        """Adds to a counter."""
        counter = self._kinds.get((kinds.name, kind))
        if counter is None:
            made = self._telemetry.kinds(kinds)
            counter = self._kinds[kinds.name, kind] = made.labels(self.name.grpc_method, kind)
        counter.inc(times)


class Telemetry:
    """Holds the metrics of one service, `service` being the middle of their names."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = f"marquee_{service}_"
        self._methods: list[_Method] = []
        self._histograms: dict[str, Histogram] = {}
        self._counters: dict[str, Counter] = {}
        self.seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time of a call from its acceptance to its answer, without reading and writing messages.",
            _GRPC_LABELS,
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
        self._register(lambda: _of_methods(self._prefix, self._methods))
        self.expect([BATCH_SIZE])

    def expect(self, measures: Iterable[Sizes | Kinds]) -> None:
        """Adds what calls will say of themselves, so that it is there, and empty, before the first of them."""
        for measure in measures:
            if isinstance(measure, Sizes):
                self.histogram(measure)
            else:
                self.kinds(measure)

    def stage(self, method: str, call: Call) -> Call:
        """Is the stage that counts a method's calls."""
        counted = _Method(self, _name_of(method))
        self._methods.append(counted)

        async def told(request: Any, context: Context) -> Any:
            listen(counted)
            counted.started += 1
            began = time.perf_counter()
            try:
                answer = await call(request, context)
            except asyncio.CancelledError:
                taken_s = time.perf_counter() - began
                counted.end(given_up(context, taken_s), taken_s)
                raise
            except BaseException:
                counted.end(context.code(), time.perf_counter() - began)
                raise
            counted.end(None, time.perf_counter() - began)
            return answer

        return told

    def histogram(self, sizes: Sizes) -> Histogram:
        """Returns the histogram of a number that calls have, made where it is not there yet."""
        made = self._histograms.get(sizes.name)
        if made is None:
            name = self._prefix + sizes.name
            made = Histogram(name, sizes.about, ["method"], buckets=sizes.buckets, registry=self.registry)
            self._histograms[sizes.name] = made
        return made

    def kinds(self, kinds: Kinds) -> Counter:
        """Returns the counter of what happens in calls, made where it is not there yet."""
        made = self._counters.get(kinds.name)
        if made is None:
            made = Counter(self._prefix + kinds.name, kinds.about, ["method", kinds.label], registry=self.registry)
            self._counters[kinds.name] = made
        return made

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


def _of_methods(prefix: str, methods: Sequence[_Method]) -> list[Metric]:
    """Writes what servers with go-grpc-middleware or py-grpc-prometheus do; a unary call has a message each way."""
    started = CounterMetricFamily("grpc_server_started", "Calls that were accepted.", labels=_GRPC_LABELS)
    received = CounterMetricFamily("grpc_server_msg_received", "Requests that were read.", labels=_GRPC_LABELS)
    sent = CounterMetricFamily("grpc_server_msg_sent", "Answers that were sent.", labels=_GRPC_LABELS)
    handled = CounterMetricFamily(
        "grpc_server_handled", "Calls that ended, and how.", labels=(*_GRPC_LABELS, "grpc_code")
    )
    in_flight = GaugeMetricFamily(
        f"{prefix}calls_in_flight", "Calls that were accepted and have not ended.", labels=["method"]
    )
    for method in methods:
        # A copy, and the first to be read: calls begin and end in another thread, and none ends before it has begun.
        ended, begun = dict(method.ended), method.started
        started.add_metric(method.name, begun)
        received.add_metric(method.name, begun)
        sent.add_metric(method.name, ended.get("OK", 0))
        in_flight.add_metric([method.name.grpc_method], begun - sum(ended.values()))
        for code, calls in ended.items():
            handled.add_metric((*method.name, code), calls)
    return [started, received, sent, handled, in_flight]


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
    created_at = GaugeMetricFamily(
        f"{prefix}bundle_created_timestamp_seconds", "When a bundle was made, since the epoch.", labels=["role"]
    )
    for loaded in spaces.loaded():
        role, manifest = [role_name(loaded)], loaded.bundle.manifest
        names = {"space": manifest.space, "revision": manifest.revision, "bundle_id": loaded.bundle.id}
        bundles.add_metric(role, names)
        movies.add_metric(role, manifest.movies)
        loaded_at.add_metric(role, loaded.loaded_at_ms / 1000)
        # A report without a date, or a damaged one, has no series.
        with contextlib.suppress(ValueError):
            created_at.add_metric(role, datetime.fromisoformat(loaded.report.created_at).timestamp())
    state = spaces.state()
    generation = GaugeMetricFamily(
        f"{prefix}registry_generation", "Generation that was applied last.", state.generation
    )
    failed = GaugeMetricFamily(
        f"{prefix}reload_failed", "1 while a newer pointer cannot be followed.", float(bool(state.reload_error))
    )
    return [bundles, movies, loaded_at, created_at, generation, failed]
