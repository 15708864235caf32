"""The load tester as a process, against servers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet as pq
import pytest
import trustme

from clients.loadtest.app import run
from clients.loadtest.target import ENCODE, GET_INDEX, GET_MODEL, RECORD, SEARCH, TOP_MOVIES
from marquee.v1 import live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import encoder
from tests.loadtest.rig import DIMENSION, VECTOR, Finished, Scripted, finish, load_test, press_ctrl_c, serving, start
from tests.rigs import publish, retriever
from tests.secured import chain_of

SHORT = ("--rate=100", "--duration=1s", "--arrivals=constant")


async def test_the_services_are_asked_as_people_would(tmp_path: Path) -> None:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root
    async with encoder(registry, tmp_path / "features.sqlite") as users, retriever(registry) as movies:
        addresses = (f"127.0.0.1:{users.port}", f"--retriever=127.0.0.1:{movies.life.port}")
        scenario = "--scenario=recommend=3,record=2,search=1,encode=1"
        ended = await load_test(addresses[0], tmp_path / "out", *addresses[1:], scenario, "--processes=2", *SHORT)
        # 4 where this machine is too busy to send in time.
        assert (ended.code in (0, 4), ended.err) == (True, "")
        total = ended.report["total"]
        assert (total["ok"], total["errors"], total["degraded"], total["cold_starts"]) == (100, {}, 0, 0)
        assert sum(one["calls"] for one in ended.report["scenarios"].values()) == 100
        assert set(ended.report["scenarios"]) == {"recommend", "record", "search", "encode"}
        assert ended.report["verdict"]["outcome"] in ("measured", "client limited")
        page = await users.features.ExportEvents(live_features_pb2.ExportEventsRequest())
    stored = pq.read_table(io.BytesIO(page.parquet)).column("user_id").to_pylist()
    assert len(stored) >= ended.report["scenarios"]["record"]["ok"] > 10
    assert all(user.startswith("loadtest-") for user in stored)
    assert ended.report["target"]["movies"] == 50


async def test_what_had_to_wait_is_not_forgotten(tmp_path: Path) -> None:
    """A server that stands still for a second holds up 100 of 400 calls: half of these by half a second and more."""
    script = Scripted()
    stalled = asyncio.Event()

    async def encode(request: bytes, context: Any) -> bytes:
        if len(script.asked(ENCODE)) > 150 and not stalled.is_set():
            stalled.set()
            # On purpose: nothing else is answered meanwhile, either.
            time.sleep(1)
        return user_encoder_pb2.EncodeResponse(vector=VECTOR, space="a").SerializeToString()

    script.answers[ENCODE] = encode
    async with serving(script) as address:
        options = ("--scenario=encode", "--rate=100", "--duration=4s", "--arrivals=constant")
        ended = await load_test(address, tmp_path / "out", *options)
    total = ended.report["total"]
    assert total["calls"] == total["ok"] == 400
    assert 850 < total["latency"]["max"] < 2_000
    # 50 of 400 waited for more than half a second, 10 for more than 900 ms.
    assert total["latency"]["p90"] > 400
    assert total["latency"]["p50"] < 400
    assert max(tick["in_flight"] for tick in ended.report["timeline"]) > 20


async def test_a_closed_loop_has_as_many_calls_in_flight_as_callers(tmp_path: Path) -> None:
    script = Scripted()
    flying, most = 0, 0

    async def encode(request: bytes, context: Any) -> bytes:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.01)
        flying -= 1
        return user_encoder_pb2.EncodeResponse(vector=VECTOR, space="a").SerializeToString()

    script.answers[ENCODE] = encode
    async with serving(script) as address:
        ended = await load_test(
            address, tmp_path / "out", "--scenario=encode", "--closed=7", "--processes=2", "--duration=1s"
        )
    assert most == 7
    # Until the last callers stop, each has one.
    assert ended.report["timeline"][0]["in_flight"] == 7
    stage = ended.report["stages"][1]
    assert (stage["name"], stage["wanted"]) == ("7 callers", None)
    assert stage["figures"]["latency"]["p50"] >= 10
    # Little's law: callers = rate × latency.
    assert stage["figures"]["rate"] * stage["figures"]["latency"]["mean"] / 1000 == pytest.approx(7, rel=0.3)


async def test_errors_are_counted_by_code_and_limits_fail_the_run(tmp_path: Path) -> None:
    script = Scripted()

    async def search(request: bytes, context: Any) -> bytes:
        number = len(script.asked(SEARCH)) % 4
        if number == 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too <many> calls")
        count = 9 if number == 1 else 10
        movies = [types_pb2.Movie(movie_id=1)] * count
        found = retriever_pb2.SearchResponse(movie_ids=[1] * count, scores=[1.0] * count, movies=movies)
        return found.SerializeToString()

    script.answers[SEARCH] = search
    async with serving(script) as address:
        ended = await load_test(
            address, tmp_path / "out", "--scenario=search", *SHORT, "--fail-if=errors>1%", "--fail-if=p50>10s"
        )
    total = ended.report["total"]
    assert total["errors"] == {"BAD_ANSWER": 25, "RESOURCE_EXHAUSTED": 25}
    assert total["ok"] == total["calls"] - 50 == 50
    assert ended.report["failures"] == {
        "BAD_ANSWER": "9 movies came for k = 10, without a reason",
        "RESOURCE_EXHAUSTED": "too <many> calls",
    }
    assert [one["failed"] for one in ended.report["judged"]] == [True, False]
    assert "too &lt;many&gt; calls" in ended.page
    assert "OVER  --fail-if errors>1%: 50.00%" in ended.out
    assert ended.code in (3, 4)


async def test_a_deadline_ends_calls(tmp_path: Path) -> None:
    script = Scripted()

    async def never(request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    script.answers[SEARCH] = never
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out", "--scenario=search", *SHORT, "--deadline=0.3")
    assert ended.report["total"]["errors"] == {"DEADLINE_EXCEEDED": 100}
    assert ended.report["verdict"]["outcome"] == "failed"
    assert "no call was answered well (100 × DEADLINE_EXCEEDED)" in ended.out
    assert ended.code == 3


LOADS = {
    "answered": ("--rate=50", "--duration=10m"),
    "hung, open loop": ("--rate=50", "--duration=10m"),
    "hung, closed loop": ("--closed=6", "--duration=10m"),
    "hung, in a search": ("--find-max", "--objective=p99<50ms", "--step=10m"),
}


@pytest.mark.parametrize("case", LOADS)
async def test_ctrl_c_ends_it_at_once_with_what_was_measured(tmp_path: Path, case: str) -> None:
    ended, took_s = await interrupted(tmp_path, hung=case != "answered", load=LOADS[case])
    assert ended.code == 130
    assert ended.err == ""
    assert ended.report["interrupted"]
    assert ended.report["verdict"]["outcome"] == "interrupted"
    assert ended.report["total"]["ok"] > 0
    assert "Interrupted; up to then:" in ended.page
    # Far less than the minute that calls hang for; two seconds where nothing else runs.
    assert took_s < 20


async def interrupted(folder: Path, *, hung: bool, load: Sequence[str]) -> tuple[Finished, float]:
    """Presses Ctrl-C once some calls were answered and, where calls are to hang, the rest hang: for a minute."""
    script = Scripted()
    answered, hanging = asyncio.Event(), 0

    async def encode(request: bytes, context: Any) -> bytes:
        nonlocal hanging
        if len(script.asked(ENCODE)) >= 40:
            answered.set()
            if hung:
                hanging += 1
                await asyncio.Event().wait()
        await asyncio.sleep(0.05)
        return user_encoder_pb2.EncodeResponse(vector=VECTOR, space="a").SerializeToString()

    script.answers[ENCODE] = encode
    async with serving(script) as address:
        told = ("--scenario=encode", "--deadline=60", "--processes=3", *load)
        process = await start(address, folder, *told)
        async with asyncio.timeout(60):
            await answered.wait()
            while hung and hanging < 6:
                await asyncio.sleep(0.02)
        began = time.monotonic()
        press_ctrl_c(process)
        ended = await finish(process, folder)
    return ended, time.monotonic() - began


async def test_a_search_for_the_highest_rate_finds_what_a_server_can_do(tmp_path: Path) -> None:
    script = Scripted()
    turn = asyncio.Lock()

    async def encode(request: bytes, context: Any) -> bytes:
        # One at a time, 8 ms each: 125 a second, and not one more.
        async with turn:
            await asyncio.sleep(0.008)
        return user_encoder_pb2.EncodeResponse(vector=VECTOR, space="a").SerializeToString()

    script.answers[ENCODE] = encode
    options = ("--find-max", "--objective=p90<150ms", "--step=1s", "--precision=0.5", "--arrivals=constant")
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out", "--scenario=encode", "--deadline=1", *options)
    found = ended.report["saturation"]
    attempts = found["attempts"]
    assert min(one["wanted"] for one in attempts) <= 50
    # A second of 200 a second leaves 75 in the queue: the last of them wait for 600 ms.
    assert not any(one["held"] for one in attempts if one["wanted"] >= 200)
    assert found["best"] == max((one["wanted"] for one in attempts if one["held"]), default=None)
    # A machine that is busy makes the client late, and then the search says so in place of an end.
    assert any(not one["held"] for one in attempts)
    limited = any(one["client_limited"] for one in attempts)
    assert found["bounded"] or found["best"] is None or limited
    assert (ended.code in (0, 3)) or limited
    assert "Latency by rate" in ended.page
    assert "knee: " in ended.page or found["best"] is None


async def test_a_client_that_cannot_send_so_much_says_so(tmp_path: Path) -> None:
    script = Scripted()
    async with serving(script) as address:
        ended = await load_test(
            address, tmp_path / "out", "--scenario=encode", "--rate=60000", "--duration=100ms", "--deadline=20"
        )
    assert ended.code == 4
    assert ended.report["verdict"]["outcome"] == "client limited"
    assert ended.report["client"]["reasons"]
    assert "The load tester was the limit" in ended.out


async def test_a_terminal_shows_how_it_goes(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    async with serving(Scripted()) as address:
        process = await start(address, tmp_path / "out", "--rate=50", "--duration=2s", stderr=theirs)
        await finish(process, tmp_path / "out")
    os.close(theirs)
    shown = read_all(ours).decode()
    assert "50/s wanted" in shown
    assert re.search(r"\d+/s answered\s+p50 [\d.]+ p99 [\d.]+ ms", shown), shown


def read_all(terminal: int) -> bytes:
    """Reads what a terminal was told whose other end is closed: Linux then says EIO, and others nothing."""
    told = b""
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as stream:
        while more := stream.read(4096):
            told += more
    return told


async def test_a_key_goes_along_and_is_not_in_the_report(tmp_path: Path) -> None:
    script = Scripted()
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out", *SHORT, "--api-key", "s3cret")
    assert all(one["authorization"] == "Bearer s3cret" for one in script.metadata)
    assert "s3cret" not in json.dumps(ended.report) + ended.page + ended.out
    assert "--api-key …" in ended.report["setup"]["command"].replace("'", "")


async def test_over_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain_of(issued))])
    script = Scripted()
    async with serving(script, credentials) as address:
        ended = await load_test(address, tmp_path / "out", *SHORT, f"--tls-ca={tmp_path / 'ca.pem'}")
        assert ended.report["total"]["ok"] == 100
        for flags, told in (((), "TLS"), (("--tls",), "is not signed by whom this client trusts")):
            refused = await load_test(address, tmp_path / "none", *SHORT, "--deadline=2", *flags)
            # gRPC's core may have written a line of its own before.
            assert (refused.code, told in refused.err.splitlines()[-1]) == (1, True), refused.err


async def test_only_what_a_scenario_needs_is_asked(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n1,10,4\n")
    script = Scripted()
    async with serving(script) as address:
        nowhere = "--retriever=127.0.0.1:1"
        data = f"--data={tmp_path}"
        ended = await load_test(address, tmp_path / "out", "--scenario=encode", nowhere, data, *SHORT)
    assert ended.report["total"]["ok"] == 100
    assert {path for path, _ in script.calls} == {GET_MODEL, ENCODE}
    assert list(ended.report["target"]["addresses"]) == ["user_encoder"]


async def test_cold_starts_and_degraded_answers_are_told(tmp_path: Path) -> None:
    script = Scripted()
    source = user_encoder_pb2.FEATURE_SOURCE_COLD_START
    script.answer(ENCODE, user_encoder_pb2.EncodeResponse(vector=VECTOR, space="a", source=source, degraded=True))
    async with serving(script) as address:
        ended = await load_test(
            address, tmp_path / "out", *SHORT, "--scenario=recommend=1,record=1", "--fail-if=degraded>5%"
        )
    notes = " ".join(ended.report["notes"])
    assert "answers were degraded: the store of people's events could not be read" in notes
    assert "100% of those who were encoded are people of whom nothing is known: import the events of --data" in notes
    recorded = ended.report["scenarios"]["record"]["ok"]
    assert f"{recorded:,} events were recorded, for people whose ids begin with 'loadtest-'" in notes
    assert ended.code in (3, 4)


@contextmanager
def metrics_page(texts: list[str | None]) -> Iterator[str]:
    """Serves texts one after the other, None as an error."""
    left = list(texts)

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = left.pop(0)
            self.send_response(200 if text is not None else 500)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def exposed(total_s: float, count: int) -> str:
    name = "marquee_stage_seconds"
    return (
        f'# TYPE {name} histogram\n{name}_bucket{{stage="onnx",le="+Inf"}} {count}\n'
        f'{name}_sum{{stage="onnx"}} {total_s}\n{name}_count{{stage="onnx"}} {count}\n'
        "# TYPE other_total counter\nother_total 5\n"
        # How old something is, is not how long anything took.
        f"# TYPE event_age_seconds histogram\nevent_age_seconds_count {count}\nevent_age_seconds_sum {1e6 * total_s}\n"
    )


async def test_what_the_services_timed_is_reported(tmp_path: Path) -> None:
    script = Scripted()
    with metrics_page([exposed(1.0, 100), exposed(1.6, 300)]) as url, metrics_page([None, None]) as broken:
        async with serving(script) as address:
            ended = await load_test(address, tmp_path / "out", *SHORT, f"--metrics={url}", f"--metrics={broken}")
    (stage,) = ended.report["server"]
    assert (stage["metric"], stage["labels"], stage["count"]) == ("marquee_stage_seconds", {"stage": "onnx"}, 200)
    # 0.6 s over 200 calls.
    assert stage["mean_ms"] == pytest.approx(3.0)
    assert any(f"{broken} could not be read" in note for note in ended.report["notes"])


async def test_an_earlier_run_stands_beside(tmp_path: Path) -> None:
    script = Scripted()
    async with serving(script) as address:
        await load_test(address, tmp_path / "first", *SHORT)
        earlier = f"--compare={tmp_path / 'first' / 'report.json'}"
        ended = await load_test(address, tmp_path / "second", *SHORT, earlier)
        assert "Beside the run of 20" in ended.page
        assert "earlier run, from when it was due" in ended.page
        for text, told in (("{}", "is no report of marquee-loadtest/1"), ("{", "is no report")):
            (tmp_path / "bad.json").write_text(text)
            refused = await load_test(address, tmp_path / "none", f"--compare={tmp_path / 'bad.json'}")
            assert (refused.code, told in refused.err) == (1, True)


async def test_the_page_asks_nothing_of_any_server(tmp_path: Path) -> None:
    script = Scripted()
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out", *SHORT)
    assert not re.search(r"(src|href|url)\s*[=(]", ended.page)
    assert "<script" not in ended.page
    assert "prefers-color-scheme:dark" in ended.page
    assert ended.page.count("<svg") == 5
    assert all(f'aria-label="{title}' in ended.page for title in ("Latency by percentile", "Rate wanted and achieved"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--stages=10@5",), "argument --stages: stage 1, '10@5': '10' is no duration"),
        (("--find-max",), "--find-max looks for the highest rate under an --objective"),
        (("--objective=p99<5ms",), "--objective belongs to --find-max"),
        (("--find-max", "--objective=errors<5%"), "is no latency objective"),
        (("--closed=5", "--rate=5"), "--rate and --stages say when calls are due"),
        (("--closed=2", "--processes=3"), "--closed 2 is too few callers for --processes 3"),
        (("--data=a", "--users=b"), "--data and --users both say who asks"),
        (("--fail-if=p99",), "argument --fail-if: 'p99' is no condition"),
        (("--scenario=buy",), "argument --scenario: 'buy' is no scenario"),
        (("--rate=0",), "--rate 0 wants no call at all"),
        (("--rate=fast",), "argument --rate: 'fast' is no rate"),
        (("--precision=0",), "'0' is no share from 0.005 to 1"),
        (("--encoder=nowhere",), "encoder is 'nowhere', which is no address"),
        (("--tls-cert=a.pem",), "tls has a cert and no key"),
        (("--api=key",), "unrecognized arguments: --api=key"),
        (("--api-key=a b",), "api_key has a character that no key has"),
    ],
)
def test_wrong_arguments_end_it_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    command = ["--encoder=127.0.0.1:1", "--retriever=127.0.0.1:1", f"--out={tmp_path}", *arguments]
    try:
        code: object = run(command)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


async def test_nobody_at_the_address(tmp_path: Path) -> None:
    ended = await load_test("127.0.0.1:1", tmp_path / "out", "--deadline=2")
    assert ended.code == 1
    assert "127.0.0.1:1" in ended.err
    assert ended.err.count("\n") == 1


async def test_a_port_that_is_not_ours(tmp_path: Path) -> None:
    with metrics_page([]) as url:
        ended = await load_test(url.split("/")[2], tmp_path / "out", "--deadline=2")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    script = Scripted()
    script.answers = {}
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out")
    assert ended.code == 1
    assert f"what answers at {address} is no user_encoder" in ended.err


async def test_a_service_that_wants_a_key(tmp_path: Path) -> None:
    script = Scripted()

    async def refuse(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "give a key")
        return b""

    script.answers[GET_MODEL] = refuse
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out")
    assert (ended.code, "give a key" in ended.err) == (1, True)


async def test_answers_that_are_no_messages(tmp_path: Path) -> None:
    script = Scripted()

    async def garbage(request: bytes, context: Any) -> bytes:
        return b"\xff\xff\xff"

    script.answers[GET_INDEX] = garbage
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out")
    assert (ended.code, "is no Marquee service, or a broken one" in ended.err) == (1, True)


async def test_services_in_different_spaces(tmp_path: Path) -> None:
    script = Scripted()
    bundle = types_pb2.LoadedBundle(space="other", dimension=DIMENSION, movies=5)
    script.answer(GET_INDEX, retriever_pb2.GetIndexResponse(state=types_pb2.ReplicaState(bundles=[bundle])))
    async with serving(script) as address:
        ended = await load_test(address, tmp_path / "out")
        assert (ended.code, "answer in different spaces" in ended.err) == (2, True)
        script.answer(GET_MODEL, user_encoder_pb2.GetModelResponse())
        ended = await load_test(address, tmp_path / "out")
    assert (ended.code, "the user_encoder has no bundle loaded" in ended.err) == (1, True)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = await load_test("127.0.0.1:1", tmp_path / "file" / "out")
    assert (ended.code, "name a folder that can be written with --out" in ended.err) == (1, True)


async def test_h2load_sees_the_same_latency(tmp_path: Path) -> None:
    """Holds our clock against another's: a server that takes 40 ms, and eight callers of each."""
    if shutil.which("h2load") is None:
        pytest.skip("needs h2load (Debian: nghttp2-client): no other program's figures were held against ours")
    script = Scripted()

    async def encode(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.04)
        return user_encoder_pb2.EncodeResponse(vector=VECTOR, space="a").SerializeToString()

    script.answers[ENCODE] = encode
    (tmp_path / "body").write_bytes(struct.pack(">BI", 0, 0))
    async with serving(script) as address:
        ours = await load_test(address, tmp_path / "out", "--scenario=encode", "--closed=8", "--duration=2s")
        heads = ("-H", "content-type: application/grpc", "-H", "te: trailers")
        command = ("h2load", "-n400", "-c1", "-m8", "-d", str(tmp_path / "body"), *heads, f"http://{address}{ENCODE}")
        theirs = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        told, _ = await asyncio.wait_for(theirs.communicate(), 60)
    text = told.decode()
    assert "400 succeeded, 0 failed" in text
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+(?P<number>[\d.]+)ms", text)
    assert mean is not None, text
    assert ours.report["total"]["latency"]["mean"] == pytest.approx(float(mean["number"]), rel=0.25)


def test_the_scripted_server_answers_what_is_called() -> None:
    assert set(Scripted().answers) == {GET_MODEL, GET_INDEX, TOP_MOVIES, ENCODE, SEARCH, RECORD}
