"""Recommendations for many people: a chunk of them at a time, each through the batch rpcs of both services."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar, Unpack

from google.rpc import code_pb2

from marquee.client import answers, requests
from marquee.client.flows import loaded_space, movies
from marquee.client.rpcs import BATCH_ENCODE, BATCH_SEARCH, Flow, Page, Pages, call
from marquee.client.values import BatchResult, ListOptions, Movie, Person, Recommendations
from marquee.errors import (
    InvalidRequest,
    MarqueeError,
    PermissionDenied,
    SpaceNotLoaded,
    Unauthenticated,
    from_status,
)
from marquee.v1 import retriever_pb2, user_encoder_pb2

T = TypeVar("T")

# A call takes 1,024 people. With 256 even answers with 10,000 seen movies for each stay below 32 MiB, and one chunk
# keeps a service busy for milliseconds, not for a tenth of a second.
_PEOPLE = 256
# What is wrong for all people alike is raised; anything else is of one chunk.
_OF_ALL = (InvalidRequest, Unauthenticated, PermissionDenied)
# Half of what a service receives in one message.
_BYTES = 16 << 20


def batch(
    users: Iterable[str | Person],
    *,
    k: int = 10,
    exclude_seen: bool = True,
    as_of: dt.datetime | None = None,
    allow_cold_start: bool = True,
    details: bool = True,
    request_id: str = "",
    deadline_s: float | None = None,
    **options: Unpack[ListOptions],
) -> Pages[BatchResult]:
    """Recommends the k best movies for each of many people, given as user ids or as `Person`s, in their order.

    An iterator with one result for each person, recommendations or the error of that person alone. It takes the people
    256 at a time, as it is read, and `deadline_s` is for each such chunk; one that the services did not answer gives
    its error to each of its people, and the next is tried. Without `details` a movie has nothing but its id. The rest
    is as in `recommend`; there is no fallback.

    Raises InvalidRequest for what is wrong with all of them, for example k.
    """
    request_id = request_id or uuid.uuid4().hex
    encode = requests.batch_encode(as_of, allow_cold_start, request_id)
    plan = _Plan(encode, requests.batch_query(k, options), exclude_seen, details)
    asked = (_asked(user, as_of) for user in requests.listed("users", users))
    for chunk in parts(asked, _PEOPLE, _bytes_of):
        yield _chunk(chunk, plan)


class _Plan(NamedTuple):
    """Is what all people of a batch have in common; `encode` is without people, `query` without a vector."""

    encode: user_encoder_pb2.BatchEncodeRequest
    query: retriever_pb2.BatchSearchQuery
    exclude_seen: bool
    details: bool


class _Asked(NamedTuple):
    """Is one person of a batch with what is to be sent of them, or why that cannot be sent."""

    person: Person
    item: user_encoder_pb2.BatchEncodeItem | None
    error: MarqueeError | None


class _Found(NamedTuple):
    """Is one person's part of the answers: encoded, and searched where that went well."""

    encoded: user_encoder_pb2.BatchEncodeResponse
    account: user_encoder_pb2.BatchEncodeResult
    searched: retriever_pb2.BatchSearchResponse
    result: retriever_pb2.BatchSearchResult


def _asked(person: str | Person, as_of: dt.datetime | None) -> _Asked:
    person = person if isinstance(person, Person) else Person(person)
    try:
        return _Asked(person, requests.batch_item(person, as_of), None)
    except InvalidRequest as error:
        return _Asked(person, None, error)


def _bytes_of(asked: _Asked) -> int:
    return asked.item.ByteSize() if asked.item is not None else 0


def parts(things: Iterable[T], most: int, size: Callable[[T], int]) -> Iterator[list[T]]:
    """Cuts things into lists of `most` at the most and of 16 MiB together, where one alone is not larger."""
    part, total = list[T](), 0
    for thing in things:
        if part and (len(part) == most or total + size(thing) > _BYTES):
            yield part
            part, total = [], 0
        part.append(thing)
        total += size(thing)
    if part:
        yield part


def _chunk(asked: Sequence[_Asked], plan: _Plan) -> Flow[Page[BatchResult]]:
    items = [one.item for one in asked if one.item is not None]
    try:
        outcomes = iter((yield from _outcomes(items, plan)))
    except _OF_ALL:
        raise
    except MarqueeError as error:
        outcomes = iter([error] * len(items))
    return Page(tuple(_result(one.person, one.error or next(outcomes)) for one in asked))


def _result(person: Person, outcome: Recommendations | MarqueeError) -> BatchResult:
    if isinstance(outcome, MarqueeError):
        return BatchResult(person, None, outcome)
    return BatchResult(person, outcome, None)


def _outcomes(
    items: Sequence[user_encoder_pb2.BatchEncodeItem], plan: _Plan
) -> Flow[Sequence[Recommendations | MarqueeError]]:
    if not items:
        return ()
    try:
        found = yield from _encode_and_search(items, plan, "")
    except SpaceNotLoaded as error:
        found = yield from _encode_and_search(items, plan, loaded_space(error))
    wanted = {movie_id for one in found for movie_id in one.result.movie_ids} if plan.details else ()
    known = yield from movies(sorted(wanted))
    details = {movie.movie_id: movie for movie in known if movie is not None}
    return [_outcome(one, details) for one in found]


def _outcome(found: _Found, details: Mapping[int, Movie]) -> Recommendations | MarqueeError:
    for status in (found.account.status, found.result.status):
        if status.code != code_pb2.OK:
            return from_status(status)
    return answers.batched(found.encoded, found.account, found.searched, found.result, details)


def _encode_and_search(
    items: Sequence[user_encoder_pb2.BatchEncodeItem], plan: _Plan, space: str
) -> Flow[Sequence[_Found]]:
    request = user_encoder_pb2.BatchEncodeRequest(items=items, space=space)
    request.MergeFrom(plan.encode)
    encoded = yield from call(BATCH_ENCODE, request)
    searched = iter((yield from _search(_queries(encoded, plan), encoded)))
    nothing = (retriever_pb2.BatchSearchResponse(), retriever_pb2.BatchSearchResult())
    return [
        _Found(encoded, account, *(next(searched) if account.status.code == code_pb2.OK else nothing))
        for account in encoded.results
    ]


def _queries(encoded: user_encoder_pb2.BatchEncodeResponse, plan: _Plan) -> Iterator[retriever_pb2.BatchSearchQuery]:
    size = len(encoded.vectors) // len(encoded.results)
    for index, account in enumerate(encoded.results):
        if account.status.code == code_pb2.OK:
            query = retriever_pb2.BatchSearchQuery(
                vector=encoded.vectors[index * size : (index + 1) * size],
                exclude_packed=account.seen if plan.exclude_seen else b"",
            )
            query.MergeFrom(plan.query)
            yield query


def _search(
    queries: Iterable[retriever_pb2.BatchSearchQuery], encoded: user_encoder_pb2.BatchEncodeResponse
) -> Flow[Sequence[tuple[retriever_pb2.BatchSearchResponse, retriever_pb2.BatchSearchResult]]]:
    found = []
    for part in parts(queries, _PEOPLE, retriever_pb2.BatchSearchQuery.ByteSize):
        request = retriever_pb2.BatchSearchRequest(queries=part, space=encoded.space, request_id=encoded.request_id)
        answer = yield from call(BATCH_SEARCH, request)
        found += [(answer, result) for result in answer.results]
    return found
