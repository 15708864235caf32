"""How the services are reached, as the flags say."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from typing import NamedTuple

from clients.cli.replicas import Replica, split
from marquee.client import Recommender, Tls
from marquee.client.tls_flags import tls_of


class Connection(NamedTuple):
    """Opens clients."""

    encoder: str | list[str]
    retriever: str | list[str]
    deadline_s: float
    api_key: str
    tls: Tls | None

    @classmethod
    def of_flags(cls, options: Namespace) -> Connection:
        """Reads the flags."""
        encoder, retriever = split(options.encoder), split(options.retriever)
        return cls(encoder, retriever, options.deadline, options.api_key, tls_of(options))

    def open(self) -> Recommender:
        """Opens a client to all replicas."""
        return Recommender(self.encoder, self.retriever, deadline_s=self.deadline_s, api_key=self.api_key, tls=self.tls)

    def of(self, *, encoder: Replica | None = None, retriever: Replica | None = None) -> Recommender:
        """Opens a client for one replica; only that service is to be called."""
        replica = encoder or retriever
        return self._replace(
            encoder=encoder.address if encoder else self.encoder,
            retriever=retriever.address if retriever else self.retriever,
            tls=self.tls if replica is None else self.named(replica),
        ).open()

    def named(self, replica: Replica) -> Tls | None:
        """Says what encrypts the connection to a replica: its certificate is for the name that led there."""
        if self.tls is None or self.tls.server_name or not replica.name:
            return self.tls
        return dataclasses.replace(self.tls, server_name=replica.name)
