"""Our towers' training beside RecTools' SASRec and `implicit`: `python -m benchmarks.peers_training [--data DIR]`.

Everything learns on one thread of one core from the same events of the protocol `last`, and is measured on the same
queries by the same code. Writes `peers-training.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import sasrec
from benchmarks.fitting import ALS, BPR, CURVE_QUERIES, K, read_split
from benchmarks.machine import first_cores
from benchmarks.peers.environments import python_of
from benchmarks.processes import Processes
from benchmarks.report import Row
from benchmarks.standalone import add_environments, run_standalone
from benchmarks.work import obtain_data, say
from training.metrics import ndcg_at, recall_at
from training.model import TOWERS
from training.split import Queries, Split

MILLION = 1_000_000
BUDGET_S = 180.0
# RecTools' default loss, and the one of the paper, which costs less: three passes tell its pace.
_LOSSES = {"softmax": 30, "BCE": 3}
_LENGTH = 200


class Learned(NamedTuple):
    """Holds how a system learned; the curve has seconds of training so far, and recall@10 on validation then.

    `events` is how many events a pass learns to find, `pass_s` its seconds.
    """

    name: str
    neural: bool
    ours: bool
    pass_s: float
    events: int
    curve: Sequence[tuple[float, float]]
    recall: float
    ndcg: float
    passes: int
    peak_bytes: int
    note: str

    @property
    def pace(self) -> float:
        """Events a second."""
        return self.events / self.pass_s


class World(NamedTuple):
    """Is a data set, and how long vectors are that are learned from it."""

    name: str
    data: Path
    dimension: int


def seconds_to(curve: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Finds when a curve first came to a recall; None where it never did."""
    return next((seconds for seconds, reached in curve if reached >= recall), None)


def best_of_peers(learned: Sequence[Learned]) -> float:
    """Finds the highest recall@10 on validation that any peer came to."""
    return max(reached for one in learned if not one.ours for _, reached in one.curve)


def measure(folder: Path, processes: Processes, options: argparse.Namespace) -> Iterator[Row]:
    """Trains every system on every data set, one after another."""
    python = python_of("training", options.environments or folder / "environments")
    given = obtain_data(options.data, folder, processes)
    worlds = [World(given.name, given, 128)]
    if options.events:
        worlds.append(_generated(folder, processes, options.events))
    for world in worlds:
        yield from rows_of(world, _learn(folder, processes, python, world, options.budget_s))


def _learn(folder: Path, processes: Processes, python: Path, world: World, budget_s: float) -> list[Learned]:
    learned = []
    of = ("--data", world.data, "--dimension", str(world.dimension), "--budget-s", str(budget_s))
    for system in (*TOWERS, ALS, BPR):
        say(f"{world.name}: {system}")
        ended = processes.run("benchmarks.fitting", system, *of, cores=first_cores(1))
        learned.append(_ours_or_implicit(system, json.loads(ended.stdout)))
    handed = folder / f"handed-{world.name}"
    split = _hand_over(world.data, handed)
    for loss, passes in _LOSSES.items():
        say(f"{world.name}: SASRec, {loss}")
        how = ("--dimension", str(world.dimension), "--length", str(_LENGTH), "--loss", loss)
        limits = ("--passes", str(passes), "--budget-s", str(budget_s))
        ended = processes.run("benchmarks.sasrec", handed, *how, *limits, cores=first_cores(1), python=python)
        learned.append(_sasrec(loss, handed, split, json.loads(ended.stdout)))
    return learned


def _ours_or_implicit(system: str, found: Mapping[str, Any]) -> Learned:
    ours = system in TOWERS
    name = f"our {system} tower" if ours else f"implicit {system.upper()}"
    return Learned(name=name, neural=ours, ours=ours, **found)


def _hand_over(data: Path, handed: Path) -> Split:
    """Writes both logs and the people who ask, for an environment that has none of our code's packages."""
    handed.mkdir()
    _, split = read_split(data)
    arrays = {
        f"{name}_{column}": getattr(log, column)
        for name, log in (("train", split.train), ("fit", split.fit))
        for column in ("users", "items")
    }
    asking = {"validation_users": split.validation.sample(CURVE_QUERIES).users, "test_users": split.test.users}
    np.savez(handed / sasrec.HANDED, allow_pickle=False, **arrays, **asking)
    return split


