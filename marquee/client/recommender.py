"""The two classes of the SDK: the same flows, run over blocking and over asyncio channels."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial, update_wrapper
from time import monotonic, sleep
from types import FunctionType
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar, cast

import grpc
import grpc.aio

from marquee.client import batches, flows
from marquee.client.channels import C, Link, Links, Settings, Transport, is_deadline, settings
from marquee.client.failures import Peer, closed_here, refused_here, too_late, translate
from marquee.client.rpcs import RPCS, Call, Flow, Page, Pages, Pause
from marquee.client.throttling import Throttle
from marquee.client.tls import Tls
from marquee.client.tracing import TracerProvider, spans_of
from marquee.errors import InvalidRequest, MarqueeError, Overloaded, RemoteError, Unavailable

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(flow: Callable[P, Flow[R]]) -> Callable[Concatenate[Recommender, P], R]:
    def method(self: Recommender, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._spans.method(flow.__name__):
            return self._run(flow(*args, **kwargs), _deadline_s(kwargs))

    return _documented(method, flow, "Recommender", "")


def _awaitable(flow: Callable[P, Flow[R]]) -> Callable[Concatenate[AsyncRecommender, P], Coroutine[Any, Any, R]]:
    async def method(self: AsyncRecommender, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._spans.method(flow.__name__):
            return await self._run(flow(*args, **kwargs), _deadline_s(kwargs))

    return _documented(method, flow, "AsyncRecommender", "")


def _iterating(pages: Callable[P, Pages[R]]) -> Callable[Concatenate[Recommender, P], Iterator[R]]:
    def method(self: Recommender, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        turning, deadline_s = pages(*args, **kwargs), _deadline_s(kwargs)
        flow = next(turning, None)
        while flow is not None:
            with self._spans.method(pages.__name__):
                page = self._run(flow, deadline_s)
            yield from page.items
            flow = _turn(turning, page)

    return _documented(method, pages, "Recommender", "Iterator")


def _async_iterating(pages: Callable[P, Pages[R]]) -> Callable[Concatenate[AsyncRecommender, P], AsyncIterator[R]]:
    async def method(self: AsyncRecommender, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        turning, deadline_s = pages(*args, **kwargs), _deadline_s(kwargs)
        flow = next(turning, None)
        while flow is not None:
            with self._spans.method(pages.__name__):
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


class _Client(Generic[C]):
    """Keeps what both classes are made with, and does what neither has to wait for."""

    def __init__(self, transport: Transport[C], settings: Settings, tracer_provider: TracerProvider | None) -> None:
        self._settings = settings
        self._spans = spans_of(tracer_provider, settings.metadata)
        self._links = Links(transport, settings)
        self._throttles = {rpc: Throttle() for rpc in RPCS}

    def __repr__(self) -> str:
        encoder, retriever = self._settings.addresses.values()
        return f"{type(self).__name__}({encoder!r}, {retriever!r}, deadline_s={self._settings.deadline_s:g})"

    def _begin(self, deadline_s: float | None) -> _Until:
        """Says until when a method may take; raises RuntimeError after close."""
        if self._links.closed:
            raise RuntimeError(f"this {type(self).__name__} is closed; make a new one")
        seconds = self._settings.deadline_s if deadline_s is None else deadline_s
        if not is_deadline(seconds):
            raise InvalidRequest(f"deadline_s is {seconds}; give a number of seconds above 0", field="deadline_s")
        return _Until(monotonic() + seconds, seconds)

    def _left(self, call: Call, until: _Until) -> float:
        """Says how many seconds a call may take; raises DeadlineExceeded where none are, Overloaded to spare it."""
        left = until.at - monotonic()
        # gRPC rounds a deadline up: a call with no time left may still be made, and answered.
        if left <= 0:
            raise too_late(self._peer(call, until))
        if not call.again and not self._throttles[call.rpc].admits():
            raise refused_here(self._peer(call, until))
        return left * call.part

    def _failed(self, error: grpc.RpcError, call: Call, until: _Until) -> MarqueeError:
        """Turns a failed call into an error, and counts whether it was refused for overload."""
        told = translate(error, self._peer(call, until))
        self._throttles[call.rpc].note(accepted=not isinstance(told, Overloaded))
        return told

    def _elsewhere(self, link: Link[C], error: MarqueeError) -> Link[C] | None:
        """Finds where a failed call is to be made again: files of the `Tls` were replaced, and the link with them."""
        if isinstance(error, Unavailable):
            # Somebody else may have noticed before.
            self._links.renew()
        elif not isinstance(error, RemoteError) or error.remote_code is not grpc.StatusCode.CANCELLED:
            return None
        current = self._links.current(link)
        return None if current is link else current

    def _pause_s(self, pause: Pause, until: _Until) -> float:
        """Says how long to wait before a refused call is made again; raises the refusal where it is not to be."""
        # Those who were refused together are not to come back together.
        seconds = (pause.refusal.retry_after_s or 0.0) * random.uniform(1.0, 1.5)
        if monotonic() + seconds >= until.at or not self._throttles[pause.rpc].admits_another():
            raise pause.refusal
        return seconds

    def _peer(self, call: Call, until: _Until) -> Peer:
        service = call.rpc.service
        encrypted = self._settings.credentials is not None
        return Peer(service, self._settings.addresses[service], until.deadline_s, encrypted)


class Recommender(_Client[grpc.Channel]):
    """Recommends movies: speaks to both services, over blocking calls.

    `encoder` and `retriever` are addresses: host:port, dns:///host:port, unix:/path, or a list of replicas' IP
    addresses with ports. `deadline_s` is what a whole method may take, in seconds, over all its calls, where the method
    is not told otherwise. `connections` opens that many to each service, for one that runs several processes behind one
    port. `api_key` goes with every call, where the services ask for one; without `tls` anybody on the way can read it.
    `tls` encrypts the connections. `tracer_provider` is OpenTelemetry's: each method becomes a span, with one for each
    of its calls, and the services continue the trace. Raises ConfigError for what cannot be used; connects at the first
    call.

    A context manager. May be shared by threads, not by forked processes. What fails is a MarqueeError.
    """

    def __init__(
        self,
        encoder: str | Sequence[str],
        retriever: str | Sequence[str],
        *,
        deadline_s: float = 1.0,
        connections: int = 1,
        api_key: str = "",
        tls: Tls | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        super().__init__(
            Transport(grpc.insecure_channel, grpc.secure_channel),
            settings(encoder, retriever, deadline_s, connections, api_key, tls),
            tracer_provider,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; calls in flight end with an error."""
        for channel in self._links.take_all():
            channel.close()

    def _run(self, flow: Flow[R], deadline_s: float | None) -> R:
        until, link = self._begin(deadline_s), self._links.next()
        for channel in self._links.take_expired():
            channel.close()
        step: Callable[[], Call | Pause] = partial(flow.send, None)
        while True:
            try:
                wanted = step()
            except StopIteration as end:
                result: R = end.value
                return result
            try:
                step = partial(flow.send, self._do(link, wanted, until))
            except MarqueeError as error:
                step = partial(flow.throw, error)

    def _do(self, link: Link[grpc.Channel], wanted: Call | Pause, until: _Until) -> Any:
        if isinstance(wanted, Pause):
            return sleep(self._pause_s(wanted, until))
        link = self._links.current(link)
        try:
            return self._answer(link, wanted, until)
        except MarqueeError as error:
            other = self._elsewhere(link, error)
            if other is None:
                raise
        return self._answer(other, wanted, until)

    def _answer(self, link: Link[grpc.Channel], call: Call, until: _Until) -> Any:
        left = self._left(call, until)
        with self._spans.call(call.rpc) as metadata:
            try:
                answer = link.methods[call.rpc](call.request, timeout=left, metadata=metadata)
            except grpc.RpcError as error:
                raise self._failed(error, call, until) from error
            except ValueError as error:
                # All that grpc says of a channel that was closed a moment ago.
                raise closed_here() from error
        self._throttles[call.rpc].note(accepted=True)
        return answer

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


