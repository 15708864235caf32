"""Each extra is enough for its part: in an environment with nothing else the part starts and answers a call."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from marquee.bundle.format import ITEM_VECTORS, MOVIE_IDS, Bundle
from marquee.v1 import (
    live_features_pb2,
    live_features_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    types_pb2,
    user_encoder_pb2,
    user_encoder_pb2_grpc,
)
from tests.bundles import make_bundle, movie_record
from tests.contract.compiled import ROOT
from tests.contract.fresh import Fresh, make_environment, package_index_answers, running
from tests.rigs import publish

pytestmark = pytest.mark.packages

MakeFresh = Callable[[str], Fresh]

DIMENSION = 16
LIKED = movie_record(7)
NEEDS_THE_INDEX = (
    "needs the package index: no fresh environment was made, so nothing here shows that the SDK, the encoder, the "
    "retriever and the clients run with their own extra alone; run `python -m pytest -m packages` where pip can "
    "download (PIP_INDEX_URL names a mirror)"
)

BASE = {"google.rpc", "grpc", "marquee.client", "numpy"}
SERVER = {"cryptography", "grpc_health.v1.health", "grpc_reflection.v1alpha.reflection", "pythonjsonlogger", "uvloop"}
HOLDS = {
    "": BASE,
    "encoder": BASE | SERVER | {"hiredis", "marquee.engine.encoder", "onnxruntime", "pyarrow", "redis"},
    "retriever": BASE | SERVER | {"marquee.engine.index", "faiss"},
    "milvus": BASE | SERVER | {"marquee.engine.index", "faiss", "pymilvus"},
    "tracing": BASE | SERVER | {"opentelemetry.exporter.otlp.proto.grpc"},
    "clients": BASE | {"rich"},
    "batch": BASE | {"faiss", "marquee.engine.encoder", "marquee.engine.index", "onnxruntime", "pyarrow", "rich"},
    "desktop": BASE | {"sv_ttk"},
    "loadtest": BASE | {"hdrh", "rich"},
}
MODULES = sorted(set().union(*HOLDS.values()) | {"onnx", "torch"})

# A user's program: finds the wheel, and no checkout.
PROGRAM = """
import json, sys
from marquee.client import Recommender
with Recommender(*sys.argv[1:3], deadline_s=20) as marquee:
    found = marquee.recommend(likes=[int(sys.argv[3])], k=5)
print(json.dumps([item.movie.title for item in found]))
"""


@pytest.fixture(scope="module")
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeFresh]:
    """Makes the environment of an extra when it is first asked for."""
    if not package_index_answers():
        pytest.skip(NEEDS_THE_INDEX)
    wheel: Path = request.getfixturevalue("wheel")
    folder = tmp_path_factory.mktemp("fresh")
    yield functools.cache(lambda extra: make_environment(folder / (extra or "sdk"), wheel, extra))
    # pytest keeps the folders of three runs, and these are large.
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", dimension=DIMENSION)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    return publish(tmp_path_factory.mktemp("registry"), bundle).root


@pytest.fixture(scope="module")
def encoder(fresh: MakeFresh, registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Runs the encoder in its environment; is its address."""
    folder = tmp_path_factory.mktemp("encoder")
    flags = ["--registry", str(registry), "--store", str(folder / "features.sqlite")]
    with running(fresh("encoder"), "user_encoder", folder, *flags) as address:
        yield address


