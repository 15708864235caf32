"""Metrics: what is counted is what happened, and the names are a list under test."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marquee.errors import InvalidRequest
from services.common.measures import BATCH_SIZE, Kinds, stage
from services.common.server import AddressUnavailable, Life
from tests.bundles import make_bundle
from tests.chain_rigs import SERVICE, ended, read_metrics, serving, settings_for
from tests.rigs import eventually, publish, service_process

GRPC = {"handled", "handling_seconds", "msg_received", "msg_sent", "started"}
COMMON = {
    "batch_size",
    "bundle",
    "bundle_created_timestamp_seconds",
    "bundle_loaded_timestamp_seconds",
    "bundle_movies",
    "calls_in_flight",
    "calls_refused",
    "calls_retried",
    "calls_running",
    "calls_turned_away",
    "calls_waiting",
    "event_loop_lag_seconds",
    "registry_generation",
    "reload_failed",
    "stage_seconds",
}
ENCODER = {
    "answers",
    "blind_answers",
    "encoded_together",
    "newest_event_age_seconds",
    "refused_writes",
    "remembered_age_seconds",
    "remembered_bytes",
    "remembered_people",
    "stale_answers",
    "store_reachable",
}
RETRIEVER = {"details", "filter_matching_ratio", "index_searches", "lists"}
COLOURS = Kinds("colours", "Answers by colour.", "colour")


async def answer(request: bytes, context: object) -> bytes:
    BATCH_SIZE.observe(3)
    COLOURS.count("red", 2)
    with stage("store"):
        await asyncio.sleep(0.02)
    return b"here"


async def refuse(request: bytes, context: object) -> bytes:
    raise InvalidRequest("no")


async def fail(request: bytes, context: object) -> bytes:
    raise ZeroDivisionError


async def never(request: bytes, context: object) -> bytes:
    await asyncio.Event().wait()
    return b""


ANSWER = f'grpc_method="Answer",grpc_service="{SERVICE}",grpc_type="UNARY"'


def counted(metrics: dict[str, float], name: str) -> dict[object, float]:
    """Reads a metric of the gRPC ecosystem's, by method and, where there is one, code; other labels are the same."""
    series = re.compile(
        rf'{name}\{{(?:grpc_code="(\w+)",)?grpc_method="(\w+)",grpc_service="{SERVICE}",grpc_type="UNARY"\}}'
    )
    found = {series.fullmatch(key): value for key, value in metrics.items() if key.startswith(f"{name}{{")}
    assert None not in found
    return {(one[2], one[1]) if one[1] else one[2]: value for one, value in found.items() if one}


METHODS = {"Answer": answer, "Refuse": refuse, "Fail": fail, "Never": never}


async def test_calls_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, metrics_port=0) as served:
        for name in ("Answer", "Answer", "Refuse", "Fail"):
            await ended(served.call(name))
        await ended(served.call("Never", timeout=0.05))
        cancelled = served.call("Never")
        flying = 'marquee_test_calls_in_flight{method="Never"}'
        async with asyncio.timeout(10):
            while (await served.metrics()).get(flying) != 1:
                await asyncio.sleep(0.01)
        cancelled.cancel()
        async with asyncio.timeout(10):
            while (await served.metrics())[flying]:
                await asyncio.sleep(0.01)
        metrics = await served.metrics()
    assert counted(metrics, "grpc_server_handled_total") == {
        ("Answer", "OK"): 2,
        ("Refuse", "INVALID_ARGUMENT"): 1,
        ("Fail", "INTERNAL"): 1,
        ("Never", "DEADLINE_EXCEEDED"): 1,
        ("Never", "CANCELLED"): 1,
    }
    assert counted(metrics, "grpc_server_started_total") == {"Answer": 2, "Refuse": 1, "Fail": 1, "Never": 2}
    assert counted(metrics, "grpc_server_msg_sent_total") == {"Answer": 2, "Refuse": 0, "Fail": 0, "Never": 0}
    assert counted(metrics, "grpc_server_handling_seconds_count") == {"Answer": 2, "Refuse": 1, "Fail": 1, "Never": 2}
    assert metrics[f"grpc_server_handling_seconds_sum{{{ANSWER}}}"] >= 0.04
    assert metrics['marquee_test_batch_size_sum{method="Answer"}'] == 6
    assert metrics['marquee_test_colours_total{colour="red",method="Answer"}'] == 4
    assert metrics['marquee_test_stage_seconds_count{method="Answer",stage="store"}'] == 2
    assert metrics['marquee_test_stage_seconds_sum{method="Answer",stage="store"}'] >= 0.04
    assert metrics["marquee_test_calls_turned_away_total"] == 0


