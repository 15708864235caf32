"""The report: all that a test found, as one value that is written as JSON and as a page."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from clients.loadtest.metrics import ServerStage
from clients.loadtest.results import Figures, StageResult, Tick
from clients.loadtest.saturation import Saturation
from clients.loadtest.verdict import Judged, Verdict
from marquee.errors import MarqueeError

SCHEMA = Path(__file__).with_name("report.schema.json")
VERSION = "marquee-loadtest/1"


class ReportFailed(MarqueeError):
    """Says which report cannot be read or written."""

    reason = "REPORT_FAILED"


@dataclass(frozen=True, slots=True)
class Target:
    """Says what was tested: addresses by service, and what they had loaded."""

    addresses: dict[str, str]
    space: str
    bundle_id: str
    dimension: int
    movies: int


@dataclass(frozen=True, slots=True)
class Setup:
    """Says how it was tested."""

    command: str
    loop: str
    arrivals: str
    scenario: dict[str, float]
    people: str
    k: int
    details: bool
    processes: int
    connections: int
    deadline_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Says where the load tester ran; `load` is the load average before."""

    cpu: str
    cores: int
    system: str
    load: float
    python: str
    grpcio: str
    marquee: str


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Says how the load tester itself was while it measured; `reasons` why it was the limit, none where it was not."""

    cpu: float
    lag_p99_ms: float
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Report:
    """Is all that a test found; `curve` has percentiles with their milliseconds, `histogram` is HDR's base64."""

    schema: str
    started_at: str
    seconds: float
    interrupted: bool
    dropped: int
    target: Target
    setup: Setup
    machine: Machine
    verdict: Verdict
    judged: list[Judged]
    notes: list[str]
    client: ClientHealth
    total: Figures
    scenarios: dict[str, Figures]
    stages: list[StageResult]
    curve: list[tuple[float, float]]
    service_curve: list[tuple[float, float]]
    histogram: str
    timeline: list[Tick]
    saturation: Saturation | None
    failures: dict[str, str]
    server: list[ServerStage]


def as_json(report: Report) -> dict[str, Any]:
    """Writes the report as JSON's values."""
    return json.loads(json.dumps(asdict(report)))  # type: ignore[no-any-return]


def read(path: Path) -> dict[str, Any]:
    """Reads an earlier report; raises ReportFailed where it is none."""
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
        validate(told)
    except OSError as error:
        raise ReportFailed(f"cannot read {path} ({error.strerror}): name a report.json with --compare") from error
    except (ValueError, fastjsonschema.JsonSchemaException) as error:
        raise ReportFailed(f"{path} is no report of {VERSION} ({error}): name a report.json with --compare") from error
    return told


def validate(told: object) -> None:
    """Raises JsonSchemaException where a value is no report."""
    _validator()(told)


@cache
def _validator() -> Any:
    return fastjsonschema.compile(json.loads(SCHEMA.read_text("utf-8")))


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all; raises ReportFailed."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_text(text, "utf-8")
        os.replace(scratch, path)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> ReportFailed:
    """Says that a report cannot be written."""
    return ReportFailed(f"cannot write {path} ({error.strerror}): name a folder that can be written with --out")
