"""What the services count of recommending: each figure is one that a reader can work out."""

from __future__ import annotations

import re
import sqlite3
from contextlib import ExitStack, closing

import grpc
import numpy as np
import pytest

from marquee.bundle.format import ITEM_VECTORS, Bundle
from marquee.features import LIKED
from marquee.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    live_features_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    types_pb2,
    user_encoder_pb2,
    user_encoder_pb2_grpc,
)
from tests.bundles import GENRES, make_bundle, movie_record
from tests.chain_rigs import read_metrics
from tests.deploy.test_monitoring import free_port
from tests.encoder_rigs import Row, columns, recording
from tests.rigs import ROOT, publish, service_process

MOVIES, HOUR_MS, AS_OF = 50, 3_600_000, 1_700_000_000_000


def measured(port: int, service: str) -> dict[str, float]:
    """Reads metrics without the prefix of their service, by name and labels as they are written."""
    lines = [line for line in read_metrics(port).splitlines() if not line.startswith("#")]
    pairs = [line.removeprefix(f"marquee_{service}_").rpartition(" ") for line in lines]
    return {name: float(value) for name, _, value in pairs}


def of(metrics: dict[str, float], name: str) -> dict[str, float]:
    """Reads one metric, by its labels."""
    return {key.removeprefix(name): value for key, value in metrics.items() if key.startswith(f"{name}{{")}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", movies=MOVIES)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Encodes, records and loses the store; is what was counted."""
    folder, port = tmp_path_factory.mktemp("encoder"), free_port()
    store = folder / "features.sqlite"
    flags = (f"--metrics-port={port}", "--drain-s=0", f"--store={store}")
    registry = publish(folder / "registry", bundle).root
    with ExitStack() as stack:
        process = stack.enter_context(service_process("user_encoder", folder, registry, *flags))
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{process.port}"))
        users = user_encoder_pb2_grpc.UserEncoderServiceStub(channel)
        features = live_features_pb2_grpc.LiveFeaturesServiceStub(channel)
        stored = [Row(1, LIKED, 0.0, AS_OF - 2 * HOUR_MS), Row(4, LIKED, 0.0, AS_OF - 3 * HOUR_MS)]
        features.RecordEvents(recording("ada", *stored), timeout=20)
        known = user_encoder_pb2.EncodeRequest(user_id="ada", as_of_ms=AS_OF)
        sent = user_encoder_pb2.EncodeRequest(events=columns(Row(7, LIKED, 0.0, AS_OF - HOUR_MS)), as_of_ms=AS_OF)
        users.Encode(known, timeout=20)
        users.Encode(sent, timeout=20)
        users.Encode(user_encoder_pb2.EncodeRequest(user_id="bob", allow_cold_start=True), timeout=20)
        people = [user_encoder_pb2.BatchEncodeItem(user_id=user_id) for user_id in ("ada", "bob", "cy")]
        users.BatchEncode(user_encoder_pb2.BatchEncodeRequest(items=people, as_of_ms=AS_OF), timeout=20)
        with closing(sqlite3.connect(store)) as sql:
            sql.execute("ALTER TABLE people RENAME TO lost")
        users.Encode(known, timeout=20)
        return measured(port, "user_encoder")


