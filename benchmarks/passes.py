"""How fast both towers learn: events a second on the data given, and one pass over a million generated events."""

from __future__ import annotations

from pathlib import Path

from benchmarks.machine import first_cores
from benchmarks.report import Row
from benchmarks.work import Work, say
from marquee.bundle.format import Bundle, open_bundle

GIVEN, ONE_MILLION = "sequence", "towers-1m"
_CORES = 2
_SHAPE = ("--people", "6040", "--movies", "3700", "--events", "1000000")
_GOAL_S, _GOAL_PASS_S, _GOAL_GB = 300.0, 40.0, 4.0


def measure_given(work: Work) -> list[Row]:
    """Trains the sequence tower as anyone would."""
    say("training the sequence tower")
    bundle, peak_bytes = _train(work, Path(work.data), "sequence")
    return _rows("`--tower sequence`", bundle, peak_bytes, _GOAL_S)


def measure_million(work: Work) -> list[Row]:
    """Passes once over a million generated events with each tower, at 64 dimensions."""
    data = work.folder / "million"
    say("generating 1,000,000 events")
    work.processes.run("training.generate", "--out", data, *_SHAPE)
    rows: list[Row] = []
    for kind in ("pooled", "sequence"):
        say(f"one pass of the {kind} tower")
        bundle, peak_bytes = _train(work, data, kind, "--dimension", "64", "--epochs", "1")
        goal_s = _GOAL_PASS_S if kind == "sequence" else None
        rows += _rows(f"`--tower {kind} --dimension 64 --epochs 1`, a million events", bundle, peak_bytes, goal_s)
    return rows


def _train(work: Work, data: Path, kind: str, *more: str) -> tuple[Bundle, int]:
    out = work.folder / f"{data.name}-{kind}"
    arguments: tuple[str | Path, ...] = ("--data", data, "--out", out, "--tower", kind, *more)
    ended = work.processes.run("training", *arguments, cores=first_cores(_CORES))
    return open_bundle(out), ended.peak_bytes


def _rows(what: str, bundle: Bundle, peak_bytes: int, goal_s: float | None) -> list[Row]:
    timings_s = dict(bundle.report().timings_s)
    seconds = timings_s["train"]
    beside = f"on at most {_CORES} cores; with the linear start and validation"
    events = bundle.manifest.dataset.events
    return [
        Row("passes", f"{what}: the training step", seconds, "s", goal_s, beside, timings_s),
        Row(
            "passes",
            f"{what}: events of the data a second of training",
            events / seconds,
            "/s",
            None,
            beside,
            {},
            at_least=True,
        ),
        Row("passes", f"{what}: peak memory", peak_bytes / 1e9, "GB", _GOAL_GB, "largest resident set", {}),
    ]
