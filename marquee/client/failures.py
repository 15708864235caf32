"""From a failed call to an error of Marquee's tree, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import grpc
from google.protobuf.message import DecodeError

from marquee import errors
from marquee.client.rpcs import Service


class Peer(NamedTuple):
    """Says who was called, where, and within how many seconds."""

    service: Service
    address: str
    deadline_s: float


def translate(error: grpc.RpcError, peer: Peer) -> errors.MarqueeError:
    """Turns a failed call into an error; one that a service explained keeps its words."""
    # grpc.aio's entries are bare pairs, whatever the type stubs say.
    trailers = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    details = next((value for key, value in trailers if key == errors.DETAILS_KEY), None)
    text = error.details() or ""
    if not isinstance(details, bytes):
        return errors.from_rpc(error.code(), _explain(error.code(), text, peer), None)
    try:
        return errors.from_rpc(error.code(), text, details)
    except DecodeError:
        # Something between here and the service wrote a trailer that is no google.rpc.Status.
        return errors.from_rpc(error.code(), text, None)


def too_late(peer: Peer) -> errors.DeadlineExceeded:
    """Says that the time was up before this peer had answered."""
    return errors.DeadlineExceeded(
        f"{peer.service} at {peer.address} did not answer in time; the whole request may take {peer.deadline_s:g} s: "
        "give a longer deadline, or look at what the service is busy with"
    )


def _explain(code: grpc.StatusCode, text: str, peer: Peer) -> str:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            # The core's text ends with the operating system's reason, after a chain of its own.
            cause = text.rpartition(": ")[2].rstrip("]")
            return (
                f"no {peer.service} answers at {peer.address} ({cause}): is it running? "
                f"Start it with python -m services.{peer.service}"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return too_late(peer).message
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"what answers at {peer.address} is no {peer.service}, or an older one ({text}); check the address"
        case _:
            return text
