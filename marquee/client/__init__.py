"""The client SDK: one object that speaks to both services and hides that there are two.

    from marquee.client import Recommender

    with Recommender("127.0.0.1:50051", "127.0.0.1:50052") as marquee:
        for item in marquee.recommend("42", k=5, genres=["Comedy"]):
            print(item.rank, item.movie, item.score)

`AsyncRecommender` has the same methods as coroutines. Whatever fails is a `MarqueeError`; no `grpc.RpcError` escapes.
How calls are retried and spread over replicas is data, in `service_config.json`; `channels` says what its fields mean.
"""

from marquee.client.recommender import AsyncRecommender, Recommender
from marquee.client.values import (
    BundleRole,
    Event,
    EventKind,
    FeatureSource,
    Filters,
    LoadedBundle,
    Metric,
    Movie,
    RankedMovies,
    Recommendation,
    Recommendations,
    Recorded,
    RecordFailure,
    ReplicaState,
    ShortReason,
    Status,
)
from marquee.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    MarqueeError,
    MovieUnknown,
    NotFound,
    RemoteError,
    SpaceNotLoaded,
    StoreUnavailable,
    Unavailable,
    UserUnknown,
)

__all__ = [
    "AsyncRecommender",
    "BundleRole",
    "ConfigError",
    "DeadlineExceeded",
    "Event",
    "EventKind",
    "FeatureSource",
    "Filters",
    "InvalidRequest",
    "LoadedBundle",
    "MarqueeError",
    "Metric",
    "Movie",
    "MovieUnknown",
    "NotFound",
    "RankedMovies",
    "Recommendation",
    "Recommendations",
    "Recommender",
    "RecordFailure",
    "Recorded",
    "RemoteError",
    "ReplicaState",
    "ShortReason",
    "SpaceNotLoaded",
    "Status",
    "StoreUnavailable",
    "Unavailable",
    "UserUnknown",
]
