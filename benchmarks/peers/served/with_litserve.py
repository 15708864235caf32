"""LitServe: one API server and one worker, with its queues over ZeroMQ, which its documentation calls the faster."""

# No annotations from the future: LitServe compares that of `request` with this class, and hands over what was in it.
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.peers.served.model import (
    MOST_TOGETHER,
    WAIT_S,
    Asked,
    Encoded,
    Model,
    Settings,
    message_of,
    tower_of,
)


class _Columns:
    """Has the columns of a JSON object as attributes, as a message has them."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.__dict__ = columns


class Whole(litserve.LitAPI):
    """Encodes people, as Encode does."""

    def setup(self, device: object) -> None:
        """Loads the model in the worker."""
        self._settings = Settings.read()
        self._model = Model(self._settings.bundle)

    def decode_request(self, request: Request) -> Asked:
        """Reads a request; where several go together, into a message."""
        columns = request["events"]
        events = message_of(columns) if self._settings.together else _Columns(columns)
        return Asked(events, request["as_of_ms"])

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Puts inputs together."""
        return inputs

    def unbatch(self, output: Any) -> list[Any]:
        """Takes answers apart."""
        return list(output)

    def predict(self, asked: Any) -> Any:
        """Encodes one, or several."""
        return self._model.encode_together(asked) if isinstance(asked, list) else self._model.encode(asked)

    def encode_response(self, encoded: Encoded) -> dict[str, Any]:
        """Writes an answer."""
        return self._model.answer(encoded)


class Bare(Whole):
    """Runs the tower on inputs that were made before."""

    def decode_request(self, request: Request) -> Any:
        """Reads a tower's input."""
        return tower_of(request)

    def predict(self, asked: Any) -> Any:
        """Runs one, or several."""
        return self._model.run_together(asked) if isinstance(asked, list) else self._model.run(asked)

    def encode_response(self, encoded: Any) -> dict[str, Any]:
        """Writes a vector."""
        return {"vector": np.asarray(encoded).tolist()}


def serve(settings: Settings) -> None:
    """Serves until a signal comes."""
    kind = Whole if settings.whole else Bare
    together = {"max_batch_size": MOST_TOGETHER, "batch_timeout": WAIT_S} if settings.together else {}
    api = kind(api_path="/encode" if settings.whole else "/run", **together)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=settings.port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    serve(Settings.read())
