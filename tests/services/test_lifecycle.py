"""The life of a service: processes, signals, health, exit codes, and what becomes of errors."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from marquee.bundle.format import INDEX, MOVIE_IDS, Bundle
from marquee.errors import MarqueeError
from marquee.v1 import retriever_pb2, retriever_pb2_grpc
from services.common.server import AddressUnavailable, Life
from services.common.settings import CommonSettings
from tests.bundles import make_bundle
from tests.chain_rigs import serving
from tests.restart_rigs import restart
from tests.rigs import DEADLINE_S, ROOT, error_of, eventually, publish, retriever, retriever_process, run_retriever

Stub: TypeAlias = "retriever_pb2_grpc.RetrieverServiceAsyncStub"
SERVICE = "marquee.v1.RetrieverService"
HEALTHY_ROUND_ROBIN = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": SERVICE}}
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "one", movies=30)


@pytest.fixture
def registry(tmp_path: Path, bundle: Bundle) -> Path:
    publish(tmp_path / "registry", bundle)
    return tmp_path / "registry"


def search_request(bundle: Bundle) -> retriever_pb2.SearchRequest:
    return retriever_pb2.SearchRequest(vector=b"\0\0\x80?" * 16, space=bundle.space, k=10)


def stub_of(channel: grpc.aio.Channel) -> Stub:
    return cast("Stub", retriever_pb2_grpc.RetrieverServiceStub(channel))


class Load:
    """Searches without a pause, eight at a time, until told to stop; any call that fails ends it with its error."""

    def __init__(self, search: Stub, request: retriever_pb2.SearchRequest) -> None:
        self._search, self._request = search, request
        self._stopped = False
        self.answered = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(self._loop())

    async def _loop(self) -> None:
        while not self._stopped:
            answer = await self._search.Search(self._request, timeout=DEADLINE_S)
            assert len(answer.movie_ids) == 10
            self.answered += 1

    async def answers(self, more: int) -> None:
        """Waits until that many more calls were answered."""
        target = self.answered + more
        async with asyncio.timeout(DEADLINE_S):
            while self.answered < target:
                await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._stopped = True


async def test_a_replica_that_stops_under_load_loses_no_call(tmp_path: Path, registry: Path, bundle: Bundle) -> None:
    with (
        retriever_process(tmp_path, registry) as stopping,
        retriever_process(tmp_path, registry) as staying,
    ):
        target = f"ipv4:127.0.0.1:{stopping.port},127.0.0.1:{staying.port}"
        async with grpc.aio.insecure_channel(target, options=[("grpc.service_config", HEALTHY_ROUND_ROBIN)]) as channel:
            load = Load(stub_of(channel), search_request(bundle))
            running = asyncio.ensure_future(load.run())
            await load.answers(200)
            code, log = await asyncio.to_thread(stopping.stop)
            await load.answers(200)
            load.stop()
            await running
    assert code == 0, log
    assert "stopping on SIGTERM" in log


async def test_replicas_are_restarted_in_turn_and_an_sdk_client_notices_nothing(
    tmp_path: Path, registry: Path, bundle: Bundle
) -> None:
    # Its connections hold health watches open all the time. A deadline that no busy machine passes: how long calls
    # take is measured by `python -m benchmarks.restarts`, twenty times.
    movie = int(np.load(bundle.path / MOVIE_IDS)[0])
    counts = await restart(tmp_path, registry, movie, rounds=3, deadline_s=10.0)
    assert counts.failed == 0, counts.errors
    assert counts.retried <= counts.calls / 100, counts


async def test_callers_that_watch_the_health_lose_no_call_of_the_only_replica(
    tmp_path: Path, registry: Path, bundle: Bundle
) -> None:
    with retriever_process(tmp_path, registry, "--drain-s=0.5") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            load = Load(stub_of(channel), search_request(bundle))
            running = asyncio.ensure_future(load.run())
            await load.answers(100)
            stopping = asyncio.ensure_future(asyncio.to_thread(process.stop))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            load.stop()
            await running
            code, log = await stopping
    assert code == 0, log


def test_the_port_file_is_there_while_serving(tmp_path: Path, registry: Path) -> None:
    with retriever_process(tmp_path, registry, "--drain-s=0") as process:
        (port_file,) = tmp_path.glob("port-*")
        assert port_file.read_text() == f"{process.port}\n"
        code, _ = process.stop()
    assert code == 0
    assert not port_file.exists()


def test_logs_are_json_lines_and_begin_with_the_settings(tmp_path: Path, registry: Path) -> None:
    with retriever_process(tmp_path, registry, "--drain-s=0") as process:
        _, log = process.stop()
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[0]["settings"]["drain_s"] == 0.0
    assert lines[0]["settings"]["registry"] == str(registry)
    assert {line["service"] for line in lines} == {"retriever"}
    assert {line["level"] for line in lines} == {"INFO"}
    assert lines[-1]["message"] == "stopped"


_LOGS = """
import logging
from services.common.logs import configure_logs
from services.common.settings import CommonSettings

