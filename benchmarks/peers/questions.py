"""The questions that everybody is asked, on each wire, and the vectors that are right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.peers.served.model import Asked, Model, packed_tower
from marquee.features import Floats, TowerInput
from marquee.v1.user_encoder_pb2 import EncodeRequest, EncodeResponse


class Question(NamedTuple):
    """Is one person: the request with their events, the tower's input that those make, and the vector that is right."""

    request: EncodeRequest
    tower: TowerInput
    vector: Floats


def question_of(model: Model, request: EncodeRequest) -> Question:
    """Answers a request in this process."""
    asked = Asked(request.events, request.as_of_ms)
    return Question(request, model.tower(asked), model.encode(asked).vector)


class Form(NamedTuple):
    """Is how questions are written and vectors are read."""

    path: str
    write: Callable[[Question], bytes]
    read: Callable[[bytes], Floats]


def rpc_form(path: str, *, whole: bool) -> Form:
    """Forms messages."""
    if whole:
        return Form(
            path,
            lambda question: question.request.SerializeToString(),
            lambda body: _floats(EncodeResponse.FromString(body).vector),
        )
    return Form(
        path,
        lambda question: BytesValue(value=packed_tower(question.tower)).SerializeToString(),
        lambda body: _floats(BytesValue.FromString(body).value),
    )


def json_form(*, whole: bool, listed: bool) -> Form:
    """Forms JSON; `listed`, as BentoML has it, where every call can have several people."""
    columns = _whole if whole else _bare

    def write(question: Question) -> bytes:
        asked = columns(question)
        return json.dumps({"asked": [asked]} if listed else asked, separators=(",", ":")).encode()

    def read(body: bytes) -> Floats:
        answer = json.loads(body)
        return np.array((answer[0] if listed else answer)["vector"], np.float32)

    return Form("/encode" if whole else "/run", write, read)


def _whole(question: Question) -> dict[str, Any]:
    events = question.request.events
    names = ("movie_ids", "kinds", "values", "times_ms")
    columns: dict[str, Sequence[float]] = {name: list(getattr(events, name)) for name in names}
    return {"events": columns, "as_of_ms": question.request.as_of_ms}


def _bare(question: Question) -> dict[str, Any]:
    return {name: column[0].tolist() for name, column in question.tower._asdict().items()}


def _floats(packed: bytes) -> Floats:
    return np.frombuffer(packed, "<f4")
