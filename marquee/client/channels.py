"""Addresses, channels and stubs: what the blocking and the asyncio class share below their calls.

`service_config.json` is the policy that gRPC's core applies to every call (gRFC A6 and A21), without code of ours:

- `loadBalancingConfig`: `round_robin` connects to every address that a name resolves to and takes turns, call by call.
  The default, `pick_first`, would send everything to one replica. In Kubernetes it takes a headless service.
  `outlier_detection_experimental` (gRFC A50) sits above it: every `interval` it looks at the replicas that had at least
  `failurePercentageEjection.requestVolume` calls, and where there are `minimumHosts` of those it takes out each one of
  whose calls `threshold` % or more failed. A replica that answers, but only with errors, is found by nothing else. It
  comes back after `baseEjectionTime`, later each time, `maxEjectionTime` at most. Never more than `maxEjectionPercent`
  of the replicas are out: where all fail, the fault is not theirs. All that is not OK counts as a failure: refusals for
  overload, which throttling (see `throttling`) keeps near half of the calls, and what is wrong with requests.
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

Nothing here hedges: gRPC's core cannot. RESOURCE_EXHAUSTED is not retried here: the core would wait as long as the
service said even where the deadline comes before. `rpcs.call` does it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from threading import Lock
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

import grpc
import grpc.aio

from marquee import __version__
from marquee.client.failures import closed_here
from marquee.client.rpcs import RPCS, Rpc, Service
from marquee.client.tls import Credentials, Tls
from marquee.errors import ConfigError

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)
Options = tuple[tuple[str, str | int], ...]

_HOST_PORT = re.compile(r"(?:[^\s:/,\[\]]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):(?P<port>\d{1,5})", re.ASCII)
# Which target of gRPC takes several addresses of this kind.
_MANY = {"ipv4": re.compile(r"[\d.]+:\d+", re.ASCII), "ipv6": re.compile(r"\[[^\]]+\]:\d+", re.ASCII)}
_KEY = re.compile(r"[!-~]+", re.ASCII)
# How often files of a `Tls` are looked at, and how long calls in flight keep what was opened with the ones before.
_LOOK_EVERY_S = 1.0
_RETIRE_S = 60.0
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
    # What the core of grpcio 1.85 goes by, instead of the documented one above: it is a minute by default.
    ("grpc.http2.ping_timeout_ms", 5_000),
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
    metadata: tuple[tuple[str, str], ...]
    credentials: Credentials | None
    options: Options


def settings(
    encoder: str | Sequence[str],
    retriever: str | Sequence[str],
    deadline_s: float,
    connections: int,
    api_key: str,
    tls: Tls | None,
) -> Settings:
    """Checks what a Recommender is made with; raises ConfigError with the cure."""
    if not is_deadline(deadline_s):
        raise ConfigError(f"deadline_s is {deadline_s}; give a number of seconds above 0", field="deadline_s")
    if connections < 1:
        raise ConfigError(f"connections is {connections}; give at least 1", field="connections")
    addresses = {
        Service.USER_ENCODER: _address("encoder", encoder),
        Service.RETRIEVER: _address("retriever", retriever),
    }
    credentials = None if tls is None else Credentials(tls)
    named: Options = (("grpc.ssl_target_name_override", tls.server_name),) if tls and tls.server_name else ()
    return Settings(addresses, deadline_s, connections, _metadata(api_key), credentials, OPTIONS + named)


def _metadata(api_key: str) -> tuple[tuple[str, str], ...]:
    if not api_key:
        return ()
    if not _KEY.fullmatch(api_key):
        # Without the key itself: this text may be logged.
        raise ConfigError("api_key has a character that no key has; give it without spaces or quotes", field="api_key")
    return (("authorization", f"Bearer {api_key}"),)


def is_deadline(seconds: float) -> bool:
    """Says whether a number of seconds can be a deadline."""
    return math.isfinite(seconds) and seconds > 0


def _address(name: str, address: str | Sequence[str]) -> str:
    if not isinstance(address, str):
        return _address_of_many(name, address)
    if not _well_formed(address):
        raise ConfigError(
            f"{name} is {address!r}, which is no address; give host:port, for example 127.0.0.1:50051, [::1]:50051 or "
            "dns:///user-encoder.marquee:50051",
            field=name,
        )
    return address


def _address_of_many(name: str, addresses: Sequence[str]) -> str:
    """Writes several replicas as one target, which gRPC has for IP addresses of one version and for nothing else."""
    if len(addresses) == 1:
        return _address(name, addresses[0])
    for scheme, pattern in _MANY.items():
        if addresses and all(map(pattern.fullmatch, addresses)) and all(map(_is_host_port, addresses)):
            return f"{scheme}:{','.join(addresses)}"
    raise ConfigError(
        f"{name} is {list(addresses)!r}; give one address, several IP addresses of one version with their ports, or a "
        "name that resolves to all replicas: dns:///user-encoder.marquee:50051",
        field=name,
    )


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


class Link(NamedTuple, Generic[C]):
    """Holds one channel to each service and what to call for each rpc."""

    channels: tuple[C, ...]
    methods: Mapping[Rpc[Any, Any], Callable[..., Any]]


class Transport(NamedTuple, Generic[C]):
    """Says how channels are opened, plain and encrypted: `grpc`'s two functions, or those of `grpc.aio`."""

    plain: Callable[[str, Options], C]
    secure: Callable[[str, grpc.ChannelCredentials, Options], C]