async def test_what_no_service_has_and_the_health_make_no_series(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, metrics_port=0) as served:
        await ended(served.call("Unknown"))
        await health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
        metrics = await served.metrics()
    assert not [name for name in metrics if "method=" in name or name.startswith("grpc_server_")]
    assert metrics["marquee_test_calls_turned_away_total"] == 0


async def test_the_queue_and_its_refusals_are_told(tmp_path: Path) -> None:
    settings = {"interactive_calls": 1, "waiting_calls": 2, "metrics_port": 0}
    async with serving(tmp_path, METHODS, **settings) as served:
        lane = served.life._limiter.lanes["interactive"]
        calls = []
        for number in range(1, 5):
            calls.append(asyncio.ensure_future(ended(served.call("Never"))))
            await eventually(lambda number=number: lane.running + lane.waiting + lane.refused == number)  # type: ignore[misc]
        metrics = await served.metrics()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert metrics['marquee_test_calls_running{class="interactive"}'] == 1
    assert metrics['marquee_test_calls_waiting{class="interactive"}'] == 2
    assert metrics['marquee_test_calls_refused_total{class="interactive",reason="queue_full"}'] == 1
    assert counted(metrics, "grpc_server_handled_total") == {("Never", "RESOURCE_EXHAUSTED"): 1}


async def test_an_event_loop_that_is_held_up_shows(tmp_path: Path) -> None:
    async def hold(request: bytes, context: object) -> bytes:
        time.sleep(0.3)
        return b""

    async with serving(tmp_path, {"Hold": hold}, metrics_port=0) as served:
        await served.call("Hold")
        await eventually(lambda: _late(served.life) > 0)
        metrics = await served.metrics()
    beyond = metrics["marquee_test_event_loop_lag_seconds_count"]
    assert metrics['marquee_test_event_loop_lag_seconds_bucket{le="0.1"}'] < beyond


def _late(life: Life) -> float:
    samples = next(metric for metric in life.telemetry.registry.collect() if "lag" in metric.name).samples
    within = {sample.labels.get("le"): sample.value for sample in samples}
    return within["+Inf"] - within["0.1"]


async def test_two_services_in_one_process_have_their_own(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, METHODS, metrics_port=0) as one,
        serving(tmp_path, METHODS, metrics_port=0) as other,
    ):
        await one.call("Answer")
        name = f"grpc_server_started_total{{{ANSWER}}}"
        assert (await one.metrics())[name] == 1
        assert name not in await other.metrics()


async def test_without_a_port_nothing_is_counted_and_stages_cost_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as served:
        assert await served.call("Answer") == b"here"
        assert served.life.metrics_port == 0
        families = {metric.name: metric.samples for metric in served.life.telemetry.registry.collect()}
    assert families["grpc_server_started"] == families["marquee_test_batch_size"] == []


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        match = f"cannot listen on 127.0.0.1:{port} .address already in use.; .* with --metrics-port"
        with pytest.raises(AddressUnavailable, match=match):
            await Life(settings_for(tmp_path, metrics_port=port), [SERVICE]).__aenter__()


@pytest.mark.parametrize(("service", "own"), [("retriever", RETRIEVER), ("user_encoder", ENCODER)])
def test_the_names_are_these(tmp_path: Path, service: str, own: set[str]) -> None:
    publish(tmp_path / "registry", make_bundle(tmp_path / "bundle"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    store = [f"--store={tmp_path / 'features.sqlite'}"] if service == "user_encoder" else []
    arguments = (f"--metrics-port={port}", "--drain-s=0", *store)
    with service_process(service, tmp_path, tmp_path / "registry", *arguments):
        text = read_metrics(port)
    typed = re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)
    names = {re.sub("_(total|info)$", "", name) for name in typed if not name.endswith("_created")}
    ours = {f"marquee_{service}_{name}" for name in COMMON | own}
    assert names == ours | {f"grpc_server_{name}" for name in GRPC}
    assert f'marquee_{service}_bundle_info{{bundle_id="' in text
