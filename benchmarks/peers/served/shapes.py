"""Requests in JSON, for the peers that read them with pydantic."""

from __future__ import annotations

from pydantic import BaseModel


class Events(BaseModel):
    """Is EventColumns in JSON."""

    movie_ids: list[int]
    kinds: list[int]
    values: list[float]
    times_ms: list[int]


class Whole(BaseModel):
    """Is EncodeRequest in JSON."""

    events: Events
    as_of_ms: int


class Tower(BaseModel):
    """Is the tower's input in JSON."""

    rows: list[int]
    ratings: list[float]
    ages: list[int]
    gaps: list[int]
    kinds: list[int]
