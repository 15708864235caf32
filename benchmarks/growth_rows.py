"""The rows of the table that `make bench-growth` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report import Row

_PART = "growth"
# Percent that the median of a simulation may be off.
_OFF = 25


def rows_of(report: Mapping[str, Any]) -> list[Row]:
    """Writes a row for each figure of the parts that were measured."""
    parts = {"movies": _movies, "users": _users, "histories": _histories, "replicas": _replicas}
    return [row for name, rows in parts.items() if name in report for row in rows(report[name])]


def _row(measured: str, value: float, unit: str, beside: str) -> Row:
    return Row(_PART, measured, value, unit, None, beside)


def _served(row: Mapping[str, Any]) -> str:
    return (
        f"p99 {row['alone_ms'][99]:.2f} ms, CPU {row['cpu_ms']:.2f}; {row['calls_per_s']:,.0f} calls/s with a full core"
    )


def _movies(found: Mapping[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        of = f"{row['movies']:,} movies, {row['kind']}"
        yield _row(f"Search over {of}: p50", row["alone_ms"][50], "ms", _served(row))
        beside = f"{row['latency_ms']:.3f} ms of it in the index, {row['exact_latency_ms']:.3f} over every vector"
        yield _row(f"recall of {of}", 100 * row["recall"], "%", beside)
        beside = f"one bundle; index {row['bytes'] / 1e6:,.0f} MB"
        yield _row(f"retriever over {of}: resident", row["resident_bytes"] / 1e6, "MB", beside)
    for row in found["lists"]:
        of = f"{found['lists_of']:,} movies for {row['k']}"
        yield _row(f"Search over {of}, with details: p50", row["alone_ms"][50], "ms", _served(row))


def _users(found: Mapping[str, Any]) -> Iterator[Row]:
    for store in ("sqlite", "redis"):
        for row in found[store]:
            how = "EXTRAPOLATED; " if row.get("extrapolated") else ""
            beside = f"{how}{row['bytes'] / 1e6:,.0f} MB; read p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms"
            measured = f"{row['people']:,} people of {found['events']} events in {store}: each"
            yield _row(measured, row["bytes"] / row["people"], "bytes", beside)
    for row in found["redis_by_events"]:
        yield _row(f"a person of {row['events']:,} events in redis", row["bytes"], "bytes", "used_memory of 1,000")


def _histories(found: Mapping[str, Any]) -> Iterator[Row]:
    for tower, told in found["towers"].items():
        for row in told["rows"]:
            yield _row(f"Encode of {row['events']:,} events, {tower}: p50", row["alone_ms"][50], "ms", _served(row))
            yield _redis(f"an Encode of {row['events']:,} events, {tower}", row)
        yield _row(f"user_encoder, {tower}: resident", told["resident_bytes"] / 1e6, "MB", "one bundle; after all that")
    for row in found["recorded"]:
        of = f"a RecordEvents to {row['events']:,} events"
        yield _row(f"{of}: p50", row["alone_ms"][50], "ms", _served(row))
        yield _redis(of, row)


def _redis(call: str, row: Mapping[str, Any]) -> Row:
    return _row(f"Redis, {call}", 1e6 * row["redis_s"], "µs", "of its core")


def _replicas(found: Mapping[str, Any]) -> Iterator[Row]:
    units = {"p50_ms": "ms", "p99_ms": "ms", "goodput": "of all calls"}
    can = f"all they can are {found['capacity']:.0f}/s"
    for row in found["rows"]:
        at = f"two encoders at {row['load']:g} times what they can"
        for name, unit in units.items():
            low, high = row["simulated_range"][name]
            simulated = f"simulated {row['simulated'][name]:.2f} ({low:.2f} to {high:.2f})"
            beside = f"{simulated}, off by {row['deviation'][name]:+.0%}; {row['calls']:,} calls, {can}"
            yield _row(f"{at}: {name.removesuffix('_ms')}", row["measured"][name], unit, beside)
        ended = ", ".join(f"{count:,} {how}" for how, count in row["ended"].items()) or "none"
        off = 100 * abs(row["deviation"]["p50_ms"])
        yield Row(_PART, f"{at}: the simulation's p50 is off by", off, "%", _OFF, f"not answered well: {ended}")