configure_logs("test", CommonSettings())
log = logging.getLogger("grpc._cython.cygrpc")
log.error("ExecuteBatchError raised in core by servicer method [/a.B/C]")
log.error("something else")
"""


def test_callers_that_have_gone_are_no_error() -> None:
    ended = subprocess.run([sys.executable, "-c", _LOGS], cwd=ROOT, capture_output=True, text=True, check=True)
    messages = [json.loads(line)["message"] for line in ended.stderr.splitlines()]
    assert messages[1:] == ["something else"]


async def test_calls_are_logged_at_the_level_debug(tmp_path: Path, registry: Path, bundle: Bundle) -> None:
    with retriever_process(tmp_path, registry, "--drain-s=0", "--log-level=debug") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            request = search_request(bundle)
            request.request_id = "of the caller"
            await stub_of(channel).Search(request)
            request.k = -1
            with pytest.raises(grpc.aio.AioRpcError):
                await stub_of(channel).Search(request)
        _, log = await asyncio.to_thread(process.stop)
    lines = [json.loads(line) for line in log.splitlines()]
    calls = [line for line in lines if line.get("method") == f"/{SERVICE}/Search"]
    assert [(line["code"], line["request_id"]) for line in calls] == [
        ("OK", "of the caller"),
        ("INVALID_ARGUMENT", "of the caller"),
    ]
    assert all(line["ms"] > 0 for line in calls)


async def test_a_call_that_was_given_up_is_not_logged_as_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    async def wait(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    def codes() -> list[str]:
        return [vars(record)["code"] for record in caplog.records if "code" in vars(record)]

    with caplog.at_level(logging.DEBUG, "services.common.interceptors"):
        async with serving(tmp_path, {"Wait": wait}) as served:
            call = served.call("Wait")
            await begun.wait()
            call.cancel()
            await eventually(lambda: bool(codes()))
            assert codes() == ["CANCELLED"]
            caplog.clear()
            # gRPC tells the server a longer one where it has more digits than gRPC writes: 1.01 s for the last.
            for deadline_s in (0.1, 1.001):
                with pytest.raises(grpc.aio.AioRpcError):
                    await served.call("Wait", timeout=deadline_s)
                await eventually(lambda: bool(codes()))
                assert codes() == ["DEADLINE_EXCEEDED"]
                caplog.clear()


def test_a_second_server_on_the_port_is_refused_in_a_sentence(tmp_path: Path, registry: Path) -> None:
    with retriever_process(tmp_path, registry) as first:
        address = f"127.0.0.1:{first.port}"
        second = run_retriever(f"--listen={address}", f"--registry={registry}")
        assert second.returncode == 4
        message = json.loads(second.stderr.splitlines()[-1])["message"]
        assert message == (
            f"cannot listen on {address} (address already in use); stop the program that does, or choose another "
            "address with --listen"
        )
        assert "Traceback" not in second.stderr


def test_no_registry_ends_in_a_sentence(tmp_path: Path) -> None:
    ended = run_retriever("--listen=127.0.0.1:0", f"--registry={tmp_path / 'none'}")
    assert ended.returncode == 3
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["level"] == "ERROR"
    assert "there is no registry here" in last["message"]
    assert "Traceback" not in ended.stderr


def test_wrong_settings_end_in_a_sentence() -> None:
    ended = run_retriever("--port=1", "--threads=0")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("python -m services.retriever: --port is not a setting; did you mean")
    assert "--threads: '0' must be at least 1" in line


def test_help_is_not_an_error() -> None:
    ended = run_retriever("--help")
    assert ended.returncode == 0
    assert "--listen  MARQUEE_LISTEN" in ended.stdout


async def test_a_process_takes_a_new_space_in_and_keeps_a_bad_one_out(
    tmp_path: Path, registry: Path, bundle: Bundle
) -> None:
    new = make_bundle(tmp_path / "new", movies=30, seed=2)
    bad = make_bundle(tmp_path / "bad", movies=30, seed=3)
    with retriever_process(tmp_path, registry, "--poll-s=0.02") as process:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
            search = stub_of(channel)
            publish(registry, new)
            state = await _state(search, lambda state: len(state.bundles) == 2 and state.bundles[0].space == new.space)
            assert [one.space for one in state.bundles] == [new.space, bundle.space]
            for space in (new.space, bundle.space):
                assert (
                    await search.Search(retriever_pb2.SearchRequest(vector=b"\0\0\x80?" * 16, space=space, k=1))
                ).space

            _break_and_point_to(registry, bad)
            state = await _state(search, lambda state: bool(state.reload_error))
            assert [one.space for one in state.bundles] == [new.space, bundle.space]
            assert bad.id in state.reload_error
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await search.Search(search_request(bad))
            assert failure.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        code, log = await asyncio.to_thread(process.stop)
    assert code == 0
    errors = [json.loads(line) for line in log.splitlines() if '"ERROR"' in line]
    assert len(errors) == 1


def _break_and_point_to(registry: Path, bad: Bundle) -> None:
    # Damaged where it lies, before the pointer names it: then no look at the pointer finds it whole.
    place = registry / "bundles" / bad.id
    bad.path.rename(place)
    pointer = json.loads((registry / "registry.json").read_text())
    index = place / INDEX
    index.write_bytes(bytes(index.stat().st_size))
    pointer["generation"] += 1
    pointer["standby"] = bad.id
    pointer["history"].append(
        {"generation": pointer["generation"], "active": pointer["active"], "standby": bad.id, "at": "", "what": "test"}
        | {"restored": 0}
    )
    temporary = registry / "new-pointer"
    temporary.write_text(json.dumps(pointer))
    temporary.rename(registry / "registry.json")


async def _state(search: Stub, wanted: Any) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            state = (await search.GetIndex(retriever_pb2.GetIndexRequest())).state
            if wanted(state):
                return state
            await asyncio.sleep(0.02)


async def test_health_is_told_for_each_service_and_for_the_whole(registry: Path) -> None:
    async with retriever(registry) as rig:
        health = health_pb2_grpc.HealthStub(rig.channel)
        names = ["", "liveness", "readiness", SERVICE, "marquee.v1.CatalogService"]
        for name in names:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert sorted((await health.List(health_pb2.HealthListRequest())).statuses) == sorted(names)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert failure.value.code() == grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_an_open_watch_hears_of_the_end_and_does_not_hold_it_up(registry: Path) -> None:
    async with retriever(registry, grace_s=60.0) as rig:
        watches = [
            health_pb2_grpc.HealthStub(rig.channel).Watch(health_pb2.HealthCheckRequest(service=name))
            for name in ("", SERVICE)
        ]
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        rig.life.stop()
        async with asyncio.timeout(30):
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                assert await watch.read() is grpc.aio.EOF
    # An open stream would have taken all of the grace.
    assert time.monotonic() - started < 30


def settings_for(registry: Path, **fields: Any) -> CommonSettings:
    return dataclasses.replace(CommonSettings(listen="127.0.0.1:0", registry=registry, drain_s=0.0), **fields)


@contextlib.asynccontextmanager
async def running(life: Life) -> AsyncIterator[grpc.aio.Channel]:
    async with life:
        run = asyncio.ensure_future(life.run())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{life.port}") as channel:
            await channel.channel_ready()
            yield channel
        life.stop()
        await run


@pytest.mark.parametrize("enabled", [False, True])
async def test_reflection_is_off_unless_asked_for(tmp_path: Path, enabled: bool) -> None:
    async with running(Life(settings_for(tmp_path, reflection=enabled), [])) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if enabled:
            names = {service.name async for answer in call for service in answer.list_services_response.service}
            assert "grpc.health.v1.Health" in names
        else:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call.read()
            assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_background_work_that_fails_takes_the_service_down(tmp_path: Path) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("background")

    with pytest.raises(ZeroDivisionError):
        async with Life(settings_for(tmp_path), []) as life:
            await life.run(fail())
    with socket.create_server(("127.0.0.1", life.port)):
        pass


async def test_a_taken_address_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressUnavailable, match=f"cannot listen on {address} .address already in use."):
            await Life(settings_for(tmp_path, listen=address), []).__aenter__()


_LOADS_FOREVER = """
import asyncio, pathlib, sys
from services.common.server import Life, run_service
from services.common.settings import CommonSettings

