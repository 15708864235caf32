"""The two classes of the SDK: the same flows, run over blocking and over asyncio channels."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import partial, update_wrapper
from time import monotonic
from types import FunctionType
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar, cast

import grpc
import grpc.aio

from marquee.client import batches, flows
from marquee.client.channels import Link, Settings, is_deadline, open_link, settings
from marquee.client.failures import Peer, too_late, translate
from marquee.client.rpcs import Call, Flow, Page, Pages
from marquee.errors import InvalidRequest, MarqueeError, from_rpc

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(flow: Callable[P, Flow[R]]) -> Callable[Concatenate[Recommender, P], R]:
    def method(self: Recommender, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(flow(*args, **kwargs), _deadline_s(kwargs))

    return _documented(method, flow, "Recommender", "")


def _awaitable(flow: Callable[P, Flow[R]]) -> Callable[Concatenate[AsyncRecommender, P], Coroutine[Any, Any, R]]:
    async def method(self: AsyncRecommender, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run(flow(*args, **kwargs), _deadline_s(kwargs))

    return _documented(method, flow, "AsyncRecommender", "")


def _iterating(pages: Callable[P, Pages[R]]) -> Callable[Concatenate[Recommender, P], Iterator[R]]:
    def method(self: Recommender, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        turning, deadline_s = pages(*args, **kwargs), _deadline_s(kwargs)
        flow = next(turning, None)
        while flow is not None:
            page = self._run(flow, deadline_s)
            yield from page.items
            flow = _turn(turning, page)

    return _documented(method, pages, "Recommender", "Iterator")


def _async_iterating(pages: Callable[P, Pages[R]]) -> Callable[Concatenate[AsyncRecommender, P], AsyncIterator[R]]:
    async def method(self: AsyncRecommender, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        turning, deadline_s = pages(*args, **kwargs), _deadline_s(kwargs)
        flow = next(turning, None)
        while flow is not None:
            page = await self._run(flow, deadline_s)
            for item in page.items:
                yield item
            flow = _turn(turning, page)

    return _documented(method, pages, "AsyncRecommender", "AsyncIterator")


def _turn(turning: Pages[R], page: Page[R]) -> Flow[Page[R]] | None:
    """Says how to get the page after this one; None after the last."""
    try:
        return turning.send(page)
    except StopIteration:
        return None


def _deadline_s(kwargs: Mapping[str, object]) -> float | None:
    return cast("float | None", kwargs.get("deadline_s"))


M = TypeVar("M", bound=Callable[..., Any])


def _documented(method: M, flow: Callable[..., Any], owner: str, iterator: str) -> M:
    """Gives a method the name, the docstring and, for `help` and `inspect`, the signature of its flow."""
    update_wrapper(method, flow)
    signature = inspect.signature(flow)
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *signature.parameters.values()]
    item = signature.return_annotation.partition("[")[2].removesuffix("]")
    result = f"{iterator}[{item}]" if iterator else item
    function = cast("FunctionType", method)
    # `inspect` would follow it past the method, and drop user_id as if it were self.
    del function.__dict__["__wrapped__"]
    function.__dict__["__signature__"] = signature.replace(parameters=parameters, return_annotation=result)
    function.__qualname__, function.__module__ = f"{owner}.{flow.__name__}", __name__
    return method


class _Until(NamedTuple):
    """Says until when a method, or a page of it, may take, and how many seconds that were at its beginning."""

    at: float
    deadline_s: float


class _Client:
    """Keeps what both classes are made with."""

    def __init__(self, encoder: str, retriever: str, *, deadline_s: float = 1.0, connections: int = 1) -> None:
        self._settings: Settings = settings(encoder, retriever, deadline_s, connections)
        self._closed = False

    def __repr__(self) -> str:
        encoder, retriever = self._settings.addresses.values()
        return f"{type(self).__name__}({encoder!r}, {retriever!r}, deadline_s={self._settings.deadline_s:g})"

    def _begin(self, deadline_s: float | None) -> _Until:
        """Says until when a method may take; raises RuntimeError after close."""
        if self._closed:
            raise RuntimeError(f"this {type(self).__name__} is closed; make a new one")
        seconds = self._settings.deadline_s if deadline_s is None else deadline_s
        if not is_deadline(seconds):
            raise InvalidRequest(f"deadline_s is {seconds}; give a number of seconds above 0", field="deadline_s")
        return _Until(monotonic() + seconds, seconds)

    def _left(self, call: Call, until: _Until) -> float:
        """Says how many seconds are left for a call; raises DeadlineExceeded where none are."""
        left = until.at - monotonic()
        # gRPC rounds a deadline up: a call with no time left may still be made, and answered.
        if left <= 0:
            raise too_late(self._peer(call, until))
        return left

    def _peer(self, call: Call, until: _Until) -> Peer:
        service = call.rpc.service
        return Peer(service, self._settings.addresses[service], until.deadline_s)


class Recommender(_Client):
    """Recommends movies: speaks to both services, over blocking calls.

    `encoder` and `retriever` are addresses: host:port, dns:///host:port, ipv4:a:1,b:2, unix:/path. `deadline_s` is what
    a whole method may take, in seconds, over all its calls. `connections` opens that many to each service, for one
    that runs several processes behind one port. Raises ConfigError for an address that is none; connects at the first
    call.

    A context manager. May be shared by threads, not by forked processes. What fails is a MarqueeError.
    """

    def __init__(self, encoder: str, retriever: str, *, deadline_s: float = 1.0, connections: int = 1) -> None:
        super().__init__(encoder, retriever, deadline_s=deadline_s, connections=connections)
        self._links: list[Link[grpc.Channel]] = [
            open_link(grpc.insecure_channel, self._settings.addresses) for _ in range(connections)
        ]
        self._turns: Iterator[Link[grpc.Channel]] = itertools.cycle(self._links)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; calls in flight end with an error."""
        self._closed = True
        for channel in itertools.chain.from_iterable(link.channels for link in self._links):
            channel.close()

    def _run(self, flow: Flow[R], deadline_s: float | None) -> R:
        until, link = self._begin(deadline_s), next(self._turns)
        step: Callable[[], Call] = partial(flow.send, None)
        while True:
            try:
                call = step()
            except StopIteration as end:
                result: R = end.value
                return result
            try:
                step = partial(flow.send, self._answer(link, call, until))
            except MarqueeError as error:
                step = partial(flow.throw, error)

    def _answer(self, link: Link[grpc.Channel], call: Call, until: _Until) -> Any:
        try:
            return link.methods[call.rpc](call.request, timeout=self._left(call, until))
        except grpc.RpcError as error:
            raise translate(error, self._peer(call, until)) from error

    recommend = _blocking(flows.recommend)
    batch = _iterating(batches.batch)
    similar = _blocking(flows.similar)
    explain = _blocking(flows.explain)
    search = _iterating(flows.search)
    movie = _blocking(flows.movie)
    movies = _blocking(flows.movies)
    top = _blocking(flows.top)
    genres = _blocking(flows.genres)
    facets = _blocking(flows.facets)
    record = _blocking(flows.record)
    like = _blocking(flows.like)
    dislike = _blocking(flows.dislike)
    rate = _blocking(flows.rate)
    retract = _blocking(flows.retract)
    history = _iterating(flows.history)
    forget = _blocking(flows.forget)
    status = _blocking(flows.status)
    encoder_state = _blocking(flows.encoder_state)
    retriever_state = _blocking(flows.retriever_state)


