"""What all peers serve: the same encoder on the same bundle, by Marquee's own code. Only the serving is the peer's.

It is asked in two ways. Whole: events come, are checked, merged and encoded as Encode does it, and the answer
has all that Encode says. Bare: the tower's input, made beforehand, comes, and the vector alone goes back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marquee.bundle.format import open_bundle
from marquee.engine.encoder import Encoder
from marquee.errors import MarqueeError
from marquee.features import Floats, TowerInput, pad_batch
from marquee.v1 import types_pb2
from marquee.v1.user_encoder_pb2 import EncodeResponse
from services.user_encoder.checks import Sent, read_as_of, read_events
from services.user_encoder.encoding import (
    Account,
    Ask,
    Moment,
    Person,
    encode_alone,
    encode_response,
    prepare,
    prepare_many,
)

# Calls that a peer may put together where batches are on, and how long it waits for more of them.
MOST_TOGETHER = 32
WAIT_S = 0.002

# The columns of the tower's input as bytes: one after the other, each of as many entries.
_TYPES: tuple[Any, ...] = (np.int64, np.float32, np.int64, np.int64, np.int64)
_ENTRY_BYTES = sum(np.dtype(each).itemsize for each in _TYPES)


class Settings(NamedTuple):
    """Says what to serve and how; from the environment, which workers that are started in between inherit."""

    bundle: Path
    port: int
    whole: bool
    together: bool

    @staticmethod
    def read() -> Settings:
        """Reads what the benchmark has set."""
        told = os.environ
        return Settings(
            Path(told["PEER_BUNDLE"]),
            int(told["PEER_PORT"]),
            whole=told["PEER_WORK"] == "whole",
            together=told["PEER_TOGETHER"] == "1",
        )

    def variables(self) -> dict[str, str]:
        """Writes what `read` reads."""
        return {
            "PEER_BUNDLE": str(self.bundle),
            "PEER_PORT": str(self.port),
            "PEER_WORK": "whole" if self.whole else "bare",
            "PEER_TOGETHER": str(int(self.together)),
        }


class Asked(NamedTuple):
    """Is one person's events, as they came or read from JSON, and the moment that ages are measured from."""

    events: Any
    as_of_ms: int


class Encoded(NamedTuple):
    """Is one person's vector [D] and the account of it."""

    vector: Floats
    account: Account


class Model:
    """Encodes people, one or several at once."""

    def __init__(self, bundle: Path) -> None:
        opened = open_bundle(bundle)
        self.space, self.bundle_id = opened.space, opened.id
        self._encoder = Encoder(opened)

    def encode(self, asked: Asked) -> Encoded:
        """Encodes one person, whose columns may be lists as well as a message's; raises as Encode does."""
        return Encoded(*encode_alone(self._encoder, _ask(asked)))

    def encode_together(self, many: Sequence[Asked]) -> list[Encoded]:
        """Encodes people whose columns are messages, as the service does with calls that come together."""
        if len(many) == 1:
            return [self.encode(many[0])]
        tower, accounts = prepare_many(self._encoder, [_ask(asked) for asked in many])
        vectors_BD = self._encoder.run(tower)
        return [Encoded(vector, _checked(account)) for vector, account in zip(vectors_BD, accounts, strict=True)]

    def tower(self, asked: Asked) -> TowerInput:
        """Makes the tower's input of one person's events."""
        ask = _ask(asked)
        return prepare(self._encoder, Person("", read_events(*ask.sent)), ask.known, ask.moment).encoded.tower

    def run(self, tower: TowerInput) -> Floats:
        """Runs the tower on one input; returns its vector [D]."""
        vector: Floats = self._encoder.run_whole(tower)[0]
        return vector

    def run_together(self, towers: list[TowerInput]) -> Floats:
        """Runs the tower on B inputs; returns [B, D]."""
        return self._encoder.run_whole(pad_batch(towers))

    def response(self, encoded: Encoded) -> EncodeResponse:
        """Writes what Encode answers."""
        return encode_response(encoded.vector, encoded.account, self.space, self.bundle_id, "")

    def answer(self, encoded: Encoded) -> dict[str, Any]:
        """Lists what Encode answers, for JSON."""
        account = encoded.account
        return {
            "vector": encoded.vector.tolist(),
            "space": self.space,
            "bundle_id": self.bundle_id,
            "as_of_ms": account.as_of_ms,
            "source": int(account.source),
            "events_used": account.used,
            "events_unknown": account.unknown,
            "events_truncated": account.truncated,
            "newest_event_ms": account.newest_ms,
            "seen": np.frombuffer(account.seen, "<i8").tolist(),
            "features_age_ms": account.age_ms,
            "degraded": account.degraded,
        }


def _ask(asked: Asked) -> Ask:
    now_ms = time.time_ns() // 1_000_000
    moment = Moment(read_as_of(asked.as_of_ms, now_ms), live=asked.as_of_ms == 0, allow_cold_start=False)
    return Ask("", Sent(asked.events, now_ms, "events"), moment)


def _checked(account: Account | MarqueeError) -> Account:
    if isinstance(account, MarqueeError):
        raise account
    return account


def message_of(columns: Mapping[str, Any]) -> types_pb2.EventColumns:
    """Makes a message of columns from JSON: of several people it is read faster than lists."""
    return types_pb2.EventColumns(**columns)


def tower_of(columns: Mapping[str, Any]) -> TowerInput:
    """Reads the tower's input from JSON: lists, one a column."""
    arrays: list[Any] = [np.array(columns[name], kind) for name, kind in zip(TowerInput._fields, _TYPES, strict=True)]
    return TowerInput._make(array[None] for array in arrays)


def packed_tower(tower: TowerInput) -> bytes:
    """Writes one person's tower input as bytes."""
    columns: Sequence[Any] = tower
    return b"".join(column[0].astype(kind).tobytes() for column, kind in zip(columns, _TYPES, strict=True))


def unpacked_tower(packed: bytes) -> TowerInput:
    """Reads what `packed_tower` wrote."""
    length, at, columns = len(packed) // _ENTRY_BYTES, 0, []
    for kind in _TYPES:
        column: Any = np.frombuffer(packed, kind, length, at)
        at += column.nbytes
        columns.append(column[None])
    return TowerInput._make(columns)
