"""From answers to Python's values."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.rpc import code_pb2

from marquee.bundle.v1 import bundle_pb2
from marquee.client.values import (
    BundleRole,
    Event,
    EventKind,
    FeatureSource,
    LoadedBundle,
    Metric,
    Movie,
    RankedMovies,
    Recommendation,
    Recommendations,
    RecordFailure,
    ReplicaState,
    ShortReason,
)
from marquee.errors import from_status
from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2

E = TypeVar("E", bound=enum.Enum)

# Scores and stars are float32 on the wire: 3.92 would read 3.9200000762939453.
_DIGITS = 6


def movie(message: types_pb2.Movie) -> Movie:
    """Reads a movie."""
    return Movie(
        movie_id=message.movie_id,
        title=message.title,
        year=message.year if message.HasField("year") else None,
        genres=tuple(message.genres),
        language=message.language or None,
        release_date=_date(message.release_date),
        runtime_minutes=message.runtime_minutes if message.HasField("runtime_minutes") else None,
        directors=tuple(message.directors),
        cast=tuple(message.cast),
        external_id=message.external_id or None,
        mean_rating=round(message.mean_rating, _DIGITS) if message.HasField("mean_rating") else None,
        rating_count=message.rating_count,
    )


def recommendations(encoded: user_encoder_pb2.EncodeResponse, found: retriever_pb2.SearchResponse) -> Recommendations:
    """Reads the answers of both services as one."""
    return Recommendations(
        items=_items(found),
        request_id=found.request_id,
        space=found.space,
        bundle_id=found.bundle_id,
        short_reason=_known(ShortReason, found.short_reason),
        source=_known(FeatureSource, encoded.source),
        events_used=encoded.events_used,
        events_unknown=encoded.events_unknown,
        events_truncated=encoded.events_truncated,
        as_of=_moment(encoded.as_of_ms),
        features_age_s=encoded.features_age_ms / 1000,
        degraded=encoded.degraded,
    )


def ranked(found: retriever_pb2.SearchSimilarResponse) -> RankedMovies:
    """Reads the movies nearest to others."""
    return RankedMovies(
        items=_items(found),
        request_id=found.request_id,
        space=found.space,
        bundle_id=found.bundle_id,
        short_reason=_known(ShortReason, found.short_reason),
    )


def movies(message: catalog_pb2.BatchGetMoviesResponse) -> Iterator[Movie | None]:
    """Reads several movies, None where there is none of that id; raises what else went wrong with one."""
    for result in message.results:
        if result.status.code == code_pb2.OK:
            yield movie(result.movie)
        elif result.status.code == code_pb2.NOT_FOUND:
            yield None
        else:
            raise from_status(result.status)


def failures(message: live_features_pb2.RecordEventsResponse, offset: int) -> Iterator[RecordFailure]:
    """Reads which events were not recorded; the first of this answer has index `offset`."""
    for index, status in enumerate(message.statuses, offset):
        if status.code != code_pb2.OK:
            yield RecordFailure(index, from_status(status))


def events(columns: types_pb2.EventColumns) -> Iterator[Event]:
    """Reads events, in their order."""
    values = columns.values or [0.0] * len(columns.movie_ids)
    times_ms = columns.times_ms or [0] * len(columns.movie_ids)
    for movie_id, number, value, time_ms in zip(columns.movie_ids, columns.kinds, values, times_ms, strict=True):
        kind = _known(EventKind, number)
        stars = round(value, _DIGITS) if kind is EventKind.RATED else None
        yield Event(movie_id, kind, stars, _moment(time_ms) if time_ms else None)


def replica_state(message: types_pb2.ReplicaState) -> ReplicaState:
    """Reads a replica's state."""
    return ReplicaState(
        bundles=tuple(map(_loaded_bundle, message.bundles)),
        generation=message.generation,
        reload_error=message.reload_error or None,
    )


def _loaded_bundle(message: types_pb2.LoadedBundle) -> LoadedBundle:
    return LoadedBundle(
        space=message.space,
        bundle_id=message.bundle_id,
        revision=message.revision,
        role=_known(BundleRole, message.role),
        dimension=message.dimension,
        movies=message.movies,
        loaded_at=_moment(message.loaded_at_ms),
        tower=message.tower,
        metrics=tuple(map(_metric, message.metrics)),
    )


def _metric(message: bundle_pb2.Metric) -> Metric:
    return Metric(
        system=message.system,
        protocol=message.protocol,
        targets=message.targets,
        name=message.name,
        value=message.value,
        n=message.n,
        low=message.low if message.HasField("low") else None,
        high=message.high if message.HasField("high") else None,
    )


def _items(found: retriever_pb2.SearchResponse | retriever_pb2.SearchSimilarResponse) -> tuple[Recommendation, ...]:
    hits: Iterable[tuple[types_pb2.Movie, float]] = zip(found.movies, found.scores, strict=True)
    return tuple(
        Recommendation(movie(details), round(score, _DIGITS), rank) for rank, (details, score) in enumerate(hits, 1)
    )


def _known(kinds: type[E], number: object) -> E:
    # A newer server may name what this SDK has never heard of; that must not cost the caller the rest of the answer.
    try:
        return kinds(number)
    except ValueError:
        return kinds["UNSPECIFIED"]


def _moment(milliseconds: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)


def _date(text: str) -> dt.date | None:
    # As with _known: a date that cannot be read is a date that is not known.
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None
