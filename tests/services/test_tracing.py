"""Traces: client → encoder → retriever in one, by the caller's decision, and nothing of it where nobody asked."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from marquee.client import AsyncRecommender, Recommender, UserUnknown
from marquee.client.rpcs import ENCODE
from marquee.client.tracing import spans_of
from marquee.errors import ConfigError, InvalidRequest, RemoteError, from_rpc
from services.common.measures import BATCH_SIZE, Kinds, stage
from services.common.server import Life
from services.common.settings import CommonSettings, load_settings
from services.common.trace_ids import trace_id_of_call
from services.common.tracing import Tracing
from tests.bundles import make_bundle
from tests.chain_rigs import SERVICE, Served, ended, serving, settings_for
from tests.otlp_rigs import Collector, Seen, collecting
from tests.rigs import ROOT, eventually, publish, service_process

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RECORDED, NOT_RECORDED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"
NOWHERE = "http://127.0.0.1:1"
WHO = "marked-person-ada"
SIZES = Kinds("sizes", "Answers by size.", "size")
VERY_SMALL = "very small"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


async def answer(request: bytes, context: object) -> bytes:
    BATCH_SIZE.observe(3)
    SIZES.count(VERY_SMALL, 2)
    SIZES.count(VERY_SMALL)
    with stage("first"):
        await asyncio.sleep(0)
    with stage("second"):
        pass
    return trace_id_of_call().encode()


async def refuse(request: bytes, context: object) -> bytes:
    raise InvalidRequest(f"{WHO} is wrong")


async def fail(request: bytes, context: object) -> bytes:
    raise ZeroDivisionError(WHO)


async def never(request: bytes, context: object) -> bytes:
    await asyncio.Event().wait()
    return b""


METHODS = {"Answer": answer, "Refuse": refuse, "Fail": fail, "Never": never}


def called(served: Served, method: str, traceparent: str = "", timeout: float | None = None) -> Any:
    metadata = (("traceparent", traceparent),) if traceparent else ()
    multicallable: Any = served.channel.unary_unary(f"/{SERVICE}/{method}")
    return ended(multicallable(b"", metadata=metadata, timeout=timeout))


class Told(NamedTuple):
    """Is what the SDK's spans and the services' were, and what the services logged."""

    client: tuple[ReadableSpan, ...]
    services: list[Seen]
    logs: list[dict[str, Any]]


@pytest.fixture(scope="module", params=["blocking", "asyncio"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Recommends once with the SDK, from services that are processes of their own."""
    folder = tmp_path_factory.mktemp("traced")
    registry = publish(folder / "registry", make_bundle(folder / "bundle")).root
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with collecting() as collector, ExitStack() as stack:
        flags = ["--drain-s=0", "--log-level=debug", f"--otlp-endpoint={collector.endpoint}"]
        own = {"user_encoder": [f"--store={folder / 'features.sqlite'}"], "retriever": []}
        processes = [
            stack.enter_context(service_process(name, folder, registry, *flags, *added)) for name, added in own.items()
        ]
        addresses = [f"127.0.0.1:{process.port}" for process in processes]
        if request.param == "blocking":
            with Recommender(*addresses, deadline_s=20, tracer_provider=provider) as client:
                client.recommend(WHO, likes=[1], k=3, request_id="of-this-list")
        else:
            asyncio.run(_recommend(addresses, provider))
        logs = [json.loads(line) for process in processes for line in process.stop()[1].splitlines()]
        return Told(exporter.get_finished_spans(), collector.spans, logs)


async def _recommend(addresses: list[str], provider: TracerProvider) -> None:
    async with AsyncRecommender(*addresses, deadline_s=20, tracer_provider=provider) as client:
        await client.recommend(WHO, likes=[1], k=3, request_id="of-this-list")


def test_one_list_is_one_trace_through_client_encoder_and_retriever(told: Told) -> None:
    encode, search, method = told.client
    assert method.context is not None
    assert (method.name, method.parent) == ("marquee.recommend", None)
    names = {"user_encoder": "marquee.v1.UserEncoderService/Encode", "retriever": "marquee.v1.RetrieverService/Search"}
    parts = {"user_encoder": ["store", "encode"], "retriever": ["search", "finish"]}
    for call, (service, name) in zip((encode, search), names.items(), strict=True):
        assert call.context is not None
        assert (call.name, call.parent) == (name, method.context)
        assert call.kind.name == "CLIENT"
        server, *stages = [span for span in told.services if span.service == service]
        assert (server.name, server.kind, server.failed) == (name, "SERVER", False)
        assert server.parent == f"{call.context.span_id:016x}"
        assert [(span.name, span.parent) for span in stages] == [(part, server.id) for part in parts[service]]
    assert {span.trace for span in told.services} == {f"{method.context.trace_id:032x}"}


