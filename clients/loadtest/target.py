"""What is tested: where it listens, how it is spoken to, and what it has loaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

from clients.loadtest.people import Popular
from marquee.client.channels import Settings
from marquee.client.failures import Peer, translate
from marquee.client.rpcs import Service
from marquee.errors import RegistryError
from marquee.v1 import catalog_pb2, retriever_pb2, types_pb2, user_encoder_pb2

ENCODE = "/marquee.v1.UserEncoderService/Encode"
GET_MODEL = "/marquee.v1.UserEncoderService/GetModel"
RECORD = "/marquee.v1.LiveFeaturesService/RecordEvents"
SEARCH = "/marquee.v1.RetrieverService/Search"
GET_INDEX = "/marquee.v1.RetrieverService/GetIndex"
TOP_MOVIES = "/marquee.v1.CatalogService/TopMovies"
_SERVICES = {
    ENCODE: Service.USER_ENCODER,
    GET_MODEL: Service.USER_ENCODER,
    RECORD: Service.USER_ENCODER,
    SEARCH: Service.RETRIEVER,
    GET_INDEX: Service.RETRIEVER,
    TOP_MOVIES: Service.RETRIEVER,
}
# A try that is made again would hide a failure and add its time to the next.
_MEASURED = {
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    "grpc.enable_retries": 0,
}
_POPULAR = 1_000
_AT_ONCE = 32

# Bytes to bytes: requests are written once, and answers are read by who called.
Method = Callable[[bytes, float], "grpc.aio.UnaryUnaryCall[bytes, bytes]"]


class Loaded(NamedTuple):
    """Is what the services answer with: its space, its bundle, its vectors' length and its number of movies."""

    space: str
    bundle_id: str
    dimension: int
    movies: int


class Link:
    """Holds channels to the services of some methods; an asynchronous context manager."""

    def __init__(self, settings: Settings, methods: Sequence[str]) -> None:
        self._settings = settings
        self._channels = {
            service: [_open(settings, settings.addresses[service]) for _ in range(settings.connections)]
            for service in {_SERVICES[method] for method in methods}
        }

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._each():
            await channel.close()

    @property
    def services(self) -> list[Service]:
        """Lists the services that it has channels to, the encoder first."""
        return [service for service in Service if service in self._channels]

    async def connect(self, patience_s: float) -> None:
        """Waits until every channel is connected, or raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            await asyncio.gather(*(channel.channel_ready() for channel in self._each()))

    def methods(self, path: str) -> list[Method]:
        """Makes what calls a method, once for each connection."""
        return [self._method(channel, path) for channel in self._channels[_SERVICES[path]]]

    async def ask(self, path: str, request: bytes, deadline_s: float) -> bytes:
        """Calls a method once; raises MarqueeError with the cure."""
        try:
            return await self.methods(path)[0](request, deadline_s)
        except grpc.aio.AioRpcError as error:
            service, encrypted = _SERVICES[path], self._settings.credentials is not None
            peer = Peer(service, self._settings.addresses[service], deadline_s, encrypted)
            raise translate(error, peer) from error

    async def ask_all(self, path: str, requests: Sequence[bytes], deadline_s: float) -> list[bytes]:
        """Calls a method for every request, some at once; raises MarqueeError for the first that fails."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(request: bytes) -> bytes:
            async with turn:
                return await self.ask(path, request, deadline_s)

        return await asyncio.gather(*map(one, requests))

    def _method(self, channel: grpc.aio.Channel, path: str) -> Method:
        call: Any = channel.unary_unary(path)
        metadata = grpc.aio.Metadata(*self._settings.metadata)
        return lambda request, timeout_s: call(request, timeout=timeout_s, metadata=metadata)

    def _each(self) -> list[grpc.aio.Channel]:
        return [channel for channels in self._channels.values() for channel in channels]


def _open(settings: Settings, address: str) -> grpc.aio.Channel:
    options = tuple(({**dict(settings.options), **_MEASURED}).items())
    if settings.credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, settings.credentials.channel_credentials(), options)


async def loaded(link: Link, service: Service, deadline_s: float) -> Loaded:
    """Asks a service what it answers with; raises MarqueeError."""
    if service is Service.USER_ENCODER:
        model = user_encoder_pb2.GetModelResponse()
        model.ParseFromString(await link.ask(GET_MODEL, b"", deadline_s))
        return _active(model.state, service)
    index = retriever_pb2.GetIndexResponse()
    index.ParseFromString(await link.ask(GET_INDEX, b"", deadline_s))
    return _active(index.state, service)


async def popular_movies(link: Link, deadline_s: float) -> list[Popular]:
    """Asks for the movies that most people have rated; raises MarqueeError."""
    request = catalog_pb2.TopMoviesRequest(k=_POPULAR)
    answer = catalog_pb2.TopMoviesResponse()
    answer.ParseFromString(await link.ask(TOP_MOVIES, request.SerializeToString(), deadline_s))
    return [Popular(movie.movie_id, movie.rating_count) for movie in answer.movies]


def _active(state: types_pb2.ReplicaState, service: Service) -> Loaded:
    if not state.bundles:
        raise RegistryError(f"the {service} has no bundle loaded: publish and activate one, then measure")
    first = state.bundles[0]
    return Loaded(first.space, first.bundle_id, first.dimension, first.movies)
