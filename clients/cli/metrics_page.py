"""Reads a service's page of metrics."""

from __future__ import annotations

import urllib.request


def read_page(url: str, *, timeout_s: float, most_bytes: int) -> str:
    """Reads a page, or its beginning; raises OSError, ValueError or HTTPException where it cannot be read."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is no address of a page: write http://HOST:PORT/metrics")
    # Metrics are inside the house; a proxy of the environment is for the way out of it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout_s) as answer:
        body: bytes = answer.read(most_bytes)
    return body.decode("utf-8", "replace")
