"""What the page shows, whichever runs it came from. N movies on the map."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.v1 import bundle_pb2


class Difference(NamedTuple):
    """Holds a paired difference of two systems on the same queries: the mean and its 95 % bounds."""

    system: str
    against: str
    protocol: str
    targets: str
    name: str
    value: float
    low: float
    high: float
    n: int


class SeedMean(NamedTuple):
    """Holds a figure of one seed of a tower."""

    system: str
    seed: int
    protocol: str
    targets: str
    name: str
    value: float


class Pass(NamedTuple):
    """Holds what one pass over the data came to; the metrics are of the validation split."""

    loss: float
    recall_at_10: float
    ndcg_at_10: float
    seconds: float
    liked_ndcg_at_10: float = math.nan


class Curve(NamedTuple):
    """Holds the way of one tower and seed on the `last` split; `best` is the number of the pass that was kept."""

    tower: str
    seed: int
    passes: list[Pass]
    best: int


class Slice(NamedTuple):
    """Holds a figure of some of the queries, or of some of the targets: those where `by` is `label`."""

    by: str
    label: str
    figure: bundle_pb2.Metric


class Choice(NamedTuple):
    """Says which tower is the default and why; scores are each tower's mean over seeds, on validation.

    `scores` are on all targets, `liked` on liked ones.
    """

    tower: str
    criterion: str
    scores: dict[str, float]
    liked: dict[str, float]


class Film(NamedTuple):
    """Holds what the page says of a film."""

    title: str
    year: int | None
    genres: tuple[str, ...]
    ratings: int

    @property
    def name(self) -> str:
        """Writes title and year."""
        return f"{self.title} ({self.year})" if self.year else self.title


class MovieMap(NamedTuple):
    """Holds the most rated films on a plane; the best known come first."""

    tower: str
    method: str
    films: list[Film]
    xy_N2: npt.NDArray[np.float64]


class Neighbours(NamedTuple):
    """Holds the films nearest to one, with their cosines."""

    film: Film
    nearest: list[tuple[Film, float]]


class Sample(NamedTuple):
    """Holds one person's newest events, what came next, and what each system showed."""

    history: list[Film]
    older: int
    targets: list[Film]
    lists: dict[str, list[tuple[Film, bool]]]


class Origin(NamedTuple):
    """Says what the figures were made of, by what, where and when."""

    dataset: bundle_pb2.Dataset
    period: str
    seeds: list[int]
    versions: dict[str, str]
    machine: str
    created_at: str
    command: str
    code: list[str]
    notes: list[str]


class Study(NamedTuple):
    """Holds everything on the page.

    The systems of `figures` are the names of the towers and of the baselines. Per-query values are means over seeds
    before queries are resampled, so that intervals are of people and not of seeds; `seeds` has each seed's own means.
    `ann` says how many of the nearest movies the index finds.
    """

    origin: Origin
    figures: list[bundle_pb2.Metric]
    seeds: list[SeedMean]
    differences: list[Difference]
    choice: Choice
    curves: list[Curve]
    slices: list[Slice]
    map: MovieMap | None
    neighbours: list[Neighbours]
    samples: list[Sample]
    settings: dict[str, dict[str, Any]]
    timings_s: dict[str, float]
    ann: list[bundle_pb2.Metric]

    @property
    def systems(self) -> list[str]:
        """Lists the systems in the order in which they were measured."""
        return list(dict.fromkeys(figure.system for figure in self.figures))

    def figure(self, system: str, protocol: str, targets: str, name: str) -> bundle_pb2.Metric | None:
        """Finds a figure; None where it was not measured."""
        wanted = (system, protocol, targets, name)
        return next((one for one in self.figures if (one.system, one.protocol, one.targets, one.name) == wanted), None)

    def difference(self, system: str, against: str, protocol: str, targets: str, name: str) -> Difference | None:
        """Finds a paired difference; None where it was not measured."""
        wanted = (system, against, protocol, targets, name)
        return next((one for one in self.differences if one[:5] == wanted), None)


def as_json(value: Any) -> Any:
    """Turns a study, or a part of one, into what the json module writes; NaN becomes null and infinity a text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, bundle_pb2.Metric | bundle_pb2.Dataset):
        return _message(value)
    if hasattr(value, "_asdict"):
        return {name: as_json(part) for name, part in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return as_json(value.tolist()) if isinstance(value, np.ndarray | np.generic) else value


def _message(message: bundle_pb2.Metric | bundle_pb2.Dataset) -> dict[str, Any]:
    """Writes zeros too, and whole numbers as such: proto-JSON leaves out the ones and quotes the others."""
    fields = [field for field in message.DESCRIPTOR.fields if not field.has_presence or message.HasField(field.name)]
    return {field.name: as_json(getattr(message, field.name)) for field in fields}
