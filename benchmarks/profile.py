"""Where the time of an Encode and a Search goes, and how far every rpc is from the floor.

A call's CPU is divided by subtraction: `benchmarks.layers` are servers that do ever more of what the service does, and
the service comes last. All are asked the same in turn, one call at a time.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import Message

from benchmarks import rpcs, search_stages
from benchmarks.caller import EVENTS
from benchmarks.flooding import Flooded, median_answer, prime, run_flood, share_of, written
from benchmarks.layers import BATCH_ENCODE, BATCH_SEARCH, ENCODE, LAYERS, SEARCH
from benchmarks.machine import Shares, shares
from benchmarks.processes import Server
from benchmarks.report import Row
from benchmarks.rpcs import K, Material
from benchmarks.work import Work, say
from marquee.v1 import user_encoder_pb2

ENGINE, PYTHON = "ONNX Runtime, FAISS or BLAS", "Python and NumPy: features, checks, lists"
# In the order of the servers: what each does beside the one before it.
PARTS = ("gRPC, sockets, event loop", "protobuf", ENGINE, PYTHON, "interceptors")
_ENCODER, _RETRIEVER = "user_encoder", "retriever"
_BARE = {_ENCODER: "benchmarks.bare", _RETRIEVER: "benchmarks.bare_search"}
_PEOPLE, _QUERIES = 256, 64
_PAIRS, _BLOCK_S = 5, 0.6
# Stages that a caller in the same process has no need of: it has arrays, and no messages.
_OF_MESSAGES = frozenset(("parsing", "reading columns", "writing the answer"))
_ENGINES = frozenset(("ONNX Runtime", search_stages.ENGINE))


class Call(NamedTuple):
    """Is a call whose CPU is divided: `of` says how many people or queries it has, each a `what`."""

    name: str
    service: str
    method: str
    request: Message
    of: int = 1
    what: str = "call"


def measure(work: Work) -> list[Row]:
    """Profiles both services on some cores, asked from another."""
    cores = shares()
    with work.processes.serve("services.user_encoder", *work.arguments(_ENCODER), cores=cores.servers) as encoder:
        material = rpcs.gather(work, encoder)
    divided = [*(_cost(work, cores, call) for call in _calls(material)), *_in_process(work, cores, material)]
    return [
        *sorted(divided, key=lambda row: "Search" in row.measured),
        *_floors(work, cores, _ENCODER, rpcs.of_encoder(material)),
        *_floors(work, cores, _RETRIEVER, rpcs.of_retriever(material)),
    ]


def _calls(material: Material) -> list[Call]:
    encode = user_encoder_pb2.EncodeRequest(events=material.histories[0])
    people, queries = rpcs.batch_encode(material, _PEOPLE), rpcs.batch_search(material, _QUERIES)
    return [
        Call(f"Encode of {EVENTS} events", _ENCODER, ENCODE, encode),
        Call(f"BatchEncode({_PEOPLE}) of {EVENTS} events", _ENCODER, BATCH_ENCODE, people, _PEOPLE, "person"),
        Call(f"Search, k = {K}", _RETRIEVER, SEARCH, rpcs.searches(material)[0]),
        Call(f"BatchSearch({_QUERIES}), k = {K}", _RETRIEVER, BATCH_SEARCH, queries, _QUERIES, "query"),
    ]


def _cost(work: Work, cores: Shares, call: Call) -> Row:
    say(f"dividing the CPU of {call.name}")
    request = work.folder / "profiled.bin"
    request.write_bytes(call.request.SerializeToString())
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(each) for each in _layers(work, cores, call, request)]
        told = [f"{server.address},{server.child.process.pid}" for server in servers]
        arguments: tuple[str | Path, ...] = ("--servers", *told, "--method", call.method, "--request", request)
        ended = work.processes.run("benchmarks.costs", *arguments, cores=cores.caller)
    rounds = [[us / call.of for us in taken] for taken in json.loads(ended.stdout)]
    return _divided(f"{call.name}: the server's CPU a {call.what}", rounds)


def _layers(
    work: Work, cores: Shares, call: Call, request: Path
) -> Iterator[contextlib.AbstractContextManager[Server]]:
    """Starts what does ever more of the call: the layers, the service without interceptors, and the service."""
    told = ("--registry", work.registry, "--method", call.method, "--request", request)
    for layer in LAYERS:
        yield work.processes.serve("benchmarks.layers", "--layer", layer, *told, cores=cores.servers)
    for module in (_BARE[call.service], f"services.{call.service}"):
        yield work.processes.serve(module, *work.arguments(call.service), cores=cores.servers)


def _divided(what: str, rounds: Sequence[Sequence[float]]) -> Row:
    divided = divide(rounds)
    parts = {part: statistics.median(taken) for part, taken in divided.items()}
    beside = ", ".join(
        f"{part} {us:.1f} ({min(divided[part]):.1f} to {max(divided[part]):.1f})" for part, us in parts.items()
    )
    whole, details = [taken[-1] for taken in rounds], {"rounds": rounds}
    return Row("profile", what, statistics.median(whole), "µs", None, beside, details, readings=whole, parts=parts)


def divide(rounds: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Takes from what each server took in a round what the one before it took: what PARTS cost, round by round."""
    return {part: [taken[at] - (taken[at - 1] if at else 0.0) for taken in rounds] for at, part in enumerate(PARTS)}


