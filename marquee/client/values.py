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
    """Says where the events behind a recommendation came from; UNSPECIFIED is one that this SDK is too old to name.

    TOP_MOVIES: from nowhere. The encoder was away, and the list is of the most watched movies, the same for everybody.
    """

    UNSPECIFIED = user_encoder_pb2.FEATURE_SOURCE_UNSPECIFIED
    STORE = user_encoder_pb2.FEATURE_SOURCE_STORE
    REQUEST = user_encoder_pb2.FEATURE_SOURCE_REQUEST
    COLD_START = user_encoder_pb2.FEATURE_SOURCE_COLD_START
    STALE = user_encoder_pb2.FEATURE_SOURCE_STALE
    # Never sent: the SDK's own, for a list that was made without the encoder.
    TOP_MOVIES = -1


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


class Quality(enum.Enum):
    """Says how hard to look for the nearest movies; with an exact index all are alike."""

    UNSPECIFIED = retriever_pb2.QUALITY_UNSPECIFIED
    EXACT = retriever_pb2.QUALITY_EXACT
    BALANCED = retriever_pb2.QUALITY_BALANCED
    FAST = retriever_pb2.QUALITY_FAST


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


class ListOptions(Filters, total=False):
    """Names the filters, and what else a list is to be, as keyword arguments.

    `min_score`: drops movies below this cosine. `quality`: how hard to look. `diversity`: 0 to 1, trades nearness for
    variety (maximal marginal relevance); the order is then that of picking. `max_per_genre`, `max_per_director`: at
    most so many movies of any one; 0 is no cap.
    """

    min_score: float | None
    quality: Quality
    diversity: float
    max_per_genre: int
    max_per_director: int


class SearchOptions(ListOptions, total=False):
    """Names all that can be said of one list.

    `vectors` sends each movie's vector, `debug` says how the list came about.
    """

    vectors: bool
    debug: bool


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

    `title` is without the year. `external_id` is "source:id", `language` ISO 639-1, `mean_rating` in stars, `links` are
    URLs of pages elsewhere.
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
    links: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.title if self.year is None else f"{self.title} ({self.year})"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Is one movie of a ranked list: `rank` from 1, `score` the cosine, -1 to 1.

    `score` is None in a list of the most watched movies (source TOP_MOVIES). `vector` is set where it was asked for.
    """

    movie: Movie
    score: float | None
    rank: int
    vector: tuple[float, ...] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        listed = f"{self.rank:>3}. {self.movie}"
        return listed if self.score is None else f"{listed}  {self.score:.3f}"


@dataclass(frozen=True, slots=True)
class SearchDebug:
    """Says how a list came about.

    `candidates` are the index's movies, `matching` those of them that pass the filter and are not excluded or blocked;
    `path` is what looked for them. Times in microseconds.
    """

    candidates: int
    matching: int
    path: str
    filter_us: int
    search_us: int
    finish_us: int


@dataclass(frozen=True, slots=True)
class RankedMovies:
    """Is a list of movies, best first, with the space and the bundle that it was found in.

    `debug` is set where it was asked for.
    """

    items: tuple[Recommendation, ...]
    request_id: str
    space: str
    bundle_id: str
    short_reason: ShortReason
    debug: SearchDebug | None = field(default=None, kw_only=True, repr=False)

    @property
    def movie_ids(self) -> tuple[int, ...]:
        """Is the ids of the movies, best first."""
        return tuple(item.movie.movie_id for item in self.items)

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
    `events_truncated` gave way to newer ones. Ages were measured from `as_of`. `degraded`: the list is not all that it
    could be. With source TOP_MOVIES the encoder was away, `away` says why, and nobody's events count; with any other,
    the store of people's events could not be read, so some may be missing, and what is known of it is `features_age_s`
    old.
    """

    source: FeatureSource
    events_used: int
    events_unknown: int
    events_truncated: int
    as_of: dt.datetime
    features_age_s: float
    degraded: bool
    away: MarqueeError | None = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Person:
    """Is one person of a batch: an id, events, or both, as `recommend` takes them."""

    user_id: str = ""
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Is what became of one person of a batch: recommendations, or the error that stands in their place."""

    person: Person
    recommendations: Recommendations | None
    error: MarqueeError | None


@dataclass(frozen=True, slots=True)
class Contribution:
    """Says what one event does for a movie: the movie's score less its score without the event.

    Above 0 the event speaks for the movie, below 0 against it.
    """

    event: Event
    effect: float


@dataclass(frozen=True, slots=True)
class ExplainedMovie:
    """Is a movie's score for a person, a cosine, and what each event does for it, what speaks most for it first.

    The effects need not add up to the score.
    """

    movie_id: int
    score: float
    contributions: tuple[Contribution, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Says which of a person's events speak for and against movies.

    `movies` are those that the space knows, in the order asked, `unknown` the ids of the others. The rest is as in
    `Recommendations`.
    """

    movies: tuple[ExplainedMovie, ...]
    unknown: tuple[int, ...]
    request_id: str
    space: str
    bundle_id: str
    source: FeatureSource
    events_used: int
    as_of: dt.datetime
    features_age_s: float
    degraded: bool

    def __iter__(self) -> Iterator[ExplainedMovie]:
        return iter(self.movies)

    def __len__(self) -> int:
        return len(self.movies)


@dataclass(frozen=True, slots=True)
class Facet:
    """Is a genre, a decade ("1990") or a language, and how many movies have it."""

    value: str
    movies: int


@dataclass(frozen=True, slots=True)
class Facets:
    """Counts the movies that pass a filter; `decades` latest first, the others largest first."""

    movies: int
    genres: tuple[Facet, ...]
    decades: tuple[Facet, ...]
    languages: tuple[Facet, ...]
    bundle_id: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Says that a person's events are deleted: those dated up to `deleted_at` are refused from now on.

    `existed`: there were some.
    """

    deleted_at: dt.datetime
    existed: bool


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
class StoreState:
    """Is the store of people's events as one encoder sees it; counts are since that started.

    `kind`: "sqlite" or "redis". `last_error`: what it said when it was last unreachable, None if it never was.
    `stale_answers` were made from memory, `blind_answers` without stored events, because it could not be read.
    """

    kind: str
    reachable: bool
    last_error: str | None
    stale_answers: int
    blind_answers: int
    refused_writes: int


@dataclass(frozen=True, slots=True)
class EncoderState(ReplicaState):
    """Is what one encoder has loaded, and its store."""

    store: StoreState


@dataclass(frozen=True, slots=True)
class Status:
    """Is the state of one replica of each service: those that happened to answer."""

    encoder: EncoderState
    retriever: ReplicaState
