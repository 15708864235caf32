"""FastAPI on uvicorn, one process: models of pydantic in and out, which its documentation calls the fastest."""

from __future__ import annotations

from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.served.model import Asked, Model, Settings, tower_of
from benchmarks.peers.served.shapes import Tower, Whole


class Answer(BaseModel):
    """Is EncodeResponse in JSON."""

    vector: list[float]
    space: str
    bundle_id: str
    as_of_ms: int
    source: int
    events_used: int
    events_unknown: int
    events_truncated: int
    newest_event_ms: int
    seen: list[int]
    features_age_ms: int
    degraded: bool


class Vector(BaseModel):
    """Is a vector in JSON."""

    vector: list[float]


def app_of(model: Model) -> FastAPI:
    """Makes the app."""
    app = FastAPI()

    @app.post("/encode")
    async def encode(asked: Whole) -> Answer:
        encoded = model.encode(Asked(asked.events, asked.as_of_ms))
        return Answer.model_construct(**model.answer(encoded))

    @app.post("/run")
    async def run(asked: Tower) -> Vector:
        columns: dict[str, Any] = asked.__dict__
        return Vector.model_construct(vector=model.run(tower_of(columns)).tolist())

    return app


if __name__ == "__main__":
    settings = Settings.read()
    uvicorn.run(
        app_of(Model(settings.bundle)),
        host="127.0.0.1",
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
