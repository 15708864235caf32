"""Writes whose a sampled request is, as a keyed hash: what joins a served list with what its person does later."""

from __future__ import annotations

from services.common.served import Sample, ServedFolder
from services.user_encoder.ladder import Ladder
from services.user_encoder.wire import clock_ms


class ServedPeople:
    """Writes the request id and the person's tag for the same share of requests that the retriever takes."""

    def __init__(self, share: float, folder: ServedFolder, ladder: Ladder) -> None:
        self._sample = Sample(share)
        self._folder = folder
        self._ladder = ladder

    def add(self, user_id: str, request_id: str) -> None:
        """Writes a row, where the request is of the sample and names somebody."""
        if user_id and self._sample.takes(request_id):
            tag = self._ladder.digest(user_id).hex()
            self._folder.add({"time_ms": clock_ms(), "request_id": request_id, "person": tag})
