"""What people do: a scenario is a call, or two that belong together; a mix has several by their weights."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.field_mask_pb2 import FieldMask

from clients.loadtest.people import People, Seen
from clients.loadtest.target import ENCODE, RECORD, SEARCH
from marquee.v1 import live_features_pb2, retriever_pb2, types_pb2, user_encoder_pb2

METHODS = {"encode": (ENCODE,), "search": (SEARCH,), "recommend": (ENCODE, SEARCH), "record": (RECORD,)}
# As the SDK is used: lists are asked for, and some of what is on them is rated.
MIX = {"recommend": 80.0, "record": 15.0, "search": 3.0, "encode": 2.0}
# Nobody's history is changed by a test: what it records is recorded for people of its own.
RECORDED_FOR = "loadtest-"
_WEIGHT = re.compile(r"(?P<name>[a-z]+)=(?P<weight>\d+(?:\.\d+)?)", re.ASCII)
_DAY_MS = 86_400_000


class BadScenario(ValueError):
    """Says what is wrong with a text, and how it is written."""


class Pools(NamedTuple):
    """Holds requests written beforehand; `search_rest` is what stands in a Search besides the vector and its space."""

    encodes: Sequence[bytes]
    searches: Sequence[bytes]
    records: Sequence[bytes]
    search_rest: bytes


def parse_scenario(text: str) -> dict[str, float]:
    """Reads a scenario's name, "mix", or weights such as "recommend=70,record=30"; raises BadScenario."""
    if text == "mix":
        return dict(MIX)
    if text in METHODS:
        return {text: 1.0}
    weights: dict[str, float] = {}
    for part in text.split(","):
        match = _WEIGHT.fullmatch(part.strip())
        if match is None or match["name"] not in METHODS or match["name"] in weights:
            raise BadScenario(
                f"{text!r} is no scenario: give {', '.join(METHODS)} or mix, or weights of some, each once, such as "
                "recommend=70,record=30"
            )
        weights[match["name"]] = float(match["weight"])
    if not any(weights.values()):
        raise BadScenario(f"{text!r} weighs nothing: give at least one scenario a weight above 0")
    return {name: weight for name, weight in weights.items() if weight}


def methods_of(weights: Mapping[str, float]) -> list[str]:
    """Lists the methods that scenarios call."""
    return sorted({method for name in weights for method in METHODS[name]})


def encode_requests(people: People, now_ms: int) -> list[bytes]:
    """Writes an Encode of every person: by id, or with all that the person has seen."""
    if people.users:
        messages = [user_encoder_pb2.EncodeRequest(user_id=user, allow_cold_start=True) for user in people.users]
    else:
        messages = [
            user_encoder_pb2.EncodeRequest(events=_columns(history, now_ms), allow_cold_start=True)
            for history in people.histories
        ]
    return [message.SerializeToString() for message in messages]


def search_rest(k: int, details: bool) -> bytes:
    """Writes what all searches share."""
    return retriever_pb2.SearchRequest(k=k, details=FieldMask(paths=["*"] if details else [])).SerializeToString()


def search_request(encoded: user_encoder_pb2.EncodeResponse, rest: bytes) -> bytes:
    """Writes the Search that follows an Encode; messages of one type are joined by joining their bytes."""
    asked = retriever_pb2.SearchRequest(vector=encoded.vector, space=encoded.space, exclude_packed=encoded.seen)
    return asked.SerializeToString() + rest


def record_requests(people: People) -> list[bytes]:
    """Writes a RecordEvents of every rating; without a time, so that each call records a new event."""
    return [_recording(rating).SerializeToString() for rating in people.ratings]


def draw(weights: Mapping[str, float], rng: random.Random) -> Iterator[str]:
    """Draws scenarios without end."""
    while True:
        yield from rng.choices(list(weights), weights=list(weights.values()), k=1_000)


def _columns(history: Sequence[Seen], now_ms: int) -> types_pb2.EventColumns:
    return types_pb2.EventColumns(
        movie_ids=[seen.movie_id for seen in history],
        kinds=[types_pb2.EVENT_KIND_RATED] * len(history),
        values=[seen.stars for seen in history],
        times_ms=[now_ms - days * _DAY_MS for days in range(1, len(history) + 1)],
    )


def _recording(rating: Seen) -> live_features_pb2.RecordEventsRequest:
    event = live_features_pb2.Event(
        user_id=f"{RECORDED_FOR}{rating.user}",
        movie_id=rating.movie_id,
        kind=types_pb2.EVENT_KIND_RATED,
        value=rating.stars,
    )
    return live_features_pb2.RecordEventsRequest(events=[event])
