"""How much to provide: `python -m benchmarks.capacity --users N --movies N --rps N` reckons it from measured figures.

The figures are those of `make bench-growth`; every formula stands in docs/capacity.md. It reckons, and promises
nothing: what was not measured is said below the table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.growth_figures import FIGURES, Figures, Taken, read_figures
from benchmarks.replicas import Setup, arrivals, simulate
from benchmarks.towers import POOLED, TOWERS
from marquee.errors import ConfigError, MarqueeError

# Of a node's memory, so that a Redis can copy itself and a Milvus can load beside.
FILLED = 0.7
MILVUS_CORES = 4
# Of more pods so many are simulated, under their part of the load: to each the others are alike.
_PODS = 64
_CALLS, _CLIENTS, _SEED = 40_000, 16, 0


def _asked(default: Any, says: str, low: float = 0.0, *, above: bool = False) -> Any:
    """Declares an input: at least `low`, or above it."""
    return field(default=default, metadata={"says": says, "low": low, "above": above})


@dataclass(frozen=True, slots=True)
class Demand:
    """Holds what is asked for, and what it may cost; numbers, and the tower's name."""

    users: int = _asked(MISSING, "people with events in the store", 1)
    movies: int = _asked(MISSING, "movies of the catalogue", 1)
    rps: float = _asked(MISSING, "lists a second at the busiest time; each is an Encode and a Search", 0.001)
    events_per_user: float = _asked(100.0, "events that the store keeps of a person, on average")
    list_length: int = _asked(10, "movies of a list", 1)
    records_per_list: float = _asked(1.0, "events recorded for each list")
    tower: str = _asked(POOLED, "user tower: pooled or sequence")
    utilisation: float = _asked(0.6, "part of its core that a pod may be busy at the busiest time, below 1", above=True)
    spare: int = _asked(1, "pods of each service beyond what is needed")
    bundles: int = _asked(3, "bundles that a pod holds: active, standby, one that loads", 1)
    mean_load: float = _asked(0.5, "lists a second on average, as a part of --rps, at most 1", above=True)
    pod_gb: float = _asked(16.0, "largest memory of a retriever, GB; above it a Milvus searches", above=True)
    node_gb: float = _asked(32.0, "largest memory of a node of Redis or Milvus, GB", above=True)
    copies: int = _asked(2, "copies of everything in Redis and Milvus", 1)
    core_hour: float = _asked(0.03, "price of a core for an hour")
    gb_hour: float = _asked(0.004, "price of a GB of memory for an hour")

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise ConfigError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        for each in fields(self):
            if each.name != "tower":
                yield from _problem(each.metadata, _flag(each.name), getattr(self, each.name), whole=each.type == "int")
        if self.tower not in TOWERS:
            yield f"--tower is {self.tower!r}; name {' or '.join(TOWERS)}"
        if self.utilisation >= 1:
            yield f"--utilisation is {self.utilisation:g}; a queue before a full core has no end: name a part below 1"
        if self.mean_load > 1:
            yield f"--mean-load is {self.mean_load:g}; the average is not above the busiest time: name at most 1"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _problem(metadata: Any, flag: str, value: float, *, whole: bool) -> Iterator[str]:
    low, above = metadata["low"], metadata["above"]
    kind = "whole number" if whole else "number"
    if not math.isfinite(value) or (whole and value != int(value)):
        yield f"{flag} is {value}; name a {kind}"
    elif value < low or (above and value == low):
        yield f"{flag} is {value:g}; name a {kind} {'above' if above else 'of at least'} {low:g}"


class Pods(NamedTuple):
    """Is what a service needs: each pod has one core; `busy` is how full that is, all pods running, one call at a time.

    Calls that are gathered take less, and many pods' load is near what they can only then: it may pass 1.
    """

    pods: int
    gb_each: float
    call_ms: float
    busy: float
    p50_ms: float
    p99_ms: float


class Nodes(NamedTuple):
    """Is what a store or an engine needs."""

    nodes: int
    cores: int
    gb_each: float


NONE = Nodes(0, 0, 0.0)


class Plan(NamedTuple):
    """Is what to provide, and what it costs; `notes` say what was not measured."""

    encoder: Pods
    retriever: Pods
    redis: Nodes
    milvus: Nodes
    cores: int
    gb: float
    per_hour: float
    per_million: float
    notes: list[str]