def _sasrec(loss: str, handed: Path, split: Split, found: Mapping[str, Any]) -> Learned:
    seconds, validation = found["seconds"], split.validation.sample(CURVE_QUERIES)
    ends_s = (found["start_s"] + np.cumsum(seconds)).tolist()
    recalls = [_tested(validation, handed / sasrec.lists_file(loss, number))[0] for number in range(len(seconds))]
    recall, ndcg = _tested(split.test, handed / sasrec.lists_file(loss, "test"))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return Learned(
        name=f"RecTools SASRec, {loss}",
        neural=True,
        ours=False,
        pass_s=statistics.median(seconds),
        events=found["events"],
        curve=list(zip(ends_s, recalls, strict=True)),
        recall=recall,
        ndcg=ndcg,
        passes=len(seconds),
        peak_bytes=found["peak_bytes"],
        note=f"of each person the newest {_LENGTH + 1} events; {versions}",
    )


def _tested(queries: Queries, lists: Path) -> tuple[float, float]:
    hits_QK = queries.hits(np.load(lists))
    return float(recall_at(hits_QK, queries.counts, K).mean()), float(ndcg_at(hits_QK, queries.counts, K).mean())


def rows_of(world: World, learned: Sequence[Learned]) -> list[Row]:
    """Words what was measured on one data set: the goals of each tower first."""
    towers = [one for one in learned if one.ours]
    goals = [row for tower in towers for row in _goals(world, tower, learned)]
    given = best_of_peers(learned)
    return [*goals, *(row for one in learned for row in _figures(world, one, given))]


def _goals(world: World, tower: Learned, learned: Sequence[Learned]) -> list[Row]:
    peers = [one for one in learned if one.neural and not one.ours]
    fastest, best = max(peers, key=lambda one: one.pace), max(peers, key=lambda one: one.recall)
    of = f"{world.name}: {tower.name}"
    pace = (
        f"{tower.pace:,.0f} and {fastest.pace:,.0f} /s ({fastest.name}); a pass takes {tower.pass_s:.2f} and "
        f"{fastest.pass_s:.2f} s"
    )
    above = 100 * (tower.recall - best.recall)
    recall = f"{tower.recall:.4f} and {best.recall:.4f} ({best.name}, passes: {best.passes})"
    return [
        _goal(f"{of}, events a second of a pass, of the fastest neural peer's", tower.pace / fastest.pace, "×", pace),
        _goal(f"{of}, recall@{K} on test, above the best neural peer's", above, "points", recall),
    ]


# At least twice as fast, and not worse.
_GOALS = {"×": 2.0, "points": 0.0}


def _goal(measured: str, value: float, unit: str, beside: str) -> Row:
    return Row("peers-training", measured, value, unit, _GOALS[unit], beside, at_least=True)


def _figures(world: World, one: Learned, given: float) -> list[Row]:
    of = f"{world.name}, {world.dimension}-d: {one.name}"
    reached_s = seconds_to(one.curve, given)
    reached = f"after {reached_s:.1f} s" if reached_s is not None else "not reached"
    pace = f"{one.events:,} events in a pass of {one.pass_s:.2f} s; peak memory {one.peak_bytes / 1e9:.2f} GB"
    quality = (
        f"NDCG@{K} {one.ndcg:.4f}; passes: {one.passes}, until {one.curve[-1][0]:.0f} s; recall@{K} of {given:.4f} on "
        f"validation, the best of the peers: {reached}; {one.note}"
    )
    return [
        Row("peers-training", f"{of}, events a second of a pass", one.pace, "/s", None, pace, one._asdict(), True),
        Row("peers-training", f"{of}, recall@{K} on test", 100 * one.recall, "%", None, quality, at_least=True),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 0 also where a goal is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers_training", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--data", default="", help='folder in MovieLens format, or "sample" (default: the best there is)'
    )
    parser.add_argument(
        "--events", type=int, default=MILLION, help="generated events to learn from as well; 0 for none (%(default)s)"
    )
    parser.add_argument(
        "--budget-s", type=float, default=BUDGET_S, help="seconds that a training may take (%(default)g)"
    )
    out = Path("benchmarks/results/peers-training.json")
    parser.add_argument("--out", type=Path, default=out, help="JSON to write (%(default)s)")
    add_environments(parser)
    options = parser.parse_args(arguments)
    data = f"{Path(options.data).name or 'what the demo takes'}, and {options.events:,} generated events"
    return run_standalone(
        options.out,
        f"{data}; at most {options.budget_s:g} s of training each",
        lambda folder, processes: measure(folder, processes, options),
    )


def _generated(folder: Path, processes: Processes, events: int) -> World:
    """Generates events in MovieLens 1M's shape."""
    name = f"{events:,} generated events"
    data = folder / "generated"
    shape = ("--people", str(round(6040 * events / MILLION)), "--movies", "3700", "--events", str(events))
    processes.run("training.generate", "--out", data, *shape)
    return World(name, data, 64)


if __name__ == "__main__":
    sys.exit(main())
