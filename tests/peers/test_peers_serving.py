"""What the peers' benchmark starts does what is asked of it: the same work, watched, held and stopped as a whole."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import environments
from benchmarks.peers.contenders import OURS, PEERS, Contender
from benchmarks.peers.load import Figures, Load
from benchmarks.peers.measuring import Pair, Trial, best_way, common_rate, throughput
from benchmarks.peers.questions import Question, json_form, question_of, rpc_form
from benchmarks.peers.served.model import Asked, Model, Settings, message_of, packed_tower, tower_of, unpacked_tower
from benchmarks.peers.serving import Place, Way, serving
from benchmarks.peers.trees import held, memory_of, send, tree
from benchmarks.processes import ANY_CORE, ROOT, BenchmarkFailed, Processes
from benchmarks.work import Work
from marquee.features import RATED
from marquee.v1.user_encoder_pb2 import EncodeRequest
from tests.bundles import make_bundle
from tests.encoder_rigs import Row, columns
from tests.rigs import DEADLINE_S, publish

_PEOPLE = 3
# Every third id is a movie in these bundles.
_MOVIES = range(1, 25, 3)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    with Processes(tmp_path) as processes:
        yield Work(tmp_path, tmp_path, processes)


@pytest.fixture
def model(work: Work) -> Model:
    publish(work.registry, make_bundle(work.bundle))
    return Model(work.bundle)


@pytest.fixture
def questions(model: Model) -> list[Question]:
    rows = [[Row(movie, RATED, 5.0 - person, 1000 * movie) for movie in _MOVIES] for person in range(_PEOPLE)]
    return [question_of(model, EncodeRequest(events=columns(*each), as_of_ms=10**6)) for each in rows]


@pytest.mark.parametrize("whole", [True, False])
def test_marquee_answers_right_and_leaves_nothing_behind(work: Work, questions: list[Question], whole: bool) -> None:
    place = Place(work, ANY_CORE, {}, questions)
    with serving(place, OURS, Way(whole)) as server:
        with Load(server.asking) as load:
            figures = load.pace(200.0, 0.1)
        pids = tree(server.pid)
        assert server.memory() > 10_000_000
    assert figures.failed == {}
    assert figures.ms.size == 20
    assert server.ready_s > 0
    assert memory_of(pids) == 0


def test_a_contender_that_ends_by_itself_is_told_of(work: Work, questions: list[Question]) -> None:
    nobody = Contender("Nobody", "benchmarks.peers.served.nobody")
    with (
        pytest.raises(BenchmarkFailed, match=r"nobody` ended with exit code 1.*No module named"),
        serving(Place(work, ANY_CORE, {}, questions), nobody, Way(whole=True)),
    ):
        raise AssertionError


def test_together_or_alone_from_json_or_a_message_the_vectors_are_the_same(
    model: Model, questions: list[Question]
) -> None:
    asked = [json.loads(json_form(whole=True, listed=False).write(question)) for question in questions]
    many = model.encode_together([Asked(message_of(one["events"]), one["as_of_ms"]) for one in asked])
    answers = [model.answer(encoded) for encoded in many]
    for question, answer in zip(questions, answers, strict=True):
        np.testing.assert_allclose(answer["vector"], question.vector, atol=1e-6)
        assert answer["seen"] == list(_MOVIES)
        assert answer["events_used"] == len(_MOVIES)


def test_the_bare_input_gives_the_vector_of_the_whole_request(model: Model, questions: list[Question]) -> None:
    for question in questions:
        packed = packed_tower(question.tower)
        written = json.loads(json_form(whole=False, listed=True).write(question))["asked"][0]
        for tower in (unpacked_tower(packed), tower_of(written)):
            np.testing.assert_allclose(model.run(tower), question.vector, atol=1e-6)
    together = model.run_together([question.tower for question in questions])
    np.testing.assert_allclose(together, [question.vector for question in questions], atol=1e-6)


def test_a_message_is_read_as_the_service_writes_it(questions: list[Question]) -> None:
    form = rpc_form("/any", whole=True)
    assert EncodeRequest.FromString(form.write(questions[0])) == questions[0].request


def test_settings_come_back_as_they_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(Path("/a/bundle"), 1234, whole=True, together=False)
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    assert Settings.read() == settings


def test_a_held_server_stands_still_with_all_that_it_started() -> None:
    # A process with a child: both say that they run.
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = tree(process.pid)
        assert len(pids) == 2
        with held(process.pid):
            _await_states(pids, lambda states: states == {"T"})
        _await_states(pids, lambda states: "T" not in states)
        send(pids, signal.SIGKILL)
    send(pids, signal.SIGKILL)


def _await_states(pids: list[int], wanted: Callable[[set[str]], bool]) -> None:
    ends_at = time.monotonic() + DEADLINE_S
    while not wanted({Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}):
        assert time.monotonic() < ends_at


def test_an_environment_is_made_anew_only_when_its_pins_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(folder: Path, requirements: str) -> Path:
        folder.mkdir(parents=True)
        made.append(requirements)
        return folder / "bin" / "python"

    monkeypatch.setattr(environments, "make_environment", make)
    first = environments.python_of("fastapi", tmp_path)
    assert environments.python_of("fastapi", tmp_path) == first
    assert made == ["peers/requirements-fastapi.txt"]
    (tmp_path / "fastapi" / "pins.txt").write_text("fastapi==0.1\n")
    environments.python_of("fastapi", tmp_path)
    assert len(made) == 2


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.environment)
def test_every_peer_has_exact_pins_and_the_same_engine(peer: Contender) -> None:
    lines = (ROOT / f"benchmarks/peers/requirements-{peer.environment}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert environments.pin_of(peer.environment) in pins
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    ours = set((ROOT / "constraints.txt").read_text().splitlines())
    assert {line for line in ours if line.startswith(("onnxruntime==", "numpy=="))} <= set(pins)


def test_the_faster_way_is_taken_and_everybody_takes_half_of_the_slowest() -> None:
    peer = PEERS[1]
    trials = {
        (peer, Way(whole=True, together=False)): Trial(1.0, 300.0, 1, 1),
        (peer, Way(whole=True, together=True)): Trial(1.0, 500.0, 1, 1),
        (peer, Way(whole=False, together=True)): Trial(1.0, 900.0, 1, 1),
    }
    assert best_way(trials, peer, whole=True) == Way(whole=True, together=True)
    assert common_rate([500.0, 333.0]) == 160


def test_a_missed_goal_is_missed_and_a_failure_is_told() -> None:
    ours, peer = _figures(100, {}), _figures(50, {"status 14": 7})
    row = throughput("anything", 3.0, [Pair(ours, peer)])
    assert row.value == 2.0
    assert row.met is False
    assert "7 calls failed" in row.beside


def _figures(calls: int, failed: dict[str, int]) -> Figures:
    return Figures(np.ones(calls), failed, 1.0, 0.1)
