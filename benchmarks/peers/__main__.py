"""Measures Marquee's serving beside its peers': `python -m benchmarks.peers [--data DIR|sample] [--environments DIR]`.

Prints one Markdown table and writes the same, and JSON. A goal that is missed is reported, and is no failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from benchmarks.caller import EVENTS, draw_users, newest_events
from benchmarks.machine import first_cores, shares
from benchmarks.peers.contenders import PEERS, Contender
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
    """Runs the command line; returns its exit code: 1 also where a peer could not be measured."""
    options = _parser().parse_args(arguments)
    left_out = _LeftOut()

    def run(folder: Path, processes: Processes) -> Iterator[Row]:
        peers = [_BY_ENVIRONMENT[name] for name in options.only]
        pythons = _environments(peers, options.environments or folder / "environments", left_out)
        work = Work(folder, obtain_data(options.data, folder, processes), processes)
        place = Place(work, first_cores(1), pythons, _questions(work))
        pace = Pace(options.pairs, options.seconds, _WARM_UP_S)
        bench = Bench(place, shares().caller, pace, left_out)
        yield from measure(bench, [peer for peer in peers if peer.environment in pythons])

    data = f"people's {EVENTS} newest events of {Path(options.data).name or 'the data that make demo takes'}"
    return run_standalone(options.out, data, run) or int(bool(left_out.names))


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


class _LeftOut:
    """Remembers which peers could not be measured, and says why."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, peer: Contender, error: Exception) -> None:
        self.names.append(peer.name)
        say(f"{peer.name} is left out: {error}")


def _environments(peers: Sequence[Contender], folder: Path, left_out: _LeftOut) -> dict[str, Path]:
    """Makes the environments of those that can be installed; returns the Python of each."""
    pythons = {}
    for peer in peers:
        try:
            pythons[peer.environment] = python_of(peer.environment, folder)
        except BenchmarkFailed as error:
            left_out(peer, error)
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
