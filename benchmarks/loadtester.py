"""What the load tester can send from one core: beside the flood on an empty handler, and with one process and two.

The load tester's processes share the caller's core, so two of them cannot be twice as fast here; what a call costs
them says how they would be on two cores, because they share nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.flood import BLOCK_S, IN_FLIGHT, Connection
from benchmarks.flooding import spread
from benchmarks.http2 import Target
from benchmarks.machine import Shares, shares
from benchmarks.processes import BenchmarkFailed, Server, pinned
from benchmarks.report import Row
from benchmarks.work import Work, say
from clients.loadtest.people import Popular, made_up
from clients.loadtest.scenarios import encode_requests
from clients.loadtest.target import ENCODE

_PAIRS = 5
_GOAL = 0.8
_WARM_UP_S = 0.5
_WARMED_UP_S = 1.0
_TEST = ("--scenario", "encode", "--duration", "3s", "--warm-up", f"{_WARMED_UP_S:g}s")
# Well below what either can do: what a call costs is asked, and not how many there can be.
_EASY_RATE = 1_000
_POPULAR = [Popular(number, number) for number in range(1, 501)]


class Sent(NamedTuple):
    """Says what the load tester sent: good answers a second, and what a call took of its CPU and of the server's."""

    rate: float
    client_us: float
    server_us: float


def measure(work: Work) -> list[Row]:
    """Measures against an empty handler on one core, from another."""
    cores = shares()
    with work.processes.serve("benchmarks.canned", cores=cores.servers) as server:
        return [*_flat_out(work, cores, server), _processes(work, cores, server)]


def _flat_out(work: Work, cores: Shares, server: Server) -> list[Row]:
    say("the load tester, the flood and h2load, in turn")
    requests = encode_requests(made_up(_POPULAR, seed=0), time.time_ns() // 1_000_000)
    target = Target(server.address, ENCODE, requests)
    rounds = []
    for _ in range(_PAIRS):
        ours = _load_test(work, cores, server, "--closed", str(IN_FLIGHT))
        rounds.append((ours, _flood(cores, target), _h2load(work, cores, target)))
    rows = [_cost([ours for ours, _, _ in rounds])]
    rows.append(_against("the flood's", [(ours, flooded) for ours, flooded, _ in rounds], _GOAL))
    if all(theirs for _, _, theirs in rounds):
        rows.append(_against("h2load's", [(ours, theirs) for ours, _, theirs in rounds], None))
    return rows


def _cost(sent: list[Sent]) -> Row:
    """Compares CPU and not time: below 1, a core that sends fills a core that answers, however busy the machine is."""
    ratios = [one.client_us / one.server_us for one in sent]
    client, server = (statistics.median(each) for each in zip(*(one[1:] for one in sent), strict=True))
    beside = (
        f"{min(ratios):.2f} to {max(ratios):.2f}; {client:.0f} µs of CPU a call, the empty handler's {server:.0f} µs"
    )
    what = f"load tester, {IN_FLIGHT} callers: a call's CPU, as a part of an empty handler's"
    details = {"sent": [one._asdict() for one in sent]}
    return Row("loadtester", what, statistics.median(ratios), "×", 1.0, beside, details, readings=ratios)


def _against(whose: str, pairs: list[tuple[Sent, float]], goal: float | None) -> Row:
    ratios = [ours.rate / theirs for ours, theirs in pairs]
    rate = statistics.median(ours.rate for ours, _ in pairs)
    theirs = statistics.median(each for _, each in pairs)
    beside = f"{spread(ratios)}; {rate:,.0f} of {theirs:,.0f} calls/s"
    what = f"load tester, {IN_FLIGHT} callers on an empty handler, against {whose} calls a second"
    details = {"pairs": [(ours.rate, each) for ours, each in pairs]}
    median = statistics.median(ratios)
    return Row("loadtester", what, median, "×", goal, beside, details, at_least=True, readings=ratios)


def _processes(work: Work, cores: Shares, server: Server) -> Row:
    """Compares what a call costs the load tester with one process and with two."""
    say("the load tester with one process and with two")
    pairs = []
    for _ in range(_PAIRS):
        sent = [
            _load_test(work, cores, server, "--rate", str(_EASY_RATE), "--processes", str(count)) for count in (1, 2)
        ]
        pairs.append([each.client_us for each in sent])
    ratios = [alone / together for alone, together in pairs]
    alone, together = (statistics.median(each) for each in zip(*pairs, strict=True))
    beside = f"{spread(ratios)}; {alone:.0f} µs of CPU a call with one process, {together:.0f} µs with two"
    what = "load tester: a call's CPU with one process, as a part of that with two"
    median, details = statistics.median(ratios), {"pairs_us": pairs}
    return Row("loadtester", what, median, "×", _GOAL, beside, details, at_least=True, readings=ratios)


def _load_test(work: Work, cores: Shares, server: Server, *arguments: str) -> Sent:
    out = work.folder / "loadtest"
    where = (f"--encoder={server.address}", f"--retriever={server.address}", "--out", out)
    before = cpu_seconds(server.child.process.pid)
    child = work.processes.start("clients.loadtest", *where, *_TEST, *arguments, cores=cores.caller)
    # 4 says that the client was the limit, which is what is asked here.
    if child.process.wait() not in (0, 4):
        raise child.failure()
    server_s = cpu_seconds(server.child.process.pid) - before
    report = json.loads((out / "report.json").read_text("utf-8"))
    rate = report["total"]["rate"]
    cpu = statistics.mean(sum(tick["cpu"]) for tick in report["timeline"] if tick["at_s"] > _WARMED_UP_S)
    calls = sum(stage["figures"]["calls"] for stage in report["stages"])
    return Sent(rate, 1e6 * cpu / rate, 1e6 * server_s / calls)


def cpu_seconds(pid: int) -> float:
    """Reads how much CPU a process has taken; raises BenchmarkFailed where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise BenchmarkFailed("this system does not say what CPU a process has taken: measure on Linux") from error
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _flood(cores: Shares, target: Target) -> float:
    with pinned(cores.caller), Connection(target) as connection:
        connection.run(_WARM_UP_S)
        connection.finish()
        rate = connection.run(2 * BLOCK_S)
        connection.finish()
    return rate


def _h2load(work: Work, cores: Shares, target: Target) -> float:
    """Runs h2load with one request's bytes; 0 where it is not installed."""
    if shutil.which("h2load") is None:
        say("h2load is not installed (Debian: nghttp2-client): its row is left out")
        return 0.0
    body = work.folder / "h2load-body"
    request = target.requests[0]
    body.write_bytes(struct.pack(">BI", 0, len(request)) + request)
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    url = f"http://{target.address}{target.method}"
    command = ("h2load", "--duration=3", "--warm-up-time=1", "-c1", f"-m{IN_FLIGHT}", "-d", str(body), *headers, url)
    with pinned(cores.caller):
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    rate = re.search(r"finished in .*?, (?P<rate>[\d.]+) req/s", ended.stdout)
    if rate is None:
        raise BenchmarkFailed(f"h2load ended with exit code {ended.returncode}: {ended.stderr.strip()}")
    return float(rate["rate"])