@pytest.fixture(scope="module")
def retriever(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Searches in several ways; is what was counted."""
    folder, port = tmp_path_factory.mktemp("retriever"), free_port()
    flags = (f"--metrics-port={port}", "--drain-s=0")
    registry = publish(folder / "registry", bundle).root
    with ExitStack() as stack:
        process = stack.enter_context(service_process("retriever", folder, registry, *flags))
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{process.port}"))
        movies = retriever_pb2_grpc.RetrieverServiceStub(channel)
        vector = np.asarray(bundle.array(ITEM_VECTORS))[0].astype("<f4").tobytes()
        comedies = types_pb2.MovieFilter(genres_any=[GENRES[0]])
        # An empty filter asks for nothing: the SDK sends one always.
        empty = types_pb2.MovieFilter()
        plain = retriever_pb2.SearchRequest(vector=vector, space=bundle.space, k=3, filter=empty)
        details = retriever_pb2.SearchRequest(vector=vector, space=bundle.space, k=3, details={"paths": ["title"]})
        filtered = retriever_pb2.SearchRequest(vector=vector, space=bundle.space, k=40, filter=comedies)
        varied = retriever_pb2.SearchRequest(vector=vector, space=bundle.space, k=3, options={"diversity": 0.5})
        whole = retriever_pb2.SearchRequest(vector=vector, space=bundle.space, k=MOVIES + 1)
        for request in (plain, details, details, filtered, varied, whole):
            movies.Search(request, timeout=20)
        queries = [retriever_pb2.BatchSearchQuery(vector=vector, k=3, filter=comedies) for _ in range(2)]
        movies.BatchSearch(retriever_pb2.BatchSearchRequest(queries=queries, space=bundle.space), timeout=20)
        movies.SearchSimilar(retriever_pb2.SearchSimilarRequest(movie_ids=[1], k=3), timeout=20)
        keys = [catalog_pb2.MovieKey(movie_id=1)] * 5
        catalogue = catalog_pb2_grpc.CatalogServiceStub(channel)
        catalogue.BatchGetMovies(catalog_pb2.BatchGetMoviesRequest(keys=keys), timeout=20)
        return measured(port, "retriever")


def test_what_people_were_encoded_of(encoder: dict[str, float]) -> None:
    assert of(encoder, "answers_total") == {
        '{method="Encode",source="store"}': 1,
        '{method="Encode",source="request"}': 1,
        '{method="Encode",source="cold_start"}': 1,
        '{method="Encode",source="stale"}': 1,
        # The other two are unknown: they are no answers.
        '{method="BatchEncode",source="store"}': 1,
    }
    assert (encoder["stale_answers_total"], encoder["blind_answers_total"]) == (1, 0)


def test_how_old_that_was(encoder: dict[str, float]) -> None:
    # Stored, sent and remembered: 2, 1 and 2 hours; whoever has no events has no newest one.
    assert encoder['newest_event_age_seconds_sum{method="Encode"}'] == 5 * 3600
    assert encoder['newest_event_age_seconds_count{method="Encode"}'] == 3
    assert encoder['newest_event_age_seconds_sum{method="BatchEncode"}'] == 2 * 3600
    assert encoder['remembered_age_seconds_count{method="Encode"}'] == 1
    assert encoder['remembered_age_seconds_sum{method="Encode"}'] > 0
    assert encoder["remembered_people"] == 1
    assert encoder["remembered_bytes"] > 0


def test_how_much_came_at_once(encoder: dict[str, float], retriever: dict[str, float]) -> None:
    sums = {"BatchEncode": 3, "RecordEvents": 2}
    assert of(encoder, "batch_size_sum") == {f'{{method="{method}"}}': total for method, total in sums.items()}
    sums = {"BatchSearch": 2, "BatchGetMovies": 5}
    assert of(retriever, "batch_size_sum") == {f'{{method="{method}"}}': total for method, total in sums.items()}
    # Nobody else called at the same time.
    assert of(encoder, "encoded_together_sum") == of(encoder, "encoded_together_count") == {'{method="Encode"}': 4}


def test_why_lists_are_short_and_what_filters_left(retriever: dict[str, float]) -> None:
    assert of(retriever, "lists_total") == {
        '{method="Search",short_reason="none"}': 4,
        '{method="Search",short_reason="filter"}': 1,
        '{method="Search",short_reason="catalog"}': 1,
        '{method="BatchSearch",short_reason="none"}': 2,
        '{method="SearchSimilar",short_reason="none"}': 1,
    }
    comedies = sum(GENRES[0] in movie_record(number).genres for number in range(MOVIES))
    assert comedies == 25
    assert of(retriever, "filter_matching_ratio_sum") == {
        '{method="Search"}': pytest.approx(25 / MOVIES),
        '{method="BatchSearch"}': pytest.approx(2 * 25 / MOVIES),
    }


def test_what_found_the_movies_and_where_details_were(retriever: dict[str, float]) -> None:
    assert of(retriever, "index_searches_total") == {
        '{method="Search",path="exact"}': 5,
        '{method="Search",path="exact over the matching"}': 1,
        '{method="BatchSearch",path="exact over the matching"}': 2,
        # Of the one movie that is given, too: it is left out.
        '{method="SearchSimilar",path="exact over the matching"}': 1,
    }
    assert of(retriever, "details_total") == {
        '{method="Search",where="catalogue"}': 3,
        '{method="Search",where="memory"}': 3,
    }


def test_the_stages_of_every_call_that_has_some(encoder: dict[str, float], retriever: dict[str, float]) -> None:
    assert of(encoder, "stage_seconds_count") == {
        '{method="Encode",stage="store"}': 4,
        '{method="Encode",stage="encode"}': 4,
        '{method="BatchEncode",stage="store"}': 1,
        '{method="BatchEncode",stage="encode"}': 1,
        '{method="RecordEvents",stage="store"}': 1,
    }
    assert of(retriever, "stage_seconds_count") == {
        '{method="Search",stage="search"}': 6,
        '{method="Search",stage="finish"}': 6,
        '{method="BatchSearch",stage="search"}': 1,
        '{method="SearchSimilar",stage="search"}': 1,
        '{method="SearchSimilar",stage="finish"}': 1,
    }


def documented() -> set[str]:
    """Lists the names in the tables of the documentation's chapter on metrics."""
    text = (ROOT / "docs" / "operations.md").read_text()
    chapter = text.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    firsts = re.findall(r"^\| (`[^|]+`) \|", chapter, re.MULTILINE)
    return {name for first in firsts for name in re.findall(r"`(\w+)`", first)}


# What is said only under TLS or with a Milvus.
ELSEWHERE = {"certificate_expires_timestamp_seconds", "milvus_reachable", "milvus_misses_total"}


def test_what_is_documented_is_said_and_what_is_said_is_documented(
    encoder: dict[str, float], retriever: dict[str, float]
) -> None:
    names = {key.partition("{")[0] for metrics in (encoder, retriever) for key in metrics}
    said = {re.sub("_(bucket|count|sum)$", "", name) for name in names if not name.endswith("_created")}
    assert documented() - ELSEWHERE == said