def plan(demand: Demand, figures: Figures) -> Plan:
    """Reckons what a demand needs; the formulas stand in docs/capacity.md."""
    encoder = _encoder(demand, figures)
    milvus = _milvus(demand, figures)
    retriever = _retriever(demand, figures, searches=milvus is NONE)
    redis = _redis(demand, figures)
    cores = encoder.pods + retriever.pods + redis.cores + milvus.cores
    gb = sum(each.pods * each.gb_each for each in (encoder, retriever))
    gb += sum(each.nodes * each.gb_each for each in (redis, milvus))
    per_hour = cores * demand.core_hour + gb * demand.gb_hour
    per_million = per_hour / (demand.rps * demand.mean_load * 3600) * 1e6
    notes = [*_notes(demand, figures, milvus), *_full({"user_encoder": encoder, "retriever": retriever})]
    return Plan(encoder, retriever, redis, milvus, cores, gb, per_hour, per_million, notes)


def _encoder(demand: Demand, figures: Figures) -> Pods:
    call = figures.encode[demand.tower].at(demand.events_per_user)
    record = figures.record.at(demand.events_per_user)
    a_list = Taken(*(one + demand.records_per_list * other for one, other in zip(call, record, strict=True)))
    table_gb = demand.bundles * demand.movies * figures.row_bytes / 1e9
    gb = figures.encoder_gb[demand.tower] + table_gb
    return _pods(demand, a_list, call, gb, figures.encode_shape[demand.tower])


def _retriever(demand: Demand, figures: Figures, *, searches: bool) -> Pods:
    search, longer, measured = (
        figures.search.at(demand.movies),
        figures.lists.at(demand.list_length),
        figures.lists.at(figures.list_length),
    )
    call = Taken(*(one + more - less for one, more, less in zip(search, longer, measured, strict=True)))
    gb = _retriever_gb(demand, figures)
    if not searches:
        gb -= demand.bundles * figures.index_gb.at(demand.movies)
    return _pods(demand, call, call, gb, figures.search_shape)


def _retriever_gb(demand: Demand, figures: Figures) -> float:
    """Takes a process without movies to be as large as one with the fewest that were measured."""
    process_gb = figures.retriever_gb.values[0]
    return process_gb + demand.bundles * (figures.retriever_gb.at(demand.movies) - process_gb)


def _pods(demand: Demand, a_list: Taken, call: Taken, gb: float, shape: list[float]) -> Pods:
    """Takes as many pods as calls need that are gathered, and simulates them as if none were."""
    pods = math.ceil(demand.rps * a_list.flooded_s / demand.utilisation) + demand.spare
    busy = demand.rps * a_list.alone_s / pods
    # What else a pod does, as recording, keeps calls waiting alike.
    few = min(pods, _PODS)
    p50_s, p99_s = _simulated(few, busy * few / call.alone_s, call.alone_s, shape)
    return Pods(pods, gb, 1e3 * call.alone_s, busy, 1e3 * p50_s, 1e3 * p99_s)


def _simulated(pods: int, rate: float, call_s: float, shape: list[float]) -> tuple[float, float]:
    """Simulates clients that take turns; a pod answers one call after the other, as long as percentiles say."""
    rng = np.random.default_rng(_SEED)
    serve_s = call_s * np.interp(rng.uniform(0, 100, _CALLS), range(101), shape)
    outcome = simulate(arrivals(rate, _CALLS / rate, rng), serve_s, Setup(pods, clients=_CLIENTS), rng)
    return outcome.percentile_s(50), outcome.percentile_s(99)


def _redis(demand: Demand, figures: Figures) -> Nodes:
    gb = demand.users * figures.person_bytes.at(demand.events_per_user) / 1e9
    read_s = figures.redis_read_s.at(demand.events_per_user)
    write_s = figures.redis_write_s.at(demand.events_per_user)
    busy = demand.rps * (read_s + demand.records_per_list * write_s)
    by_cores = math.ceil(busy / demand.utilisation)
    primaries = max(by_cores, math.ceil(gb / (FILLED * demand.node_gb)), 1)
    nodes = primaries * demand.copies
    return Nodes(nodes, nodes, gb / primaries / FILLED)


