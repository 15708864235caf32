"""Measures the contenders: first each alone, to see how it starts and how fast it is, then Marquee beside each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.flooding import spread
from benchmarks.peers.contenders import OURS, Contender
from benchmarks.peers.environments import pin_of
from benchmarks.peers.load import IN_FLIGHT, Figures, Load
from benchmarks.peers.serving import Place, Serving, Way, serving
from benchmarks.peers.trees import held, tree
from benchmarks.peers.wires import LoadFailed
from benchmarks.processes import BenchmarkFailed, Cores, pinned
from benchmarks.report import Row
from benchmarks.work import say

_WORK = {True: "Encode of 50 events", False: "bare tower"}
# What ends the measuring of one peer, and not of the others.
FAILURES = (BenchmarkFailed, LoadFailed, OSError)
# A higher rate is worth its blocks where it is at least so many times the one that everyone takes.
_FASTER = 2.0


class Pace(NamedTuple):
    """Says how long to measure: pairs of blocks, and the seconds of a block and of what comes before it."""

    pairs: int
    block_s: float
    warm_up_s: float


class Trial(NamedTuple):
    """Is what one contender did alone."""

    ready_s: float
    rate: float
    memory: int
    processes: int


Trials = Mapping[tuple[Contender, Way], Trial]


class Pair(NamedTuple):
    """Is a block of Marquee's and the peer's block after it."""

    ours: Figures
    peer: Figures


class Bench(NamedTuple):
    """Is where and how long to measure, and whom to tell of a peer that cannot be."""

    place: Place
    caller: Cores
    pace: Pace
    left_out: Callable[[Contender, Exception], None]


def measure(bench: Bench, peers: Sequence[Contender]) -> Iterator[Row]:
    """Measures Marquee beside these peers; one that does not serve is told of and left out."""
    trials = dict(_tries(bench, OURS))
    measured = []
    for peer in peers:
        try:
            trials |= _tries(bench, peer)
            measured.append(peer)
        except FAILURES as error:
            bench.left_out(peer, error)
    for contender in (OURS, *measured):
        yield from _alone(trials, contender)
    every = [(peer, whole) for whole in (True, False) for peer in measured]
    rate = common_rate([trials[peer, best_way(trials, peer, whole)].rate for peer, whole in every])
    for peer, whole in every:
        try:
            yield from _beside(bench, peer, whole, trials, rate)
        except FAILURES as error:
            bench.left_out(peer, error)


def _tries(bench: Bench, contender: Contender) -> Trials:
    ways = [Way(whole, together) for whole in (True, False) for together in contender.together]
    return {(contender, way): _try(bench, contender, way) for way in ways}


def _try(bench: Bench, contender: Contender, way: Way) -> Trial:
    say(f"{_named(contender, way)} alone")
    with serving(bench.place, contender, way) as server:
        figures = _block(bench, server, lambda load: load.flood(bench.pace.block_s))
        return Trial(server.ready_s, figures.rate, server.memory(), len(tree(server.pid)))


def best_way(trials: Trials, contender: Contender, whole: bool) -> Way:
    """Finds the way in which a contender was faster alone."""
    ways = [way for each, way in trials if each == contender and way.whole == whole]
    return max(ways, key=lambda way: trials[contender, way].rate)


def common_rate(rates: Sequence[float]) -> int:
    """Finds a rate that everyone takes: half of the slowest's, in tens."""
    return max(10, math.floor(min(rates, default=0) / 20) * 10)


def _beside(bench: Bench, peer: Contender, whole: bool, trials: Trials, rate: int) -> Iterator[Row]:
    ours_way, way = Way(whole), best_way(trials, peer, whole)
    what = f"{_WORK[whole]}, against {_named(peer, way)}"
    say(what)
    higher = int(trials[peer, way].rate / 20) * 10
    rates = {"the rate that everybody takes": rate}
    if whole and higher >= _FASTER * rate:
        rates["half of what the peer answers"] = higher
    with serving(bench.place, OURS, ours_way) as ours, serving(bench.place, peer, way) as theirs:
        yield throughput(what, peer.goal, _pairs(bench, ours, theirs, lambda load: load.flood(bench.pace.block_s)))
        for words, each in rates.items():
            pairs = _pairs(bench, ours, theirs, partial(_paced, each, bench.pace.block_s))
            yield _latency(f"{what}: p99 at {words}", each, pairs)


