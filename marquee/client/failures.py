"""From a failed call to an error of Marquee's tree, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import grpc
from google.protobuf.message import DecodeError

from marquee import errors
from marquee.client.rpcs import Service

# The core has one code for a server with too many calls and for this.
_TOO_LARGE = "message larger than max"
# When to come back, in milliseconds; what is no number there, -1 above all, says never (gRFC A6).
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
# What a blocking channel says of the calls that its closing ended.
_CHANNEL_CLOSED = "Channel closed!"


class Peer(NamedTuple):
    """Says who was called, where, within how many seconds, and whether over TLS."""

    service: Service
    address: str
    deadline_s: float
    encrypted: bool


def translate(error: grpc.RpcError, peer: Peer) -> errors.MarqueeError:
    """Turns a failed call into an error; one that a service explained keeps its words."""
    # grpc.aio's entries are bare pairs, whatever the type stubs say.
    trailers = dict(cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()))
    told = _translated(error.code(), error.details() or "", trailers.get(errors.DETAILS_KEY), peer)
    pushback = trailers.get(_PUSHBACK_KEY)
    if isinstance(told, errors.Overloaded) and isinstance(pushback, str):
        # A proxy may say this and no RetryInfo.
        told.retry_after_s = int(pushback) / 1000 if pushback.isdecimal() else None
    return told


def _translated(code: grpc.StatusCode, text: str, details: str | bytes | None, peer: Peer) -> errors.MarqueeError:
    if not isinstance(details, bytes):
        return _unexplained(code, text, peer)
    try:
        return errors.from_rpc(code, text, details)
    except DecodeError:
        # Something between here and the service wrote a trailer that is no google.rpc.Status.
        return errors.from_rpc(code, text, None)


def _unexplained(code: grpc.StatusCode, text: str, peer: Peer) -> errors.MarqueeError:
    """Makes an error of what gRPC's core, here or there, or something on the way has said."""
    full = code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE not in text
    # All that the core of a service says of calls that it does not let begin: too many wait, or it is stopping.
    turned_away = code is grpc.StatusCode.CANCELLED and text == "CANCELLED"
    if full or turned_away:
        return errors.Overloaded(f"{peer.service} at {peer.address} has too many calls ({text}); send fewer, or later")
    if code is grpc.StatusCode.CANCELLED and text == _CHANNEL_CLOSED:
        return closed_here()
    return errors.from_rpc(code, _explain(code, text, peer), None)


def too_late(peer: Peer) -> errors.DeadlineExceeded:
    """Says that the time was up before this peer had answered."""
    return errors.DeadlineExceeded(
        f"{peer.service} at {peer.address} did not answer in time; the whole request may take {peer.deadline_s:g} s: "
        "give a longer deadline, or look at what the service is busy with"
    )


def refused_here(peer: Peer) -> errors.Overloaded:
    """Says that a call was not sent, because too many before it were refused."""
    return errors.Overloaded(
        f"this client did not send the call: {peer.service} at {peer.address} refused too many in the last seconds; "
        "send fewer, or start more replicas"
    )


def closed_here() -> errors.MarqueeError:
    """Says that this client was closed before a method had all its answers."""
    text = "this client was closed while it was used; close it when its methods have returned, or make a new one"
    return errors.from_rpc(grpc.StatusCode.CANCELLED, text, None)


def _explain(code: grpc.StatusCode, text: str, peer: Peer) -> str:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return _away(text, peer)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return too_late(peer).message
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"what answers at {peer.address} is no {peer.service}, or an older one ({text}); check the address"
        case grpc.StatusCode.UNAUTHENTICATED:
            return f"{peer.service} at {peer.address} does not know who calls ({text}); give its api_key"
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"a message is too large ({text}); ask for less at a time"
        case _:
            return text


# What gRPC's core says of a connection that did not come about, and what is to be done.
_CONNECTIONS = {
    "WRONG_VERSION_NUMBER": "what answers at {address} does not speak TLS: leave tls away, or give the port that does",
    "certificate has expired": "the certificate of the {service} at {address} has expired: replace it there",
    "CERTIFICATE_VERIFY_FAILED": (
        "the certificate of the {service} at {address} is not signed by whom this client trusts ({cause}): give the "
        "signer's certificate as tls.ca"
    ),
    "Hostname Verification": (
        "the certificate of the {service} at {address} is for another name: give the address under that name, or "
        "tls.server_name"
    ),
    "Failed parsing HTTP/2": "what answers at {address} is no gRPC service: check the port",
    "backend unhealthy": (
        "the {service} at {address} says that it is not ready: it is starting or stopping; try again, or run two of it"
    ),
    "lookup failed": "there is no host of the name in {address}: check the spelling, or the DNS",
}


def _away(text: str, peer: Peer) -> str:
    # The core's text ends with the operating system's reason, after a chain of its own.
    cause = text.removesuffix(": OK").rpartition(": ")[2].rstrip("]")
    for mark, sentence in _CONNECTIONS.items():
        if mark in text:
            return sentence.format(service=peer.service, address=peer.address, cause=cause)
    if cause == "Socket closed":
        return f"the {peer.service} at {peer.address} hung up: {_HUNG_UP[peer.encrypted]}; otherwise its log says why"
    return (
        f"no {peer.service} answers at {peer.address} ({cause}): is it running? "
        f"Start it with python -m services.{peer.service}"
    )


# By whether the connection was encrypted.
_HUNG_UP = {
    False: "if it speaks TLS, give tls",
    True: "if it wants a certificate of the client, give tls.cert and tls.key, signed by whom it trusts",
}