def _milvus(demand: Demand, figures: Figures) -> Nodes:
    if _retriever_gb(demand, figures) <= demand.pod_gb:
        return NONE
    gb = demand.bundles * demand.movies * figures.row_bytes / 1e9
    nodes = math.ceil(gb / (FILLED * demand.node_gb)) * demand.copies
    return Nodes(nodes, nodes * MILVUS_CORES, gb * demand.copies / nodes / FILLED)


def _notes(demand: Demand, figures: Figures, milvus: Nodes) -> Iterator[str]:
    beyond = {
        "--movies": (figures.search.flooded_s, demand.movies),
        "--list-length": (figures.lists.flooded_s, demand.list_length),
        "--events-per-user": (figures.encode[demand.tower].flooded_s, demand.events_per_user),
    }
    for flag, (curve, value) in beyond.items():
        if not curve.reaches(value):
            yield f"{flag} {value:,g} is beyond what was measured ({curve.sizes[-1]:,g}): its figures are extrapolated"
    if demand.users > figures.most_people:
        yield f"--users {demand.users:,} is beyond what was measured ({figures.most_people:,}): Redis is extrapolated"
    if milvus is not NONE:
        yield (
            "Milvus's speed was never measured: its nodes are reckoned by memory alone, and retrievers as if they "
            "searched themselves"
        )
    if not figures.quiet:
        yield "the machine was not quiet when the figures were measured: run `make bench-growth` on one that is"


def _full(services: dict[str, Pods]) -> Iterator[str]:
    for name, pods in services.items():
        if pods.busy >= 1:
            yield (
                f"{name}: calls one at a time would fill {pods.busy:.0%} of a pod, so it keeps up only as it gathers "
                "them, and p50 and p99 are those of a queue that overflows; name a lower --utilisation"
            )


def table(demand: Demand, reckoned: Plan) -> str:
    """Writes a plan for people."""
    lines = [f"{'':14}{'number':>8}{'cores':>8}{'GB each':>9}{'a call':>10}{'busy':>7}{'p50':>10}{'p99':>10}"]
    for name, pods in (("user_encoder", reckoned.encoder), ("retriever", reckoned.retriever)):
        lines.append(
            f"{name:14}{pods.pods:8,}{pods.pods:8,}{pods.gb_each:9.2f}{pods.call_ms:7.2f} ms{pods.busy:7.0%}"
            f"{pods.p50_ms:7.2f} ms{pods.p99_ms:7.2f} ms"
        )
    for name, nodes in (("Redis", reckoned.redis), ("Milvus", reckoned.milvus)):
        lines.append(f"{name:14}{nodes.nodes:8,}{nodes.cores:8,}{nodes.gb_each:9.2f}")
    lines += [
        "",
        f"{reckoned.cores:,} cores and {reckoned.gb:,.1f} GB: {reckoned.per_hour:,.2f} an hour, "
        f"{reckoned.per_million:,.2f} a million lists of {demand.list_length}",
        "a call: its CPU, one at a time; busy, p50, p99: of such at --rps, all pods running, in the pod, simulated",
        *(f"note: {note}" for note in reckoned.notes),
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 2 for what cannot be reckoned with."""
    options = _parser().parse_args(arguments)
    try:
        demand = Demand(**{each.name: getattr(options, each.name) for each in fields(Demand)})
        reckoned = plan(demand, read_figures(options.figures))
    except MarqueeError as error:
        print(f"capacity: {error.message}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"demand": asdict(demand), "plan": _as_dict(reckoned)}, indent=1))
    else:
        print(table(demand, reckoned))
    return 0


def _as_dict(reckoned: Plan) -> dict[str, Any]:
    return {
        name: part._asdict() if isinstance(part, (Pods, Nodes)) else part for name, part in reckoned._asdict().items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__, allow_abbrev=False)
    for each in fields(Demand):
        required = each.default is MISSING
        says = each.metadata["says"] + ("" if required else " (%(default)s)")
        parse = str if each.type == "str" else _number
        parser.add_argument(
            _flag(each.name),
            type=parse,
            required=required,
            default=None if required else each.default,
            metavar="N",
            help=says,
        )
    parser.add_argument("--figures", type=Path, default=FIGURES, help="what make bench-growth wrote (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _number(text: str) -> float:
    """Reads a number, also as 1e6 or 1_000_000; whole ones become int."""
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write it as 250000, 1e6 or 0.5") from error
    return int(number) if math.isfinite(number) and number == int(number) else number


if __name__ == "__main__":
    sys.exit(main())