def test_a_span_says_what_became_of_its_call_and_of_nobody_whose_it_was(told: Told) -> None:
    encode, search = (next(span for span in told.services if span.name.endswith(name)) for name in ("Encode", "Search"))
    expected = {"rpc.system.name": "grpc", "rpc.response.status_code": "OK", "marquee.request_id": "of-this-list"}
    assert expected.items() <= encode.attributes.items()
    assert expected.items() <= search.attributes.items()
    assert encode.attributes["marquee.answers.request"] == 1
    assert search.attributes["marquee.lists.none"] == 1
    assert all(WHO not in str(span.message) for span in told.services)
    assert all(WHO not in span.to_json() for span in told.client)


def test_what_calls_log_has_their_request_and_their_trace(told: Told) -> None:
    lines = [line for line in told.logs if line.get("method", "").endswith(("/Encode", "/Search"))]
    assert [line["request_id"] for line in lines] == ["of-this-list"] * 2
    assert {line["trace_id"] for line in lines} == {span.trace for span in told.services}
    assert all("trace_id" not in line for line in told.logs if "method" not in line)


async def test_what_is_said_of_a_call_and_what_became_of_it_is_in_its_span(
    tmp_path: Path, collector: Collector
) -> None:
    async with serving(tmp_path, METHODS, otlp_endpoint=collector.endpoint, metrics_port=0) as served:
        for method in ("Answer", "Refuse", "Fail"):
            await called(served, method)
        await called(served, "Never", timeout=0.05)
        counted = 'grpc_server_handling_seconds_count{grpc_method="Never",'
        await eventually(lambda: _has(served, counted))
    calls = {span.name.rpartition("/")[2]: span for span in collector.spans if span.kind == "SERVER"}
    codes = {name: (span.attributes["rpc.response.status_code"], span.failed) for name, span in calls.items()}
    assert codes == {
        "Answer": ("OK", False),
        "Refuse": ("INVALID_ARGUMENT", False),
        "Fail": ("INTERNAL", True),
        "Never": ("DEADLINE_EXCEEDED", True),
    }
    assert calls["Answer"].attributes.items() >= {"marquee.batch_size": 3.0, "marquee.sizes.very_small": 3}.items()
    assert [span.name for span in collector.spans if span.parent == calls["Answer"].id] == ["first", "second"]
    assert all(WHO not in str(span.message) and not span.message.events for span in collector.spans)


async def _has(served: Served, name: str) -> bool:
    return any(key.startswith(name) and value for key, value in (await served.metrics()).items())


@pytest.mark.parametrize(
    ("share", "traceparent", "recorded"),
    [(1, "", True), (0, "", False), (1, NOT_RECORDED, False), (0, RECORDED, True), (0, "00-no-trace-01", False)],
)
async def test_the_caller_decides_and_else_the_share(
    tmp_path: Path, collector: Collector, share: float, traceparent: str, recorded: bool
) -> None:
    async with serving(tmp_path, METHODS, otlp_endpoint=collector.endpoint, trace_share=share) as served:
        trace = (await called(served, "Answer", traceparent)).decode()
    assert len(trace) == 32
    assert {span.trace for span in collector.spans} == ({trace} if recorded else set())
    if traceparent in (RECORDED, NOT_RECORDED):
        assert trace == TRACE


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (RECORDED, TRACE),
        (NOT_RECORDED, TRACE),
        (f"cc-{TRACE}-{CALLER}-01-more", TRACE),
        ("", ""),
        (f"ff-{TRACE}-{CALLER}-01", ""),
        (f"00-{'0' * 32}-{CALLER}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{CALLER}-01", ""),
        (WHO, ""),
    ],
)
async def test_without_traces_the_callers_trace_is_known_all_the_same(
    tmp_path: Path, traceparent: str, expected: str
) -> None:
    async with serving(tmp_path, METHODS) as served:
        assert await called(served, "Answer", traceparent) == expected.encode()


def test_without_traces_logs_have_the_callers_trace_and_a_request_id_that_was_made(tmp_path: Path) -> None:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root
    with service_process("retriever", tmp_path, registry, "--drain-s=0", "--log-level=debug") as process:
        with grpc.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            call: Any = channel.unary_unary("/marquee.v1.CatalogService/ListGenres")
            call(b"", metadata=(("traceparent", RECORDED),), timeout=20)
            call(b"", timeout=20)
        _, log = process.stop()
    first, second = (line for line in map(json.loads, log.splitlines()) if line.get("method", "").endswith("Genres"))
    assert (first["trace_id"], "trace_id" in second) == (TRACE, False)
    assert len(first["request_id"]) == len(second["request_id"]) == 32
    assert first["request_id"] != second["request_id"]


