"""What every server of Marquee tells gRPC's core, and why: limits of connections, streams, messages and metadata."""

from __future__ import annotations

from services.common.settings import CommonSettings

MAX_MESSAGE_BYTES = 32 << 20
MAX_METADATA_BYTES = 16 << 10


# Who probes sends one small message at a time.
_MAX_PROBE_BYTES = 64 << 10


def server_options(settings: CommonSettings) -> list[tuple[str, int]]:
    """Lists the options of a server that answers calls."""
    return [
        # On by default: a second server on the port would start without an error and take half of the calls.
        ("grpc.so_reuseport", 0),
        # 1,024 searches that each exclude a few thousand movies, and their answers with 1,000 hits each.
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Of a call's headers together: a key, a trace and a request id take a few hundred bytes. By default the core
        # refuses some calls from 8 KiB on and all from 16 KiB on; with the first set, all from there on.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        # Calls at a time on a connection; more wait in the client, where waiting and giving up costs this side nothing.
        ("grpc.max_concurrent_streams", settings.max_streams),
        # On by default: refuses at random streams of a client that keeps to the limit above, because it counts those
        # that have ended and that Python still holds: of 200 calls at once on one connection 1 in 5 was UNAVAILABLE.
        # A client that does not keep to the limit is refused all the same, and one that resets what it began meets the
        # limits below.
        ("grpc.http.overload_protection", 0),
        # Calls of one method that have come and not begun. Above the first number some are turned away, the more the
        # likelier, and above the second all: CANCELLED, by the core itself, at about a tenth of an answer's cost. By
        # default 1,000 and 3,000: with as many ahead of it, a call has passed its deadline when its turn comes. As
        # many as one connection may have are never turned away.
        ("grpc.server.max_pending_requests", settings.waiting_calls // 2),
        ("grpc.server.max_pending_requests_hard_limit", settings.waiting_calls),
        # Ping a silent client after a minute; one that is gone without a word is dropped 20 s later. gRPC documents the
        # first of the two timeouts, and the core of grpcio 1.85 goes by the second.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        # Clients may ping as often as every 10 s, calls or none, so that they find a dead server. One that pings more
        # often than that is sent away at the third time (ENHANCE_YOUR_CALM).
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client with healthy connections never asks DNS again and never finds new replicas: let connections end now
        # and then. The core spreads each one's age by ±10 % by itself.
        ("grpc.max_connection_age_ms", round(settings.connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.grace_s * 1000)),
    ]


def probe_options() -> list[tuple[str, int]]:
    """Lists the options of the server that answers probes and nothing else."""
    return [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_PROBE_BYTES)]