class AsyncRecommender(_Client):
    """Recommends movies: speaks to both services, over asyncio.

    Made with the same arguments as `Recommender`, with the same methods as coroutines. An asynchronous context manager.
    Belongs to the event loop of its first call.
    """

    def __init__(self, encoder: str, retriever: str, *, deadline_s: float = 1.0, connections: int = 1) -> None:
        super().__init__(encoder, retriever, deadline_s=deadline_s, connections=connections)
        self._links: list[Link[grpc.aio.Channel]] = []
        self._turns: Iterator[Link[grpc.aio.Channel]] = iter(())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; calls in flight end with an error."""
        self._closed = True
        for channel in itertools.chain.from_iterable(link.channels for link in self._links):
            await channel.close()

    def _open(self) -> None:
        # Not in __init__: a grpc.aio channel binds itself to the loop that runs while it is made.
        addresses, count = self._settings.addresses, self._settings.connections
        self._links = [open_link(grpc.aio.insecure_channel, addresses) for _ in range(count)]
        self._turns = itertools.cycle(self._links)

    async def _run(self, flow: Flow[R], deadline_s: float | None) -> R:
        until = self._begin(deadline_s)
        if not self._links:
            self._open()
        link = next(self._turns)
        step: Callable[[], Call] = partial(flow.send, None)
        while True:
            try:
                call = step()
            except StopIteration as end:
                result: R = end.value
                return result
            try:
                step = partial(flow.send, await self._answer(link, call, until))
            except MarqueeError as error:
                step = partial(flow.throw, error)

    async def _answer(self, link: Link[grpc.aio.Channel], call: Call, until: _Until) -> Any:
        try:
            return await link.methods[call.rpc](call.request, timeout=self._left(call, until))
        except grpc.RpcError as error:
            raise translate(error, self._peer(call, until)) from error
        except asyncio.CancelledError as error:
            # A grpc.aio channel that closes cancels whoever waits for a call, though nobody cancelled their task.
            task = asyncio.current_task()
            if not self._closed or task is None or task.cancelling():
                raise
            raise from_rpc(grpc.StatusCode.CANCELLED, "Channel closed!", None) from error

    recommend = _awaitable(flows.recommend)
    batch = _async_iterating(batches.batch)
    similar = _awaitable(flows.similar)
    explain = _awaitable(flows.explain)
    search = _async_iterating(flows.search)
    movie = _awaitable(flows.movie)
    movies = _awaitable(flows.movies)
    top = _awaitable(flows.top)
    genres = _awaitable(flows.genres)
    facets = _awaitable(flows.facets)
    record = _awaitable(flows.record)
    like = _awaitable(flows.like)
    dislike = _awaitable(flows.dislike)
    rate = _awaitable(flows.rate)
    retract = _awaitable(flows.retract)
    history = _async_iterating(flows.history)
    forget = _awaitable(flows.forget)
    status = _awaitable(flows.status)
    encoder_state = _awaitable(flows.encoder_state)
    retriever_state = _awaitable(flows.retriever_state)