@pytest.mark.parametrize("tracestate", [f"{WHO},a=1,a=1", f"{WHO}={WHO}=1", f"a={WHO * 200}"])
async def test_what_callers_say_of_their_trace_is_in_no_log(
    tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture, tracestate: str
) -> None:
    async with serving(tmp_path, METHODS, otlp_endpoint=collector.endpoint) as served:
        multicallable: Any = served.channel.unary_unary(f"/{SERVICE}/Answer")
        for traceparent in (RECORDED, RECORDED * 20):
            await multicallable(b"", metadata=(("traceparent", traceparent), ("tracestate", tracestate)))
    assert WHO not in caplog.text
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_a_number_that_is_known_when_its_call_has_ended_is_left_out(
    tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    ended_before, said = asyncio.Event(), []

    async def say(request: bytes, context: object) -> bytes:
        async def later() -> None:
            await ended_before.wait()
            BATCH_SIZE.observe(3)

        said.append(asyncio.ensure_future(later()))
        return b""

    async with serving(tmp_path, {"Say": say}, otlp_endpoint=collector.endpoint) as served:
        await called(served, "Say")
        ended_before.set()
        await said[0]
    assert [span.attributes.get("marquee.batch_size", None) for span in collector.spans] == [None]
    assert "ended span" not in caplog.text


async def test_spans_go_to_their_collector_through_no_proxy(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("grpc_proxy", NOWHERE)
    tracing = Tracing("test", settings_for(tmp_path, otlp_endpoint=collector.endpoint))
    await tracing.stage(f"/{SERVICE}/Answer", answer)(b"", Mock(**{"code.return_value": None}))
    tracing.close()
    assert [span.name for span in collector.spans] == [f"{SERVICE}/Answer", "first", "second"]


async def test_a_collector_that_is_away_costs_no_call_and_ends_no_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "opentelemetry"):
        async with asyncio.timeout(30), serving(tmp_path, METHODS, otlp_endpoint=NOWHERE) as served:
            for _ in range(3):
                assert len(await called(served, "Answer")) == 32


@pytest.mark.parametrize("module", ["services.retriever.__main__", "services.user_encoder.__main__", "marquee.client"])
def test_opentelemetry_is_not_imported_where_nobody_asks_for_it(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_environment_without_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "services.common.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with pytest.raises(ConfigError, match=r"opentelemetry.context is not installed: pip install 'marquee\[tracing\]'"):
        Life(settings_for(tmp_path, otlp_endpoint=NOWHERE), [SERVICE])


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:4317",
        "grpc://a:4317",
        "http://a",
        "http://:4317",
        "http://a:4317/v1/traces",
        "http://a:b",
        "http://[a",
    ],
)
def test_an_endpoint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--otlp-endpoint: .* must be http://HOST:PORT"):
        load_settings(CommonSettings, [f"--otlp-endpoint={text}"], {})


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="--trace-share counts for nothing: give --otlp-endpoint"):
        load_settings(CommonSettings, ["--trace-share=0.5"], {})


def test_a_failed_method_and_its_call_have_the_status_and_no_text(tmp_path: Path) -> None:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    store = f"--store={tmp_path / 'features.sqlite'}"
    with service_process("user_encoder", tmp_path, registry, "--drain-s=0", store) as process:
        address = f"127.0.0.1:{process.port}"
        client = Recommender(address, address, deadline_s=20, tracer_provider=provider)
        with client, pytest.raises(UserUnknown, match=WHO):
            client.recommend(WHO, allow_cold_start=False)
    call, method = exporter.get_finished_spans()
    assert call.attributes is not None
    assert call.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert [span.status.status_code.name for span in (call, method)] == ["ERROR", "ERROR"]
    assert all(WHO not in span.to_json() and not span.events for span in (call, method))


def test_a_call_that_failed_with_a_status_of_no_error_here_has_that_status() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    error = from_rpc(grpc.StatusCode.DATA_LOSS, "gone", None)
    with pytest.raises(RemoteError), spans_of(provider, ()).call(ENCODE):
        raise error
    (call,) = exporter.get_finished_spans()
    assert call.attributes is not None
    assert call.attributes["rpc.response.status_code"] == "DATA_LOSS"
