"""The client SDK: one object that speaks to both services and hides that there are two.

    from marquee.client import Recommender

    with Recommender("127.0.0.1:50051", "127.0.0.1:50052") as marquee:
        for item in marquee.recommend("42", k=5, genres=["Comedy"]):
            print(item.rank, item.movie, item.score)

`AsyncRecommender` has the same methods as coroutines, and as asynchronous iterators where these are iterators. Whatever
fails is a `MarqueeError`; no `grpc.RpcError` escapes.
How calls are retried and spread over replicas is data, in `service_config.json`; `channels` says what its fields mean.
"""

from marquee.client.experiments import arm
from marquee.client.recommender import AsyncRecommender, Recommender
from marquee.client.tls import Tls
from marquee.client.values import (
    BatchResult,
    BundleRole,
    Contribution,
    EncoderState,
    Event,
    EventKind,
    ExplainedMovie,
    Explanation,
    Facet,
    Facets,
    FeatureSource,
    Filters,
    Forgotten,
    ListOptions,
    LoadedBundle,
    Metric,
    Movie,
    Person,
    Quality,
    RankedMovies,
    Recommendation,
    Recommendations,
    Recorded,
    RecordFailure,
    ReplicaState,
    SearchDebug,
    SearchOptions,
    ShortReason,
    Status,
    StoreState,
)
from marquee.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    MarqueeError,
    MovieUnknown,
    NotFound,
    Overloaded,
    PermissionDenied,
    RemoteError,
    SpaceNotLoaded,
    StoreUnavailable,
    Unauthenticated,
    Unavailable,
    UserDeleted,
    UserUnknown,
)

__all__ = [
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