class AsyncRecommender(_Client[grpc.aio.Channel]):
    """Recommends movies: speaks to both services, over asyncio.

    Made with the same arguments as `Recommender`, with the same methods as coroutines, and as asynchronous iterators
    where those are iterators. An asynchronous context manager. Belongs to the event loop of its first call.
    """

    def __init__(
        self,
        encoder: str | Sequence[str],
        retriever: str | Sequence[str],
        *,
        deadline_s: float = 1.0,
        connections: int = 1,
        api_key: str = "",
        tls: Tls | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        super().__init__(
            Transport(grpc.aio.insecure_channel, grpc.aio.secure_channel),
            settings(encoder, retriever, deadline_s, connections, api_key, tls),
            tracer_provider,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; calls in flight end with an error."""
        for channel in self._links.take_all():
            await channel.close()

    async def _run(self, flow: Flow[R], deadline_s: float | None) -> R:
        # The links open here and not in __init__: a grpc.aio channel belongs to the loop that runs while it is made.
        until, link = self._begin(deadline_s), self._links.next()
        for channel in self._links.take_expired():
            await channel.close()
        step: Callable[[], Call | Pause] = partial(flow.send, None)
        while True:
            try:
                wanted = step()
            except StopIteration as end:
                result: R = end.value
                return result
            try:
                step = partial(flow.send, await self._do(link, wanted, until))
            except MarqueeError as error:
                step = partial(flow.throw, error)

    async def _do(self, link: Link[grpc.aio.Channel], wanted: Call | Pause, until: _Until) -> Any:
        if isinstance(wanted, Pause):
            return await asyncio.sleep(self._pause_s(wanted, until))
        link = self._links.current(link)
        try:
            return await self._answer(link, wanted, until)
        except MarqueeError as error:
            other = self._elsewhere(link, error)
            if other is None:
                raise
        return await self._answer(other, wanted, until)

    async def _answer(self, link: Link[grpc.aio.Channel], call: Call, until: _Until) -> Any:
        left = self._left(call, until)
        with self._spans.call(call.rpc) as metadata:
            try:
                answer = await link.methods[call.rpc](call.request, timeout=left, metadata=metadata)
            except grpc.RpcError as error:
                raise self._failed(error, call, until) from error
            except grpc.aio.UsageError as error:
                # All that grpc.aio says of a channel that was closed a moment ago.
                raise closed_here() from error
            except asyncio.CancelledError as error:
                # A grpc.aio channel that closes cancels whoever waits for a call, though nobody cancelled their task.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise closed_here() from error
        self._throttles[call.rpc].note(accepted=True)
        return answer

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