class Links(Generic[C]):
    """Holds the links of a client, opened at the first call, and opens them anew when files of the `Tls` change.

    Channels cannot change their credentials. The old ones stay open for calls in flight until `take_expired` gives
    them out. After `take_all` it is `closed`, and none is opened. May be shared by threads.
    """

    def __init__(self, transport: Transport[C], settings: Settings) -> None:
        self._transport, self._settings = transport, settings
        self._lock = Lock()
        self._links: list[Link[C]] = []
        self._turns: Iterator[Link[C]] = iter(())
        self._retired: list[tuple[float, Link[C]]] = []
        self._look_at = monotonic() + _LOOK_EVERY_S
        self.closed = False

    def next(self) -> Link[C]:
        """Gives the link whose turn it is; raises RemoteError after `take_all`."""
        if self._settings.credentials is not None and monotonic() >= self._look_at:
            self.renew()
        if not self._links:
            self._open()
        return next(self._turns)

    def current(self, link: Link[C]) -> Link[C]:
        """Gives this link while it is good, and the one whose turn it is once new ones took its place."""
        return link if any(link is one for one in self._links) else self.next()

    def renew(self) -> bool:
        """Opens new links where the files of the `Tls` have changed; says whether they have."""
        with self._lock:
            self._look_at = monotonic() + _LOOK_EVERY_S
            if self._settings.credentials is None or not self._settings.credentials.renew():
                return False
            until = monotonic() + _RETIRE_S
            self._retired += [(until, link) for link in self._links]
            self._links = []
        return True

    def take_expired(self) -> list[C]:
        """Gives out the channels that may be closed now."""
        if not self._retired:
            return []
        with self._lock:
            now = monotonic()
            expired = [link for until, link in self._retired if until <= now]
            self._retired = [(until, link) for until, link in self._retired if until > now]
        return [channel for link in expired for channel in link.channels]

    def take_all(self) -> list[C]:
        """Gives out all channels, to be closed."""
        with self._lock:
            links = [*self._links, *(link for _, link in self._retired)]
            self._links, self._retired, self.closed = [], [], True
        return [channel for link in links for channel in link.channels]

    def _open(self) -> None:
        with self._lock:
            if self.closed:
                raise closed_here()
            if not self._links:
                links = [self._link() for _ in range(self._settings.connections)]
                self._turns = itertools.cycle(links)
                self._links = links

    def _link(self) -> Link[C]:
        channels = {service: self._channel(address) for service, address in self._settings.addresses.items()}
        # The generated stubs only look methods up on the channel: the same ones serve both kinds.
        stubs = {rpc.stub: rpc.stub(channels[rpc.service]) for rpc in RPCS}
        return Link(tuple(channels.values()), {rpc: getattr(stubs[rpc.stub], rpc.method) for rpc in RPCS})

    def _channel(self, address: str) -> C:
        if self._settings.credentials is None:
            return self._transport.plain(address, self._settings.options)
        return self._transport.secure(address, self._settings.credentials.channel_credentials(), self._settings.options)
