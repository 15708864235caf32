"""Where the time goes is found by subtraction, from servers that do a part of the work; pictures show what there is."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from benchmarks.flood import Connection
from benchmarks.flooding import prime
from benchmarks.http2 import Target
from benchmarks.layers import BATCH_ENCODE, BATCH_SEARCH, ENCODE, LAYERS, SEARCH, fields_of
from benchmarks.machine import cpu_us
from benchmarks.pictures import draw_profile, draw_ratios
from benchmarks.processes import Processes
from benchmarks.profile import PARTS, divide
from benchmarks.report import Row
from marquee.bundle.format import Bundle
from marquee.v1 import retriever_pb2, types_pb2, user_encoder_pb2
from tests.bundles import make_bundle
from tests.rigs import publish

DEADLINE_S = 30.0
EVENTS = types_pb2.EventColumns(
    movie_ids=[1, 2, 3], kinds=[types_pb2.EVENT_KIND_LIKED] * 3, times_ms=[1000, 2000, 3000]
)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", movies=50)
    publish(made.path.parent / "registry", made)
    return made


def test_a_part_is_what_a_server_takes_beside_the_one_before_it() -> None:
    parts = divide([[100.0, 110.0, 150.0, 190.0, 205.0], [90.0, 104.0, 140.0, 185.0, 199.0]])
    assert dict(zip(PARTS, parts.values(), strict=True)) == parts
    assert list(parts.values()) == [[100.0, 90.0], [10.0, 14.0], [40.0, 36.0], [40.0, 45.0], [15.0, 14.0]]
    assert [sum(each) for each in zip(*parts.values(), strict=True)] == [205.0, 199.0]


def test_a_message_is_made_again_of_its_fields() -> None:
    answer = retriever_pb2.SearchResponse(
        movie_ids=[3, 1],
        scores=[0.5, 0.25],
        vectors=b"\0\1",
        movies=[types_pb2.Movie(movie_id=3, title="Heat", genres=["Crime"])],
        debug=retriever_pb2.SearchDebug(path="exact"),
    )
    assert retriever_pb2.SearchResponse(**fields_of(answer)) == answer


def _requests(bundle: Bundle) -> dict[str, Any]:
    vector, space = bundle.array("item_vectors.npy")[4].astype("<f4").tobytes(), bundle.space
    item = user_encoder_pb2.BatchEncodeItem(events=EVENTS)
    query = retriever_pb2.BatchSearchQuery(vector=vector, k=5)
    return {
        ENCODE: user_encoder_pb2.EncodeRequest(events=EVENTS, as_of_ms=9000),
        BATCH_ENCODE: user_encoder_pb2.BatchEncodeRequest(items=[item, item], as_of_ms=9000),
        SEARCH: retriever_pb2.SearchRequest(vector=vector, space=space, k=5),
        BATCH_SEARCH: retriever_pb2.BatchSearchRequest(queries=[query, query], space=space),
    }


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (ENCODE, user_encoder_pb2.EncodeResponse),
        (BATCH_ENCODE, user_encoder_pb2.BatchEncodeResponse),
        (SEARCH, retriever_pb2.SearchResponse),
        (BATCH_SEARCH, retriever_pb2.BatchSearchResponse),
    ],
)
def test_each_layer_answers_as_the_service_would(
    processes: Processes, bundle: Bundle, tmp_path: Path, method: str, answer: Any
) -> None:
    request = _requests(bundle)[method]
    file = tmp_path / "request.bin"
    file.write_bytes(request.SerializeToString())
    told = ("--registry", bundle.path.parent / "registry", "--method", method, "--request", file)
    answers = []
    with ExitStack() as stack:
        for layer in LAYERS:
            server = stack.enter_context(processes.serve("benchmarks.layers", "--layer", layer, *told))
            channel = stack.enter_context(grpc.insecure_channel(server.address))
            call: Any = channel.unary_unary(method)
            answers.append(answer.FromString(call(request.SerializeToString(), timeout=DEADLINE_S)))
    for each in answers:
        assert each.space == bundle.space
        each.request_id = ""
    assert answers[0] == answers[1] == answers[2]
    if method == SEARCH:
        assert answers[0].movie_ids[0] == bundle.array("movie_ids.npy")[4]
    if method == ENCODE:
        assert np.linalg.norm(np.frombuffer(answers[0].vector, "<f4")) == pytest.approx(1.0, abs=1e-5)


def test_one_call_at_a_time_is_counted(processes: Processes) -> None:
    with processes.serve("benchmarks.floor") as floor:
        prime(floor, b"answer")
        with Connection(Target(floor.address, ENCODE, [b"request"]), in_flight=1) as connection:
            rate = connection.run(0.2)
            connection.finish()
            first = connection.answered
            assert connection.run(0.2) > 0
            connection.finish()
    assert rate > 0
    assert first > 1
    assert connection.answered > first


def test_the_cpu_of_a_process_is_read_from_outside() -> None:
    before_us, before = cpu_us(os.getpid()), time.process_time()
    while time.process_time() - before < 0.05:
        pass
    # Both read the same clock: between the readings lie some lines of Python.
    assert cpu_us(os.getpid()) - before_us == pytest.approx(1e6 * (time.process_time() - before), abs=20_000)


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    ratio = Row("encoding", "Encode", 0.7, "×", 0.65, "", at_least=True, readings=(0.6, 0.8))
    parts = dict.fromkeys(PARTS, 10.0) | {PARTS[1]: -1.0}
    profiled = Row("profile", "Search", 49.0, "µs", None, "", readings=(48.0, 50.0), parts=parts)
    for draw, row in ((draw_ratios, ratio), (draw_profile, profiled)):
        path = tmp_path / f"{row.part}.png"
        assert draw(path, [row])
        assert path.read_bytes().startswith(b"\x89PNG")
        assert not draw(tmp_path / "nothing.png", [])
    assert not draw_ratios(tmp_path / "nothing.png", [profiled])
    assert not (tmp_path / "nothing.png").exists()
