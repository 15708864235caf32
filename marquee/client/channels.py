"""Addresses, channels and stubs: what the blocking and the asyncio class share below their calls.

`service_config.json` is the policy that gRPC's core applies to every call (gRFC A6 and A21), without code of ours:

- `loadBalancingConfig`: `round_robin` connects to every address that a name resolves to and takes turns, call by call.
  The default, `pick_first`, would send everything to one replica. In Kubernetes it takes a headless service.
- `healthCheckConfig`: every connection watches the replica's health, and a replica that says NOT_SERVING gets no more
  calls (gRFC A17): it can stop without losing one. A server without a health service counts as healthy.
- `methodConfig.name`: the services that the policy is for: all of them, because each of their rpcs may be repeated. For
  RecordEvents this holds because the SDK gives every event its time before the first attempt.
- `retryPolicy`: a call that ends with one of `retryableStatusCodes` is made again, up to `maxAttempts` in all, within
  the same deadline. CANCELLED is what gRPC's core answers to calls that a stopping server had not begun; a call that
  the caller cancels never comes back here. Before attempt n + 1 it waits min(`initialBackoff` × `backoffMultiplier` ^
  (n - 1), `maxBackoff`), give or take 20 %.
- `retryThrottling`: each failure takes 1 from `maxTokens`, each success gives `tokenRatio` back; at or below half of
  them nothing is retried. There are enough for a replica that fails all its calls in flight at once; a service in
  lasting trouble gets about a tenth more calls, not three times as many.

Nothing here hedges: gRPC's core cannot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import grpc
import grpc.aio

from marquee import __version__
from marquee.client.rpcs import RPCS, Rpc, Service
from marquee.errors import ConfigError

C = TypeVar("C", grpc.Channel, grpc.aio.Channel)
C_co = TypeVar("C_co", grpc.Channel, grpc.aio.Channel, covariant=True)
Options = tuple[tuple[str, str | int], ...]

_HOST_PORT = re.compile(r"(?:[^\s:/,\[\]]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):(?P<port>\d{1,5})", re.ASCII)
_UNIX = re.compile(r"unix:(?://)?[^\s/]*/?\S+")

OPTIONS: Options = (
    ("grpc.service_config", resources.files("marquee.client").joinpath("service_config.json").read_text("utf-8")),
    ("grpc.primary_user_agent", f"marquee-python/{__version__}"),
    # As much as the services send: 1,000 hits with their details pass the default of 4 MiB.
    ("grpc.max_receive_message_length", 32 << 20),
    # A server that vanished without a word is found out in 25 s instead of in the kernel's quarter of an hour. The
    # services allow a ping every 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # By default a client waits up to two minutes before it tries a service again that was down for long.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # Otherwise channels with the same address share one connection, and `connections` would mean nothing.
    ("grpc.use_local_subchannel_pool", 1),
    # The services are inside the house; a proxy in the environment is for the way out of it.
    ("grpc.enable_http_proxy", 0),
)


class Settings(NamedTuple):
    """Holds what a Recommender is made with, checked; `deadline_s` is for a whole method, in seconds."""

    addresses: Mapping[Service, str]
    deadline_s: float
    connections: int


def settings(encoder: str, retriever: str, deadline_s: float, connections: int) -> Settings:
    """Checks what a Recommender is made with; raises ConfigError with the cure."""
    if not is_deadline(deadline_s):
        raise ConfigError(f"deadline_s is {deadline_s}; give a number of seconds above 0", field="deadline_s")
    if connections < 1:
        raise ConfigError(f"connections is {connections}; give at least 1", field="connections")
    addresses = {
        Service.USER_ENCODER: _address("encoder", encoder),
        Service.RETRIEVER: _address("retriever", retriever),
    }
    return Settings(addresses, deadline_s, connections)


def is_deadline(seconds: float) -> bool:
    """Says whether a number of seconds can be a deadline."""
    return math.isfinite(seconds) and seconds > 0


def _address(name: str, address: str) -> str:
    if not _well_formed(address):
        raise ConfigError(
            f"{name} is {address!r}, which is no address; give host:port, for example 127.0.0.1:50051, [::1]:50051 or "
            "dns:///user-encoder.marquee:50051",
            field=name,
        )
    return address


def _well_formed(address: str) -> bool:
    scheme, colon, rest = address.partition(":")
    if colon and scheme == "unix":
        return _UNIX.fullmatch(address) is not None
    if colon and scheme in ("ipv4", "ipv6"):
        return all(map(_is_host_port, rest.split(",")))
    return _is_host_port(re.sub(r"^dns:(//[^/\s]*/)?", "", address))


def _is_host_port(text: str) -> bool:
    match = _HOST_PORT.fullmatch(text)
    return match is not None and 0 < int(match["port"]) <= 65_535


class OpenChannel(Protocol[C_co]):
    """Is `grpc.insecure_channel` or `grpc.aio.insecure_channel`."""

    def __call__(self, target: str, options: Options) -> C_co:
        """Opens a channel; connects when it is first used."""
        ...


class Link(NamedTuple, Generic[C]):
    """Holds one channel to each service and what to call for each rpc."""

    channels: tuple[C, ...]
    methods: Mapping[Rpc[Any, Any], Callable[..., Any]]


def open_link(open_channel: OpenChannel[C], addresses: Mapping[Service, str]) -> Link[C]:
    """Opens a channel to each service."""
    channels = {service: open_channel(address, OPTIONS) for service, address in addresses.items()}
    # The generated stubs only look methods up on the channel: the same ones serve both kinds.
    stubs = {rpc.stub: rpc.stub(channels[rpc.service]) for rpc in RPCS}
    return Link(tuple(channels.values()), {rpc: getattr(stubs[rpc.stub], rpc.method) for rpc in RPCS})