def _paced(rate: int, seconds: float, load: Load) -> Figures:
    return load.pace(rate, seconds)


def _pairs(bench: Bench, ours: Serving, theirs: Serving, run: Callable[[Load], Figures]) -> list[Pair]:
    pairs = []
    for _ in range(bench.pace.pairs):
        with held(theirs.pid):
            first = _block(bench, ours, run)
        with held(ours.pid):
            pairs.append(Pair(first, _block(bench, theirs, run)))
    return pairs


def _block(bench: Bench, server: Serving, run: Callable[[Load], Figures]) -> Figures:
    with pinned(bench.caller), Load(server.asking) as load:
        load.flood(bench.pace.warm_up_s)
        figures = run(load)
    if not figures.ms.size:
        raise BenchmarkFailed(f"`python -m {server.child.module}` gave no right answer: {figures.failed}")
    return figures


def throughput(what: str, goal: float, pairs: Sequence[Pair]) -> Row:
    ratios = [pair.ours.rate / pair.peer.rate for pair in pairs]
    rates = [[figures.rate for figures in pair] for pair in pairs]
    ours, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
    beside = f"{spread(ratios)}; {ours:,.0f} and {theirs:,.0f} calls/s, {IN_FLIGHT} in flight; {_client(pairs)}"
    value, details = statistics.median(ratios), {"rates": rates, "failed": _failures(pairs)}
    name = f"{what}: calls a second of a core"
    return Row("peers", name, value, "×", goal, beside, details, at_least=True, readings=ratios)


def _latency(name: str, rate: int, pairs: Sequence[Pair]) -> Row:
    ratios = [_percentile([pair.ours], 99) / _percentile([pair.peer], 99) for pair in pairs]
    told = [_words([figures[side] for figures in pairs]) for side in (0, 1)]
    beside = f"{spread(ratios)}; {rate:,} calls/s; p50 and p99 {told[0]}, and {told[1]}; {_client(pairs)}"
    details = {"rate": rate, "failed": _failures(pairs)}
    return Row("peers", name, statistics.median(ratios), "×", 1.0, beside, details, readings=ratios)


def _words(blocks: Sequence[Figures]) -> str:
    return f"{_percentile(blocks, 50):.2f} and {_percentile(blocks, 99):.2f} ms"


def _percentile(blocks: Sequence[Figures], part: float) -> float:
    return float(np.percentile(np.concatenate([figures.ms for figures in blocks]), part))


def _client(pairs: Sequence[Pair]) -> str:
    """Says what the load took of its core, for either, and what failed."""
    shares = [statistics.median(pair[side].client_cpu for pair in pairs) for side in (0, 1)]
    failed = [sum(pair[side].failed.values()) for pair in pairs for side in (0, 1)]
    none = "every answer right" if not any(failed) else f"**{sum(failed):,} calls failed**"
    return f"the load took {shares[0]:.0%} and {shares[1]:.0%} of its core; {none}"


def _failures(pairs: Sequence[Pair]) -> list[list[dict[str, int]]]:
    return [[figures.failed for figures in pair] for pair in pairs]


def _alone(trials: Trials, contender: Contender) -> Iterator[Row]:
    """Says how a contender started and what memory it had, whole, and in the way in which it is faster."""
    way = best_way(trials, contender, whole=True)
    ours, trial, name = trials[OURS, Way(whole=True)], trials[contender, way], _named(contender, way)
    pin = pin_of(contender.environment) if contender.environment else "the service as it ships"
    beside = f"{trial.ready_s / ours.ready_s:.1f} × Marquee's; {pin}"
    yield Row("peers", f"{name}: start to the first right answer", trial.ready_s, "s", None, beside)
    beside = f"{trial.memory / ours.memory:.1f} × Marquee's; resident, processes: {trial.processes}"
    yield Row("peers", f"{name}: memory after a flood", trial.memory / 1e6, "MB", None, beside)


def _named(contender: Contender, way: Way) -> str:
    alone = "" if len(contender.together) == 1 else ", batching" if way.together else ", not batching"
    return f"{contender.name}{alone}"
