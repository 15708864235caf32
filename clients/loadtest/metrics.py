"""How long the services say that their stages took: Prometheus' text, read before and after."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from clients.cli.metrics_page import read_page

# Seconds that something took; an age is none of those.
_TIMES = re.compile(r"(?<!_age)_seconds$")
_TIMEOUT_S = 2.0
_LARGEST = 16 << 20

# A histogram's or summary's name and labels, with its sum and its count.
Sums = Mapping[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class ServerStage:
    """Is what a service timed while it was tested: how often, and how long on the average, in its metric's unit."""

    url: str
    metric: str
    labels: dict[str, str]
    count: float
    mean_ms: float


@dataclass(frozen=True, slots=True)
class Scraped:
    """Is what was read at a moment of each page; `problems` says which could not be read, and why."""

    pages: Mapping[str, Sums]
    problems: Mapping[str, str]


def scrape(urls: Sequence[str]) -> Scraped:
    """Reads pages of metrics; one that cannot be read is a problem in the report, and none of the test."""
    pages: dict[str, Sums] = {}
    problems: dict[str, str] = {}
    for url in urls:
        try:
            pages[url] = read_sums(read_page(url, timeout_s=_TIMEOUT_S, most_bytes=_LARGEST))
        except (OSError, ValueError, http.client.HTTPException) as error:
            problems[url] = f"{url} could not be read: {getattr(error, 'reason', error)}"
    return Scraped(pages, problems)


def server_stages(before: Scraped, after: Scraped) -> list[ServerStage]:
    """Lists what was timed between two looks, the longest in all first."""
    found = []
    for url, sums in after.pages.items():
        earlier = before.pages.get(url, {})
        for key, (total_s, count) in sums.items():
            old_s, old_count = earlier.get(key, (0.0, 0.0))
            # Fewer than before: the service has started anew, and counts from nought.
            if old_count > count:
                old_s, old_count = 0.0, 0.0
            if count > old_count:
                calls = count - old_count
                found.append(ServerStage(url, key[0], dict(key[1]), calls, 1000 * (total_s - old_s) / calls))
    return sorted(found, key=lambda one: -one.count * one.mean_ms)


def read_sums(text: str) -> Sums:
    """Reads every histogram and summary of what took time; raises ValueError where the text is no page of metrics."""
    parts: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        if family.type in ("histogram", "summary") and _TIMES.search(family.name):
            for sample in family.samples:
                part = sample.name.removeprefix(family.name)
                if part in ("_sum", "_count"):
                    key = (family.name, tuple(sorted(sample.labels.items())))
                    parts.setdefault(key, {})[part] = float(sample.value)
    return {key: (each["_sum"], each["_count"]) for key, each in parts.items() if len(each) == 2}
