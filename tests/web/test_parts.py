"""Parts of the page that can be asked by themselves: limits, signatures, rates."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clients.cli.connection import Connection
from clients.web import observing
from clients.web.limits import Limiter
from clients.web.observing import Meter, Replicas, quantile, tables
from clients.web.sessions import Keys, new_session
from marquee.client import AsyncRecommender, Metric

KEYS = Keys(b"k" * 32)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_is_emptied_and_filled_again() -> None:
    clock = Clock()
    limiter = Limiter(rate=2.0, burst=3, clock=clock)
    assert [limiter.wait_s("ada") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limiter.wait_s("bob") == 0.0
    clock.now_s += 0.25
    assert limiter.wait_s("ada") == 0.25
    clock.now_s += 0.25
    assert limiter.wait_s("ada") == 0.0
    clock.now_s += 1_000
    assert [limiter.wait_s("ada") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_signature_is_for_one_purpose_and_one_key() -> None:
    session = new_session()
    signed = KEYS.sign("session", session)
    assert KEYS.read("session", signed) == session
    assert KEYS.read("told", signed) is None
    assert Keys(b"x" * 32).read("session", signed) is None
    assert KEYS.read("session", signed[:-1] + ("A" if signed[-1] != "A" else "B")) is None
    assert KEYS.is_token(session, KEYS.token(session))
    assert not KEYS.is_token(new_session(), KEYS.token(session))


@pytest.mark.parametrize(
    ("counts", "share", "expected_ms"),
    [
        # Ten calls, all between 1 and 2 ms: the middle of them lies in the middle.
        ({0.001: 0, 0.002: 10, float("inf"): 10}, 0.5, 1.5),
        # Half below 1 ms, half between 1 and 5: 90 % is 4/5 into the second.
        ({0.001: 5, 0.005: 10, float("inf"): 10}, 0.9, 1 + 4 * 4 / 5),
        # What no bound holds is at least the last one.
        ({0.001: 0, float("inf"): 10}, 0.5, 1.0),
        ({0.001: 0, float("inf"): 0}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_quantiles_of_buckets(counts: dict[float, float], share: float, expected_ms: float | None) -> None:
    assert quantile(counts, share) == (None if expected_ms is None else pytest.approx(expected_ms))


def test_an_evaluation_is_arranged_by_protocol_and_targets() -> None:
    def metric(system: str, name: str, targets: str, value: float) -> Metric:
        return Metric(system, "last", targets, name, value, 610, None, None)

    model, other = metric("model", "ndcg@10", "all", 0.2), metric("popularity", "ndcg@10", "all", 0.1)
    liked = metric("model", "recall@10", "liked", 0.3)
    first, second = tables([model, other, liked])
    assert (first.title, first.systems) == ("Protocol last, all targets", ("model", "popularity"))
    assert first.rows == (("ndcg@10", (model, other)),)
    assert second.rows == (("recall@10", (liked,)),)


ENCODE = 'grpc_type="UNARY",grpc_service="marquee.v1.UserEncoderService",grpc_method="Encode"'
METRICS = f"""\
# TYPE grpc_server_handled counter
grpc_server_handled_total{{{{{ENCODE},grpc_code="OK"}}}} {{ok}}
grpc_server_handled_total{{{{{ENCODE},grpc_code="UNAVAILABLE"}}}} {{failed}}
grpc_server_handled_total{{{{grpc_service="grpc.health.v1.Health",grpc_method="Check",grpc_code="OK"}}}} 1000
# TYPE grpc_server_handling_seconds histogram
grpc_server_handling_seconds_bucket{{{{{ENCODE},le="0.001"}}}} 0
grpc_server_handling_seconds_bucket{{{{{ENCODE},le="0.002"}}}} {{ok}}
grpc_server_handling_seconds_bucket{{{{{ENCODE},le="+Inf"}}}} {{ok}}
grpc_server_handling_seconds_count{{{{{ENCODE}}}}} {{ok}}
grpc_server_handling_seconds_sum{{{{{ENCODE}}}}} 1
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


async def test_rates_are_what_happened_since_the_last_look(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path) as url:
        meter = Meter([url], clock)
        (tmp_path / "metrics").write_text(METRICS.format(ok=100, failed=10))
        assert (await meter.rates()).rows == ()
        (tmp_path / "metrics").write_text(METRICS.format(ok=140, failed=16))
        # Within a second nothing is read again.
        assert (await meter.rates()).rows == ()
        clock.now_s += 2.0
        rates = await meter.rates()
        assert (rates.seconds, rates.problems) == (2.0, ())
        assert len(rates.rows) == 1
        row = rates.rows[0]
        assert (row.service, row.method, row.calls, row.failures) == ("user_encoder", "Encode", 23.0, 3.0)
        assert row.p50_ms == pytest.approx(1.5)
        assert row.p99_ms == pytest.approx(1.99)


async def test_services_are_read_without_the_proxy_of_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    (tmp_path / "metrics").write_text(METRICS.format(ok=100, failed=10))
    with serving(tmp_path) as url:
        assert (await Meter([url]).rates()).problems == ()


async def test_a_replica_that_is_gone_leaves_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Counted] = []

    class Counted(AsyncRecommender):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            opened.append(self)

        async def close(self) -> None:
            await super().close()
            opened.remove(self)

    monkeypatch.setattr(observing, "AsyncRecommender", Counted)
    hosts = {"encoders": ["127.0.0.1", "127.0.0.2"], "retrievers": ["127.0.0.3"]}
    monkeypatch.setattr(
        "socket.getaddrinfo",
        lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in hosts[host]],
    )
    replicas = Replicas(Connection("encoders:1", "retrievers:1", deadline_s=1.0, api_key="", tls=None))
    for there in (["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.4"], ["127.0.0.4"]):
        hosts["encoders"] = there
        found = [replica.address for replica in await replicas.states()]
        assert found == [f"{ip}:1" for ip in (*there, "127.0.0.3")]
        assert len(opened) == len(found)
    await replicas.close()
    assert opened == []


async def test_a_service_that_misses_a_look_does_not_count_its_life_at_once(tmp_path: Path) -> None:
    clock = Clock()
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text(METRICS.format(ok=100, failed=10))
    other.write_text(METRICS.format(ok=5_000_000, failed=10))

    async def calls(meter: Meter) -> list[float]:
        clock.now_s += 2.0
        return [row.calls for row in (await meter.rates()).rows]

    with serving(tmp_path) as url:
        place = url.rpartition("/")[0]
        meter = Meter([f"{place}/one", f"{place}/other"], clock)
        assert await calls(meter) == []
        other.rename(tmp_path / "away")
        one.write_text(METRICS.format(ok=120, failed=10))
        assert await calls(meter) == [10.0]
        (tmp_path / "away").rename(other)
        assert await calls(meter) == [0.0]
        # One that was started anew has counted all that it has since the last look.
        other.write_text(METRICS.format(ok=30, failed=0))
        one.write_text(METRICS.format(ok=140, failed=10))
        assert await calls(meter) == [25.0]


async def test_metrics_that_are_none_and_services_that_are_away_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("<html>not metrics</html>")
    with serving(tmp_path) as url:
        rates = await Meter([url, "http://127.0.0.1:1/metrics", url + "/none"]).rates()
    assert rates.rows == ()
    assert [problem.split()[0] for problem in rates.problems] == ["http://127.0.0.1:1/metrics", f"{url}/none"]
    assert "start the service with --metrics-port" in rates.problems[0]
