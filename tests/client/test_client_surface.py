"""The SDK's surface: names, signatures, policy and what it is made with."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import marquee.client
from marquee.client import (
    AsyncRecommender,
    BundleRole,
    ConfigError,
    EventKind,
    FeatureSource,
    Movie,
    Quality,
    Recommendation,
    Recommendations,
    Recommender,
    ShortReason,
)
from marquee.client.channels import OPTIONS
from marquee.v1 import (
    catalog_pb2,
    live_features_pb2,
    retriever_pb2,
    types_pb2,
    user_encoder_pb2,
)
from services.common.server_options import server_options
from services.common.settings import CommonSettings

ENCODER, RETRIEVER = "127.0.0.1:50051", "127.0.0.1:50052"
ITERATORS = ["batch", "history", "search"]
METHODS = [
    "batch",
    "close",
    "dislike",
    "encoder_state",
    "explain",
    "facets",
    "forget",
    "genres",
    "history",
    "like",
    "movie",
    "movies",
    "rate",
    "recommend",
    "record",
    "retract",
    "retriever_state",
    "search",
    "similar",
    "status",
    "top",
]


def test_all_is_this_list() -> None:
    assert marquee.client.__all__ == [
        "AsyncRecommender",
        "BatchResult",
        "BundleRole",
        "ConfigError",
        "Contribution",
        "DeadlineExceeded",
        "EncoderState",
        "Event",
        "EventKind",
        "ExplainedMovie",
        "Explanation",
        "Facet",
        "Facets",
        "FeatureSource",
        "Filters",
        "Forgotten",
        "InvalidRequest",
        "ListOptions",
        "LoadedBundle",
        "MarqueeError",
        "Metric",
        "Movie",
        "MovieUnknown",
        "NotFound",
        "Overloaded",
        "PermissionDenied",
        "Person",
        "Quality",
        "RankedMovies",
        "Recommendation",
        "Recommendations",
        "Recommender",
        "RecordFailure",
        "Recorded",
        "RemoteError",
        "ReplicaState",
        "SearchDebug",
        "SearchOptions",
        "ShortReason",
        "SpaceNotLoaded",
        "Status",
        "StoreState",
        "StoreUnavailable",
        "Tls",
        "Unauthenticated",
        "Unavailable",
        "UserDeleted",
        "UserUnknown",
        "arm",
    ]
    assert all(hasattr(marquee.client, name) for name in marquee.client.__all__)


@pytest.mark.parametrize("cls", [Recommender, AsyncRecommender])
def test_both_classes_have_these_methods(cls: type) -> None:
    assert sorted(name for name in dir(cls) if not name.startswith("_")) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_both_classes_share_signature_and_docstring(name: str) -> None:
    one, other = getattr(Recommender, name), getattr(AsyncRecommender, name)
    assert inspect.signature(one).parameters == inspect.signature(other).parameters
    assert one.__doc__ == other.__doc__
    assert one.__doc__
    assert inspect.isasyncgenfunction(other) if name in ITERATORS else inspect.iscoroutinefunction(other)
    assert inspect.isgeneratorfunction(one) == (name in ITERATORS)
    assert not inspect.iscoroutinefunction(one)
    assert (one.__qualname__, other.__qualname__) == (f"Recommender.{name}", f"AsyncRecommender.{name}")


def test_a_bound_method_shows_every_argument_but_self() -> None:
    with Recommender(ENCODER, RETRIEVER) as client:
        assert str(inspect.signature(client.like)) == (
            "(user_id: 'str', movie_id: 'int', *, time: 'dt.datetime | None' = None, request_id: 'str' = '', "
            "deadline_s: 'float | None' = None) -> 'None'"
        )


@pytest.mark.parametrize(
    ("ours", "wire", "prefix"),
    [
        (EventKind, types_pb2.EventKind, "EVENT_KIND_"),
        (FeatureSource, user_encoder_pb2.FeatureSource, "FEATURE_SOURCE_"),
        (ShortReason, retriever_pb2.ShortReason, "SHORT_REASON_"),
        (BundleRole, types_pb2.BundleRole, "BUNDLE_ROLE_"),
        (Quality, retriever_pb2.Quality, "QUALITY_"),
    ],
)
def test_enums_name_what_the_contract_names(ours: type, wire: type, prefix: str) -> None:
    named = {prefix + one.name: one.value for one in ours if one is not FeatureSource.TOP_MOVIES}  # type: ignore[attr-defined]  # never sent
    assert named == dict(wire.items())  # type: ignore[attr-defined]


def test_the_retry_policy_covers_every_service() -> None:
    policy = json.loads(str(dict(OPTIONS)["grpc.service_config"]))
    files = (catalog_pb2, live_features_pb2, retriever_pb2, user_encoder_pb2)
    services = {one.full_name for file in files for one in file.DESCRIPTOR.services_by_name.values()}
    assert {name["service"] for method in policy["methodConfig"] for name in method["name"]} == services
    assert policy["methodConfig"][0]["retryPolicy"]["maxAttempts"] == 3
    assert policy["methodConfig"][0]["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert policy["healthCheckConfig"] == {"serviceName": ""}, "the whole replica, as it says when it drains"
    [balancing] = policy["loadBalancingConfig"]
    assert balancing["outlier_detection_experimental"]["childPolicy"] == [{"round_robin": {}}]
    assert policy["retryThrottling"]["maxTokens"] > 0


def test_the_services_accept_the_keepalive() -> None:
    ours = dict(OPTIONS)
    theirs = dict(server_options(CommonSettings()))
    assert int(ours["grpc.keepalive_time_ms"]) >= theirs["grpc.http2.min_ping_interval_without_data_ms"]
    assert ours["grpc.keepalive_permit_without_calls"] == theirs["grpc.keepalive_permit_without_calls"] == 1
    assert int(ours["grpc.max_receive_message_length"]) >= theirs["grpc.max_send_message_length"]


def test_the_sdk_imports_nothing_beyond_its_dependencies() -> None:
    code = "import marquee.client, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    root = Path(__file__).parents[2]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    foreign = {"torch", "faiss", "onnxruntime", "rich", "pandas", "uvloop", "services", "training", "clients"}
    assert foreign.isdisjoint(loaded.split())


@pytest.mark.parametrize("cls", [Recommender, AsyncRecommender])
@pytest.mark.parametrize(
    "address",
    ["", " ", "localhost", "localhost:", ":1", "a:0", "a:65536", "http://a:1", "::1:5", "a:1 ", "a:1,b:2", "unix:"],
)
def test_an_address_that_is_none_is_refused_at_once(cls: type[Recommender], address: str) -> None:
    with pytest.raises(ConfigError, match=r"encoder is .* no address; give host:port") as caught:
        cls(address, RETRIEVER)
    assert caught.value.field == "encoder"
    with pytest.raises(ConfigError, match="retriever is"):
        cls(ENCODER, address)


@pytest.mark.parametrize(
    "address",
    [
        "a:1",
        "[::1]:5",
        "dns:///a.b:6",
        "dns://8.8.8.8/a:6",
        "ipv4:1.2.3.4:5,1.2.3.4:6",
        "ipv6:[::1]:5",
        "unix:/a",
        "unix:a",
    ],
)
def test_an_address_of_any_usual_kind_is_taken(address: str) -> None:
    Recommender(address, address).close()


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        (["127.0.0.1:1", "127.0.0.2:1"], "ipv4:127.0.0.1:1,127.0.0.2:1"),
        (["[::1]:1", "[::1]:2"], "ipv6:[::1]:1,[::1]:2"),
        (("a:1",), "a:1"),
    ],
)
def test_several_addresses_are_one_target(addresses: list[str], target: str) -> None:
    assert target in repr(AsyncRecommender(addresses, RETRIEVER))


@pytest.mark.parametrize("addresses", [[], ["a:1", "b:1"], ["127.0.0.1:1", "[::1]:1"], ["127.0.0.1:1", "127.0.0.1"]])
def test_several_addresses_that_are_no_target_are_refused(addresses: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"several IP addresses of one version .* or a name that resolves to all"):
        Recommender(addresses, RETRIEVER)


@pytest.mark.parametrize("wrong", [{"deadline_s": 0}, {"deadline_s": float("nan")}, {"connections": 0}])
def test_a_wrong_setting_is_refused_at_once(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Recommender(ENCODER, RETRIEVER, **wrong)  # type: ignore[arg-type]


def test_an_async_client_can_be_made_where_no_loop_runs() -> None:
    assert repr(AsyncRecommender(ENCODER, RETRIEVER)) == (
        "AsyncRecommender('127.0.0.1:50051', '127.0.0.1:50052', deadline_s=1)"
    )


def test_results_read_well() -> None:
    first = Recommendation(Movie(1, "Toy Story", 1995, genres=("Comedy",), cast=("Tom Hanks",)), 0.9, 1)
    second = Recommendation(Movie(2, "Unnamed"), 0.8125, 2)
    now = dt.datetime.now(dt.UTC)
    found = Recommendations(
        (first, second), "r", "s", "b", ShortReason.FILTER, FeatureSource.STORE, 3, 2, 1, now, 0.0, False
    )
    assert str(found) == "  1. Toy Story (1995)  0.900\n  2. Unnamed  0.812"
    assert repr(first) == "Recommendation(movie=Movie(movie_id=1, title='Toy Story', year=1995), score=0.9, rank=1)"
    assert list(found) == [first, second]
    assert len(found) == 2