def _in_process(work: Work, cores: Shares, material: Material) -> list[Row]:
    """Times both engines for callers in the same process: alone, and many together."""
    say("timing callers in the same process")
    at = ("--registry", work.registry, "--requests")
    encodes = [user_encoder_pb2.EncodeRequest(events=events).SerializeToString() for events in material.histories]
    ended = work.processes.run("benchmarks.stages", *at, written(work, encodes), cores=cores.servers)
    encoded: Mapping[str, Mapping[str, float]] = json.loads(ended.stdout)
    batch = work.folder / "batch-search.bin"
    batch.write_bytes(rpcs.batch_search(material, _QUERIES).SerializeToString())
    asked = written(work, [search.SerializeToString() for search in rpcs.searches(material)])
    ended = work.processes.run("benchmarks.search_stages", *at, asked, "--batch", batch, cores=cores.servers)
    searched: Mapping[str, Mapping[str, float]] = json.loads(ended.stdout)
    return [
        *(_staged(f"Encode of {EVENTS} events in process, {n} at once: a person", us) for n, us in encoded.items()),
        _staged(f"Search, k = {K}, in process: a query", searched["alone"]),
        _staged(f"Search, k = {K}, in process, {_QUERIES} at once: a query", searched["batch"]),
    ]


def _staged(what: str, stages: Mapping[str, float]) -> Row:
    own = {stage: us for stage, us in stages.items() if stage not in _OF_MESSAGES}
    whole, engine = sum(own.values()), sum(us for stage, us in own.items() if stage in _ENGINES)
    beside = "CPU, without messages: " + ", ".join(f"{stage} {us:.1f}" for stage, us in own.items())
    return Row("profile", what, whole, "µs", None, beside, parts={ENGINE: engine, PYTHON: whole - engine})


def _floors(work: Work, cores: Shares, service: str, every: Sequence[Flooded]) -> list[Row]:
    """Floods each rpc of a service and the floor in turn."""
    serving = work.processes.serve(f"services.{service}", *work.arguments(service), cores=cores.servers)
    with serving as ours, work.processes.serve("benchmarks.floor", cores=cores.servers) as floor:
        return [_floor(work, cores, flooded, ours, floor) for flooded in every]


def _floor(work: Work, cores: Shares, flooded: Flooded, ours: Server, floor: Server) -> Row:
    say(f"flooding: {flooded.name}")
    answer = median_answer(ours, flooded)
    prime(floor, answer)
    pairs = run_flood(work, cores, flooded, [ours, floor], pairs=_PAIRS, block_s=_BLOCK_S)
    ratio, beside, ratios = share_of(pairs)
    told, details = f"{beside}; answers of {len(answer):,} bytes", {"pairs": pairs}
    what = f"{flooded.name}: calls a second, against the floor's"
    return Row("profile", what, ratio, "×", None, told, details, at_least=True, readings=ratios)