@pytest.fixture(scope="module")
def retriever(fresh: MakeFresh, registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Runs the retriever in its environment; is its address."""
    folder = tmp_path_factory.mktemp("retriever")
    with running(fresh("retriever"), "retriever", folder, "--registry", str(registry)) as address:
        yield address


@pytest.mark.parametrize("extra", HOLDS)
def test_an_environment_holds_its_part_and_no_other(fresh: MakeFresh, extra: str) -> None:
    contents = fresh(extra).contents(*MODULES)
    assert set(contents.importable) == HOLDS[extra]
    assert fresh(extra).folder in contents.marquee.parents


def test_the_sdk_needs_four_packages_and_what_they_need(fresh: MakeFresh) -> None:
    four = {"grpcio", "protobuf", "googleapis-common-protos", "numpy"}
    # grpcio needs typing-extensions.
    assert set(fresh("").contents().versions) == {"marquee", *four, "typing-extensions"}


def test_the_encoder_encodes(encoder: str, bundle: Bundle) -> None:
    with grpc.insecure_channel(encoder) as channel:
        request = user_encoder_pb2.EncodeRequest(user_id="ada", allow_cold_start=True)
        answer = user_encoder_pb2_grpc.UserEncoderServiceStub(channel).Encode(request, timeout=20)
    assert (answer.space, answer.bundle_id) == (bundle.space, bundle.id)
    assert np.linalg.norm(np.frombuffer(answer.vector, "<f4")) == pytest.approx(1.0, abs=1e-5)


def test_the_encoder_exports(encoder: str) -> None:
    with grpc.insecure_channel(encoder) as channel:
        features = live_features_pb2_grpc.LiveFeaturesServiceStub(channel)
        event = live_features_pb2.Event(user_id="ada", movie_id=7, kind=types_pb2.EVENT_KIND_LIKED)
        features.RecordEvents(live_features_pb2.RecordEventsRequest(events=[event]), timeout=20)
        answer = features.ExportEvents(live_features_pb2.ExportEventsRequest(), timeout=20)
    assert (answer.users, answer.events, answer.parquet[:4]) == (1, 1, b"PAR1")


def test_the_retriever_finds(retriever: str, bundle: Bundle) -> None:
    vector, movie_id = np.load(bundle.file(ITEM_VECTORS))[0], np.load(bundle.file(MOVIE_IDS))[0]
    with grpc.insecure_channel(retriever) as channel:
        request = retriever_pb2.SearchRequest(vector=vector.astype("<f4").tobytes(), space=bundle.space, k=3)
        answer = retriever_pb2_grpc.RetrieverServiceStub(channel).Search(request, timeout=20)
    assert (answer.movie_ids[0], len(answer.movie_ids)) == (movie_id, 3)
    assert answer.scores[0] == pytest.approx(1.0, abs=1e-5)


def test_the_sdk_recommends(fresh: MakeFresh, encoder: str, retriever: str) -> None:
    sdk = fresh("")
    titles = json.loads(sdk.run("-c", PROGRAM, encoder, retriever, str(LIKED.movie_id), cwd=sdk.folder))
    assert len(titles) == 5
    assert LIKED.title not in titles


def test_the_command_line_finds(fresh: MakeFresh, encoder: str, retriever: str) -> None:
    addresses = ["--encoder", encoder, "--retriever", retriever]
    title = LIKED.title.split("(")[0]
    printed = fresh("clients").run("-m", "clients.cli", "search", *title.split(), *addresses, cwd=ROOT)
    assert title in printed


def test_the_load_tester_measures(fresh: MakeFresh, encoder: str, retriever: str, tmp_path: Path) -> None:
    addresses = ["--encoder", encoder, "--retriever", retriever]
    told = ["--closed", "2", "--duration", "500ms", "--warm-up", "100ms", "--out", str(tmp_path)]
    printed = fresh("loadtest").run("-m", "clients.loadtest", *addresses, *told, cwd=ROOT)
    assert "none failed" in printed
    assert {file.name for file in tmp_path.iterdir()} == {"report.json", "report.html"}


def test_lists_are_made_offline(fresh: MakeFresh, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\nada,{LIKED.movie_id},5,1\n")
    told = ["--bundle", str(bundle.path), "--events", str(tmp_path), "--out", str(tmp_path / "lists"), "-k", "5"]
    fresh("batch").run("-m", "clients.batch", *told, cwd=ROOT)
    assert (tmp_path / "lists" / "part-00000.parquet").read_bytes()[:4] == b"PAR1"


def test_the_window_tells_its_flags(fresh: MakeFresh) -> None:
    assert "--theme" in fresh("desktop").run("-m", "clients.desktop", "--help", cwd=ROOT)
