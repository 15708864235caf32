"""What a service answers in time when more is asked of it than it can: an open loop at 1, 1.5 and 3 times its peak.

By connections that know nothing of overload, and where one core of the SDK can ask for so much, by SDK clients.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.caller import draw_users
from benchmarks.flooding import Flooded, run_flood, written
from benchmarks.machine import Shares, resident_bytes, shares
from benchmarks.processes import Server
from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee.bundle.format import open_bundle
from marquee.v1 import user_encoder_pb2

_METHOD = "/marquee.v1.UserEncoderService/Encode"
_SECONDS = 5.0
_DEADLINE_S = 0.25
_PROBE_EVERY_S = 0.1


class _Case(NamedTuple):
    """Is a tower to ask too much of; `goals` are parts of the peak, by how many times the peak is asked.

    `sdk`: it is so dear that SDK clients on one core can ask for more than it can do.
    """

    name: str
    registry: Path
    goals: dict[float, float | None]
    sdk: bool


class _Probed(NamedTuple):
    """Says how the health was meanwhile."""

    asked: int
    not_serving: int
    slowest_ms: float

    def __str__(self) -> str:
        return f"health not SERVING {self.not_serving} of {self.asked} times, slowest {self.slowest_ms:.0f} ms"


def measure(work: Work) -> list[Row]:
    """Overloads the encoder with the pooled tower, which is cheap, and with the sequence tower, which is not."""
    cheap = _Case("Encode by id, pooled tower", work.registry, {1.0: None, 1.5: 0.85, 3.0: 0.50}, sdk=False)
    dear = _Case("Encode by id, sequence tower", _sequence(work), {1.0: None, 1.5: None, 3.0: 0.60}, sdk=True)
    return [row for case in (cheap, dear) for row in _overload(work, shares(), case)]


def _sequence(work: Work) -> Path:
    say("training a sequence tower for an epoch")
    bundle, registry = work.folder / "overload-bundle", work.folder / "overload-registry"
    told = ("--data", work.data, "--out", bundle, "--epochs", "1", "--tower", "sequence")
    work.processes.run("training", *told)
    at = ("--registry", registry, "--force")
    work.processes.run("marquee.bundle", "publish", bundle, *at)
    work.processes.run("marquee.bundle", "activate", *at, open_bundle(bundle).space)
    return registry


def _overload(work: Work, cores: Shares, case: _Case) -> Iterator[Row]:
    users = draw_users(work.data)
    requests = [user_encoder_pb2.EncodeRequest(user_id=user, allow_cold_start=True) for user in users]
    flooded = Flooded(case.name, _METHOD, [request.SerializeToString() for request in requests])
    told = ("--registry", case.registry, "--store", work.store, "--log-format", "text", "--metrics-port", "0")
    with work.processes.serve("services.user_encoder", *told, cores=cores.servers) as server:
        say(f"flooding: {case.name}")
        peak = statistics.median(block[0] for block in run_flood(work, cores, flooded, [server]))
        for sdk in (False, True) if case.sdk else (False,):
            for times in case.goals:
                yield _row(work, cores, case, server, flooded, peak, times, sdk=sdk)
        after = _ask(work, cores, server, flooded, peak / 2, sdk=False)
    share = after.get("OK", 0) / after["sent"]
    what = f"{case.name}: answered of half the peak, in the {_SECONDS:g} s after that"
    yield Row("overload", what, share, "×", 0.99, _told(after), after, at_least=True)


def _row(
    work: Work,
    cores: Shares,
    case: _Case,
    server: Server,
    flooded: Flooded,
    peak: float,
    times: float,
    *,
    sdk: bool,
) -> Row:
    who = "by SDK clients, " if sdk else ""
    say(f"asking {times:g} times the peak, {who}{case.name}")
    with _probing(server.address) as probed:
        ended = _ask(work, cores, server, flooded, peak * times, sdk=sdk)
    resident = resident_bytes(server.child.process.pid) or 0
    share = ended.get("OK", 0) / _SECONDS / peak
    beside = f"{_told(ended)}; peak {peak:,.0f}/s; {probed[0]}; {resident / 1e6:.0f} MB resident"
    what = f"{case.name}, {who}at {times:g} times the peak: answered within {_DEADLINE_S:g} s, of the peak"
    return Row("overload", what, share, "×", case.goals[times], beside, ended, at_least=True)


def _ask(work: Work, cores: Shares, server: Server, flooded: Flooded, rate: float, *, sdk: bool) -> dict[str, int]:
    told = ("--address", server.address, "--requests", written(work, flooded.requests))
    how = ("--rate", str(rate), "--seconds", str(_SECONDS), "--deadline-s", str(_DEADLINE_S))
    module = ("benchmarks.sdkloop",) if sdk else ("benchmarks.openloop", "--method", flooded.method)
    ended = work.processes.run(*module, *told, *how, cores=cores.caller)
    counts: dict[str, int] = json.loads(ended.stdout)
    return counts


def _told(ended: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(ended.items()))


@contextlib.contextmanager
def _probing(address: str) -> Iterator[Sequence[_Probed]]:
    """Asks for the health all the time, in a thread; the list has what it found when the block has ended."""
    found: list[_Probed] = []
    stop = threading.Event()
    thread = threading.Thread(target=lambda: found.append(_probe(address, stop)))
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _probe(address: str, stop: threading.Event) -> _Probed:
    asked, not_serving, slowest_s = 0, 0, 0.0
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while not stop.wait(_PROBE_EVERY_S):
            asked, began = asked + 1, time.perf_counter()
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=1.0)
                not_serving += answer.status != health_pb2.HealthCheckResponse.SERVING
            except grpc.RpcError:
                not_serving += 1
            slowest_s = max(slowest_s, time.perf_counter() - began)
    return _Probed(asked, not_serving, slowest_s * 1000)
