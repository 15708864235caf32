"""What the SDK takes and gives back, in Python's own types: tuples, UTC datetimes, None where nothing is known."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from marquee.errors import MarqueeError
from marquee.v1 import retriever_pb2, types_pb2, user_encoder_pb2


class EventKind(enum.Enum):
    """Says what a person did with a movie; `types.proto` says what each kind means."""

    UNSPECIFIED = types_pb2.EVENT_KIND_UNSPECIFIED
    RATED = types_pb2.EVENT_KIND_RATED
    LIKED = types_pb2.EVENT_KIND_LIKED
    DISLIKED = types_pb2.EVENT_KIND_DISLIKED
    WATCHED = types_pb2.EVENT_KIND_WATCHED
    CLICKED = types_pb2.EVENT_KIND_CLICKED
    WATCHLISTED = types_pb2.EVENT_KIND_WATCHLISTED
    NOT_INTERESTED = types_pb2.EVENT_KIND_NOT_INTERESTED
    RETRACTED = types_pb2.EVENT_KIND_RETRACTED


class FeatureSource(enum.Enum):
    """Says where the events behind a recommendation came from; UNSPECIFIED is one that this SDK is too old to name."""

    UNSPECIFIED = user_encoder_pb2.FEATURE_SOURCE_UNSPECIFIED
    STORE = user_encoder_pb2.FEATURE_SOURCE_STORE
    REQUEST = user_encoder_pb2.FEATURE_SOURCE_REQUEST
    COLD_START = user_encoder_pb2.FEATURE_SOURCE_COLD_START
    STALE = user_encoder_pb2.FEATURE_SOURCE_STALE


class ShortReason(enum.Enum):
    """Says why a list is shorter than k; UNSPECIFIED where it is not."""

    UNSPECIFIED = retriever_pb2.SHORT_REASON_UNSPECIFIED
    FILTER = retriever_pb2.SHORT_REASON_FILTER
    EXCLUDED = retriever_pb2.SHORT_REASON_EXCLUDED
    CATALOG = retriever_pb2.SHORT_REASON_CATALOG
    SCORE = retriever_pb2.SHORT_REASON_SCORE
    CAPS = retriever_pb2.SHORT_REASON_CAPS


class BundleRole(enum.Enum):
    """Says what part a loaded bundle plays; UNSPECIFIED is one that this SDK is too old to name."""

    UNSPECIFIED = types_pb2.BUNDLE_ROLE_UNSPECIFIED
    ACTIVE = types_pb2.BUNDLE_ROLE_ACTIVE
    STANDBY = types_pb2.BUNDLE_ROLE_STANDBY
    RETIRING = types_pb2.BUNDLE_ROLE_RETIRING


class Filters(TypedDict, total=False):
    """Names the conditions on which movies may be shown, as keyword arguments; all that are given must hold.

    `genres`: at least one of these. `all_genres`: every one of these. `without_genres`: none of these. `year_min` and
    `year_max`: inclusive; a movie without a year is dropped. `languages`: ISO 639-1, one of these. `only`: no movie but
    these ids. `exclude`: none of these ids. `people`: directed or played by one of these. `rating_min`: mean rating, in
    stars; a movie that nobody rated is dropped. `rating_count_min`, `rating_count_max`: number of ratings, inclusive.
    Genres, languages and people match whole and without regard to case.
    """

    genres: Sequence[str]
    all_genres: Sequence[str]
    without_genres: Sequence[str]
    year_min: int | None
    year_max: int | None
    languages: Sequence[str]
    only: Sequence[int]
    exclude: Sequence[int]
    people: Sequence[str]
    rating_min: float | None
    rating_count_min: int | None
    rating_count_max: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """Is one thing that a person did.

    `stars`: 0.5 to 5, for RATED and no other kind. `time`: with a time zone; None is now, or the `as_of` of a
    recommendation.
    """

    movie_id: int
    kind: EventKind
    stars: float | None = None
    time: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Movie:
    """Is one movie as a screen shows it; what is not known is None or empty, never a placeholder.

    `title` is without the year. `external_id` is "source:id", `language` ISO 639-1, `mean_rating` in stars.
    """

    movie_id: int
    title: str
    year: int | None = None
    genres: tuple[str, ...] = field(default=(), repr=False)
    language: str | None = field(default=None, repr=False)
    release_date: dt.date | None = field(default=None, repr=False)
    runtime_minutes: int | None = field(default=None, repr=False)
    directors: tuple[str, ...] = field(default=(), repr=False)
    cast: tuple[str, ...] = field(default=(), repr=False)
    external_id: str | None = field(default=None, repr=False)
    mean_rating: float | None = field(default=None, repr=False)
    rating_count: int = field(default=0, repr=False)

    def __str__(self) -> str:
        return self.title if self.year is None else f"{self.title} ({self.year})"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Is one movie of a ranked list: `rank` from 1, `score` the cosine, -1 to 1."""

    movie: Movie
    score: float
    rank: int

    def __str__(self) -> str:
        return f"{self.rank:>3}. {self.movie}  {self.score:.3f}"


@dataclass(frozen=True, slots=True)
class RankedMovies:
    """Is a list of movies, best first, with the space and the bundle that it was found in."""

    items: tuple[Recommendation, ...]
    request_id: str
    space: str
    bundle_id: str
    short_reason: ShortReason

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return "\n".join(map(str, self.items))


@dataclass(frozen=True, slots=True)
class Recommendations(RankedMovies):
    """Is a list of movies for a person, with an account of the events that it rests on.

    `events_used` were read by the tower, `events_unknown` are of movies that the space does not know,
    `events_truncated` gave way to newer ones. Ages were measured from `as_of`. `degraded`: the store of people's events
    could not be read, so some may be missing; what is known of it is `features_age_s` old.
    """

    source: FeatureSource
    events_used: int
    events_unknown: int
    events_truncated: int
    as_of: dt.datetime
    features_age_s: float
    degraded: bool


@dataclass(frozen=True, slots=True)
class RecordFailure:
    """Says why one event was not recorded; `index` is its place among the events that were given."""

    index: int
    error: MarqueeError


@dataclass(frozen=True, slots=True)
class Recorded:
    """Says what became of the events: how many are in the store now, and which are not."""

    recorded: int
    failures: tuple[RecordFailure, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """Is one figure of a bundle's evaluation, the mean over `n` queries, with its 95 % interval where there is one."""

    system: str
    protocol: str
    targets: str
    name: str
    value: float
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """Is a bundle that a replica has verified, probed and loaded; `movies` is how many it can recommend."""

    space: str
    bundle_id: str
    revision: str
    role: BundleRole
    dimension: int
    movies: int
    loaded_at: dt.datetime
    tower: str
    metrics: tuple[Metric, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """Is what one replica has loaded, active first, and what keeps it from loading more (None: nothing)."""

    bundles: tuple[LoadedBundle, ...]
    generation: int
    reload_error: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """Is the state of one replica of each service: those that happened to answer."""

    encoder: ReplicaState
    retriever: ReplicaState
