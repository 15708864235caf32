"""Measures Marquee's serving beside its peers': `python -m benchmarks.peers [--data DIR|sample] [--environments DIR]`.

Prints one Markdown table and writes the same, and JSON. A goal that is missed is reported, and is no failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from benchmarks.caller import EVENTS, draw_users, newest_events
from benchmarks.machine import first_cores, shares
from benchmarks.peers.contenders import PEERS
from benchmarks.peers.environments import python_of
from benchmarks.peers.measuring import Bench, Pace, measure
from benchmarks.peers.questions import Question, question_of
from benchmarks.peers.served.model import Model
from benchmarks.peers.serving import Place
from benchmarks.processes import BenchmarkFailed, Processes
from benchmarks.report import Row
from benchmarks.standalone import add_environments, run_standalone
from benchmarks.work import Work, obtain_data, publish, say
from marquee.v1.live_features_pb2_grpc import LiveFeaturesServiceStub
from marquee.v1.user_encoder_pb2 import EncodeRequest

_BY_ENVIRONMENT = {peer.environment: peer for peer in PEERS}
_WARM_UP_S = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code: 1 also where a peer could not be installed."""
    options = _parser().parse_args(arguments)
    pythons: dict[str, Path] = {}

    def run(folder: Path, processes: Processes) -> list[Row]:
        pythons.update(_environments(options.only, options.environments or folder / "environments"))
        work = Work(folder, obtain_data(options.data, folder, processes), processes)
        pace = Pace(options.pairs, options.seconds, _WARM_UP_S)
        return _measure(work, pythons, pace)

    data = f"people's {EVENTS} newest events of {options.data or 'the data that make demo takes'}"
    return run_standalone(options.out, data, run) or int(len(pythons) < len(options.only))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--data", default="", help='folder in MovieLens format, or "sample" (default: the best there is)'
    )
    add_environments(parser)
    parser.add_argument(
        "--only", nargs="+", choices=_BY_ENVIRONMENT, default=list(_BY_ENVIRONMENT), help="peers to measure (all)"
    )
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="pairs of blocks (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="length of a block (%(default)g)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results/peers.json"),
        help="JSON to write, with Markdown beside it (%(default)s)",
    )
    return parser


def _measure(work: Work, pythons: Mapping[str, Path], pace: Pace) -> list[Row]:
    place = Place(work, first_cores(1), pythons, _questions(work))
    return measure(Bench(place, shares().caller, pace), [_BY_ENVIRONMENT[name] for name in pythons])


def _environments(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Makes the environments; a peer that cannot be installed is told of and left out."""
    pythons = {}
    for name in names:
        try:
            pythons[name] = python_of(name, folder)
        except BenchmarkFailed as error:
            say(f"{_BY_ENVIRONMENT[name].name} is left out: {error.message}")
    return pythons


def _questions(work: Work) -> list[Question]:
    """Trains for a moment, for a good tower is no faster than another; makes requests of people's newest events."""
    say("training with --epochs 1")
    work.processes.run("training", "--data", work.data, "--out", work.bundle, "--epochs", "1")
    publish(work)
    with (
        work.processes.serve("services.user_encoder", *work.arguments("user_encoder")) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        histories = [newest_events(LiveFeaturesServiceStub(channel), user) for user in draw_users(work.data)]
    most = max(len(events.movie_ids) for events in histories)
    as_of_ms = time.time_ns() // 1_000_000
    model = Model(work.bundle)
    return [
        question_of(model, EncodeRequest(events=events, as_of_ms=as_of_ms))
        for events in histories
        if len(events.movie_ids) == most
    ]


if __name__ == "__main__":
    sys.exit(main())
