"""From answers to Python's values."""

from __future__ import annotations

import datetime as dt
import enum
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from google.rpc import code_pb2

from marquee.bundle.v1 import bundle_pb2
from marquee.client.values import (
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
    Forgotten,
    LoadedBundle,
    Metric,
    Movie,
    RankedMovies,
    Recommendation,
    Recommendations,
    RecordFailure,
    ReplicaState,
    SearchDebug,
    ShortReason,
    StoreState,
)
from marquee.errors import MarqueeError, from_status
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
        links=tuple(message.links),
    )


def recommendations(encoded: user_encoder_pb2.EncodeResponse, found: retriever_pb2.SearchResponse) -> Recommendations:
    """Reads the answers of both services as one."""
    return Recommendations(
        items=_items(found),
        request_id=found.request_id,
        space=found.space,
        bundle_id=found.bundle_id,
        short_reason=_known(ShortReason, found.short_reason),
        debug=_debug(found),
        source=_known(FeatureSource, encoded.source),
        events_used=encoded.events_used,
        events_unknown=encoded.events_unknown,
        events_truncated=encoded.events_truncated,
        as_of=_moment(encoded.as_of_ms),
        features_age_s=encoded.features_age_ms / 1000,
        degraded=encoded.degraded,
    )


def most_watched(
    message: catalog_pb2.TopMoviesResponse, short_reason: ShortReason, as_of: dt.datetime, away: MarqueeError
) -> Recommendations:
    """Reads the most watched movies as recommendations that were made without the encoder."""
    ranked = (Recommendation(movie(one), None, rank) for rank, one in enumerate(message.movies, 1))
    return Recommendations(
        items=tuple(ranked),
        request_id=message.request_id,
        space="",
        bundle_id=message.bundle_id,
        short_reason=short_reason,
        source=FeatureSource.TOP_MOVIES,
        events_used=0,
        events_unknown=0,
        events_truncated=0,
        as_of=as_of,
        features_age_s=0.0,
        degraded=True,
        away=away,
    )


def batched(
    encoded: user_encoder_pb2.BatchEncodeResponse,
    account: user_encoder_pb2.BatchEncodeResult,
    searched: retriever_pb2.BatchSearchResponse,
    found: retriever_pb2.BatchSearchResult,
    details: Mapping[int, Movie],
) -> Recommendations:
    """Reads one person's part of a batch's answers; a movie that is not among `details` has its id alone."""
    hits = enumerate(zip(found.movie_ids, found.scores, strict=True), 1)
    ranked = (
        Recommendation(details.get(movie_id) or Movie(movie_id, ""), round(score, _DIGITS), rank)
        for rank, (movie_id, score) in hits
    )
    return Recommendations(
        items=tuple(ranked),
        request_id=searched.request_id,
        space=searched.space,
        bundle_id=searched.bundle_id,
        short_reason=_known(ShortReason, found.short_reason),
        source=_known(FeatureSource, account.source),
        events_used=account.events_used,
        events_unknown=account.events_unknown,
        events_truncated=account.events_truncated,
        as_of=_moment(encoded.as_of_ms),
        features_age_s=account.features_age_ms / 1000,
        degraded=account.degraded,
    )


def explanation(message: user_encoder_pb2.ExplainResponse) -> Explanation:
    """Reads which events speak for and against movies."""
    told = tuple(events(message.events))
    scores = _floats(message.scores)
    effects = _floats(message.contributions)
    rows = [effects[start : start + len(told)] for start in range(0, len(effects), len(told) or 1)]
    rows += [()] * (len(scores) - len(rows))
    return Explanation(
        movies=tuple(
            ExplainedMovie(movie_id, round(score, _DIGITS), _contributions(told, row))
            for movie_id, score, row in zip(message.movie_ids, scores, rows, strict=True)
        ),
        unknown=tuple(message.unknown_movie_ids),
        request_id=message.request_id,
        space=message.space,
        bundle_id=message.bundle_id,
        source=_known(FeatureSource, message.source),
        events_used=message.events_used,
        as_of=_moment(message.as_of_ms),
        features_age_s=message.features_age_ms / 1000,
        degraded=message.degraded,
    )


def _contributions(told: Sequence[Event], row: Sequence[float]) -> tuple[Contribution, ...]:
    both = (Contribution(event, round(effect, _DIGITS)) for event, effect in zip(told, row, strict=True))
    return tuple(sorted(both, key=lambda one: -one.effect))


def ranked(found: retriever_pb2.SearchSimilarResponse) -> RankedMovies:
    """Reads the movies nearest to others."""
    return RankedMovies(
        items=_items(found),
        request_id=found.request_id,
        space=found.space,
        bundle_id=found.bundle_id,
        short_reason=_known(ShortReason, found.short_reason),
        debug=_debug(found),
    )


def facets(message: catalog_pb2.GetFacetsResponse) -> Facets:
    """Reads counts of movies."""
    return Facets(
        movies=message.movies,
        genres=facet_list(message.genres),
        decades=facet_list(message.decades),
        languages=facet_list(message.languages),
        bundle_id=message.bundle_id,
    )


def facet_list(messages: Iterable[catalog_pb2.Facet]) -> tuple[Facet, ...]:
    """Reads values with their numbers of movies."""
    return tuple(Facet(message.value, message.movies) for message in messages)


def forgotten(message: live_features_pb2.DeleteUserResponse) -> Forgotten:
    """Reads what was deleted."""
    return Forgotten(_moment(message.deleted_at_ms), message.existed)


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


def encoder_state(message: user_encoder_pb2.GetModelResponse) -> EncoderState:
    """Reads an encoder's state."""
    state, store = replica_state(message.state), message.store
    return EncoderState(
        bundles=state.bundles,
        generation=state.generation,
        reload_error=state.reload_error,
        store=StoreState(
            kind=store.kind,
            reachable=store.reachable,
            last_error=store.last_error or None,
            stale_answers=store.stale_answers,
            blind_answers=store.blind_answers,
            refused_writes=store.refused_writes,
        ),
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
    vectors = _vectors(found.vectors, len(found.scores))
    return tuple(
        Recommendation(movie(details), round(score, _DIGITS), rank, vectors[rank - 1] if vectors else None)
        for rank, (details, score) in enumerate(hits, 1)
    )


def _vectors(packed: bytes, count: int) -> list[tuple[float, ...]]:
    if not packed:
        return []
    size = len(packed) // count
    return [_floats(packed[start : start + size]) for start in range(0, len(packed), size)]


def _floats(packed: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(packed) // 4}f", packed)


def _debug(found: retriever_pb2.SearchResponse | retriever_pb2.SearchSimilarResponse) -> SearchDebug | None:
    if not found.HasField("debug"):
        return None
    said = found.debug
    return SearchDebug(said.candidates, said.matching, said.path, said.filter_us, said.search_us, said.finish_us)


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
