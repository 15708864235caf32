"""BentoML: one service in one worker, without an access log, metrics and traces; `bentoml serve` starts it."""

from __future__ import annotations

import os
import sys
from typing import Any

import bentoml

from benchmarks.peers.served.model import MOST_TOGETHER, Asked, Model, Settings, message_of, tower_of
from benchmarks.peers.served.shapes import Tower, Whole

_QUIET = {
    "workers": 1,
    "traffic": {"timeout": 20},
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
    "tracing": {"sample_rate": 0.0},
}


class Alone:
    """Answers calls one by one."""

    def __init__(self) -> None:
        self._model = Model(Settings.read().bundle)

    @bentoml.api(route="/encode")
    async def encode(self, asked: list[Whole]) -> list[dict[str, Any]]:
        """Encodes people."""
        return [self._model.answer(self._model.encode(Asked(one.events, one.as_of_ms))) for one in asked]

    @bentoml.api(route="/run")
    async def run(self, asked: list[Tower]) -> list[dict[str, Any]]:
        """Runs the tower."""
        return [{"vector": self._model.run(tower_of(one.__dict__)).tolist()} for one in asked]


class Together:
    """Answers calls that BentoML has put together."""

    def __init__(self) -> None:
        self._model = Model(Settings.read().bundle)

    @bentoml.api(route="/encode", batchable=True, max_batch_size=MOST_TOGETHER)
    async def encode(self, asked: list[Whole]) -> list[dict[str, Any]]:
        """Encodes people."""
        many = [Asked(message_of(one.events.__dict__), one.as_of_ms) for one in asked]
        return [self._model.answer(encoded) for encoded in self._model.encode_together(many)]

    @bentoml.api(route="/run", batchable=True, max_batch_size=MOST_TOGETHER)
    async def run(self, asked: list[Tower]) -> list[dict[str, Any]]:
        """Runs the tower."""
        vectors = self._model.run_together([tower_of(one.__dict__) for one in asked])
        return [{"vector": vector.tolist()} for vector in vectors]


Service = bentoml.service(name="peer", **_QUIET)(Together if Settings.read().together else Alone)


if __name__ == "__main__":
    port = str(Settings.read().port)
    serve = ("bentoml", "serve", "benchmarks.peers.served.with_bentoml:Service", "--host", "127.0.0.1", "--port", port)
    os.execv(sys.executable, [sys.executable, "-m", *serve])