async def serve(settings):
    async with Life(settings, []):
        pathlib.Path(settings.registry).touch()
        await asyncio.sleep(3600)

sys.exit(run_service("test", "Loads.", CommonSettings, serve))
"""


def test_a_signal_while_loading_ends_the_process(tmp_path: Path) -> None:
    mark = tmp_path / "loading"
    command = [sys.executable, "-c", _LOADS_FOREVER, "--listen=127.0.0.1:0", f"--registry={mark}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, log
    assert "Traceback" not in log


async def test_an_unknown_error_is_internal_with_an_id_and_no_word_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: bytes, context: object) -> bytes:
        raise RuntimeError("the secret of user 17")

    life = Life(settings_for(tmp_path), [])
    async with life:
        handler: Any = grpc.unary_unary_rpc_method_handler(cast("Any", fail))
        life.server.add_registered_method_handlers("t.T", {"Fail": handler})
        life.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Fail": handler}),))
        run = asyncio.ensure_future(life.run())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{life.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await cast("Any", channel.unary_unary("/t.T/Fail"))(b"", wait_for_ready=True)
        life.stop()
        await run
    assert failure.value.code() == grpc.StatusCode.INTERNAL
    error = error_of(failure.value)
    assert isinstance(error, MarqueeError)
    assert "secret" not in error.message
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.error_id in error.message  # type: ignore[attr-defined]
    assert record.exc_info is not None
    assert "the secret of user 17" in caplog.text
