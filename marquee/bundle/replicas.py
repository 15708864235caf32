"""Asks replicas what they have loaded, before a space is made active."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence
from typing import NamedTuple

import grpc

from marquee.bundle.registry import Confirm
from marquee.client.channels import Settings, settings
from marquee.client.tls import Tls
from marquee.errors import ConfigError, RegistryError
from marquee.v1 import (
    retriever_pb2,
    retriever_pb2_grpc,
    types_pb2,
    user_encoder_pb2,
    user_encoder_pb2_grpc,
)

TIMEOUT_S = 5.0


class Access(NamedTuple):
    """Says how replicas are asked: over TLS where it is given, with a key where that is not empty."""

    tls: Tls | None
    api_key: str

    def named(self, replica: str) -> Access:
        """Expects the name of a replica in its certificate, whatever address it is asked at."""
        if self.tls is None or self.tls.server_name:
            return self
        return self._replace(tls=dataclasses.replace(self.tls, server_name=_split(replica)[0]))

    def to(self, address: str) -> Settings:
        """Checks what one replica is asked with; raises ConfigError with the cure."""
        return settings(address, address, TIMEOUT_S, 1, self.api_key, self.tls)


def asking(replicas: Sequence[str], access: Access) -> Confirm:
    """Makes what raises RegistryError where a replica has not loaded a space, each with its reason.

    A name stands for every address that it has when they are asked, as that of a headless service does.
    """

    def confirm(space: str) -> None:
        asked = [(address, access.named(replica)) for replica in replicas for address in addresses(replica)]
        problems = [problem for address, how in asked if (problem := _problem(address, space, how))]
        if problems:
            raise RegistryError(
                f"refused: space {space[:12]} is not loaded everywhere: {'; '.join(problems)}; wait for the replicas, "
                "look at their logs, or activate with --force"
            )

    return confirm


def addresses(replica: str) -> list[str]:
    """Lists all that HOST:PORT leads to, one for each address of the host; raises ConfigError with the cure."""
    host, port = _split(replica)
    if host == "localhost":
        # One machine with two addresses, of which a service may listen on one.
        return [replica]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"--replica: {replica!r} has no address ({error}); write HOST:PORT of one that runs"
        ) from error
    return sorted({f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}" for *_, (ip, *_) in found})


def _split(replica: str) -> tuple[str, int]:
    host, _, port = replica.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise ConfigError(f"--replica: {replica!r} is no address; write HOST:PORT")
    return host.strip("[]"), int(port)


def _problem(replica: str, space: str, access: Access) -> str:
    """Says why a replica is not ready for a space; "" where it is."""
    try:
        state = _state(replica, access.to(replica))
    except grpc.RpcError as error:
        return f"{replica} does not answer ({error.code().name}: {error.details()})"
    # What is retiring is dropped once it has been quiet.
    loaded = [one for one in state.bundles if one.role != types_pb2.BUNDLE_ROLE_RETIRING]
    if any(one.space == space for one in loaded):
        return ""
    why = f" ({state.reload_error})" if state.reload_error else ""
    return f"{replica} has loaded {', '.join(one.space[:12] for one in loaded) or 'nothing'}{why}"


def _state(replica: str, told: Settings) -> types_pb2.ReplicaState:
    """Asks an encoder or a retriever what it has loaded; raises grpc.RpcError."""
    with open_channel(replica, told) as channel:
        encoder = user_encoder_pb2_grpc.UserEncoderServiceStub(channel)
        retriever = retriever_pb2_grpc.RetrieverServiceStub(channel)
        try:
            model = user_encoder_pb2.GetModelRequest()
            return encoder.GetModel(model, timeout=TIMEOUT_S, metadata=told.metadata).state
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                raise
        index = retriever_pb2.GetIndexRequest()
        return retriever.GetIndex(index, timeout=TIMEOUT_S, metadata=told.metadata).state


def open_channel(replica: str, told: Settings) -> grpc.Channel:
    """Opens a channel to one replica."""
    if told.credentials is None:
        return grpc.insecure_channel(replica, told.options)
    return grpc.secure_channel(replica, told.credentials.channel_credentials(), told.options)
