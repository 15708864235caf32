"""Looks at every replica of both services, one by one: what is wrong, and what to do."""

from __future__ import annotations

import itertools
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from clients.cli import output
from clients.cli.certificates import days_left
from clients.cli.connection import Connection
from clients.cli.replicas import Replica, replicas
from marquee.bundle.registry import Registry
from marquee.client import BundleRole, EncoderState, LoadedBundle, MarqueeError, Recommender, ReplicaState

# Events that are more than 300 s ahead of a service's clock are refused.
_SKEW_WARNING_S, _SKEW_WRONG_S = 5.0, 300.0
_FEW_DAYS = 14
ENCODER, RETRIEVER = "user_encoder", "retriever"


class Grade(Enum):
    """Says how bad something is; only WRONG makes the exit code 1."""

    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """Is something that is not as it should be: where, what, and what to do."""

    grade: Grade
    where: str
    what: str
    cure: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Is one replica as the doctor saw it.

    `state`: None where it did not answer; then `error` says why. `skew_s`: how far its clock is ahead of this one's, of
    encoders. `certificate_days`: how long its certificate is good for, over TLS.
    """

    service: str
    address: str
    state: ReplicaState | None = None
    error: str | None = None
    skew_s: float | None = None
    certificate_days: float | None = None

    @property
    def where(self) -> str:
        """Names the replica."""
        return f"{self.service} {self.address}"

    @property
    def bundles(self) -> tuple[LoadedBundle, ...]:
        """Is what the replica has loaded, active first."""
        return self.state.bundles if self.state else ()


def doctor(connection: Connection, options: Namespace) -> tuple[str, int]:
    """Looks at all replicas that the addresses name; returns the text and the exit code."""
    seen = [
        *(_encoder(connection, one) for one in replicas(options.encoder)),
        *(_retriever(connection, one) for one in replicas(options.retriever)),
    ]
    findings = [*itertools.chain.from_iterable(map(_alone, seen)), *_together(seen), *_whole(connection)]
    if options.registry is not None:
        findings += _pointer(Registry(options.registry), seen)
    code = int(any(one.grade is Grade.WRONG for one in findings))
    if options.json:
        return output.as_json({"replicas": seen, "findings": findings}), code
    return _text(seen, findings), code


def _encoder(connection: Connection, replica: Replica) -> Seen:
    try:
        with connection.of(encoder=replica) as marquee:
            state = marquee.encoder_state()
            return Seen(
                ENCODER, replica.address, state, skew_s=_skew_s(marquee), certificate_days=_days(connection, replica)
            )
    except MarqueeError as error:
        return Seen(ENCODER, replica.address, error=error.message)


def _retriever(connection: Connection, replica: Replica) -> Seen:
    try:
        with connection.of(retriever=replica) as marquee:
            state = marquee.retriever_state()
            return Seen(RETRIEVER, replica.address, state, certificate_days=_days(connection, replica))
    except MarqueeError as error:
        return Seen(RETRIEVER, replica.address, error=error.message)


def _skew_s(marquee: Recommender) -> float:
    """Asks an encoder, which then runs its tower, what time it is."""
    began = time.time()
    told = marquee.explain("", [1], likes=[1]).as_of.timestamp()
    # Whenever between asking and hearing it was, half of that is the best guess.
    return told - (began + time.time()) / 2


def _days(connection: Connection, replica: Replica) -> float | None:
    tls = connection.named(replica)
    return None if tls is None else days_left(replica.address, tls)


def _alone(seen: Seen) -> Iterator[Finding]:
    """Says what is wrong with a replica by itself."""
    if seen.state is None:
        yield Finding(Grade.WRONG, seen.where, "it does not answer", seen.error or "look at its log")
        return
    if not any(one.role is BundleRole.ACTIVE for one in seen.bundles):
        yield Finding(
            Grade.WRONG, seen.where, "no bundle is active", "publish one and activate it: see docs/operations.md"
        )
    if seen.state.reload_error:
        cure = "mend or replace the bundle; until then what is loaded goes on answering"
        yield Finding(Grade.WRONG, seen.where, f"the newest bundle cannot be loaded: {seen.state.reload_error}", cure)
    if isinstance(seen.state, EncoderState):
        yield from _store(seen.where, seen.state)
    yield from _clock(seen)
    if seen.certificate_days is not None and seen.certificate_days < _FEW_DAYS:
        what = f"the certificate ends in {seen.certificate_days:.0f} days"
        yield Finding(Grade.WARNING, seen.where, what, "replace its files; the service reads them anew")


def _store(where: str, state: EncoderState) -> Iterator[Finding]:
    store = state.store
    if not store.reachable:
        what = f"the store ({store.kind}) cannot be reached: {store.last_error or 'it does not answer'}"
        yield Finding(Grade.WRONG, where, what, "bring it back; until then lists lack events and none are recorded")
    elif store.stale_answers or store.blind_answers or store.refused_writes:
        what = (
            f"since it started {store.stale_answers:,} answers were from memory, {store.blind_answers:,} without "
            f"stored events, and {store.refused_writes:,} events were refused; last: {store.last_error}"
        )
        yield Finding(Grade.WARNING, where, what, "the store answers now; look at its log and its load")


def _clock(seen: Seen) -> Iterator[Finding]:
    skew_s = abs(seen.skew_s or 0.0)
    if skew_s >= _SKEW_WARNING_S:
        way = "ahead of" if (seen.skew_s or 0.0) > 0 else "behind"
        what = f"its clock is {skew_s:,.0f} s {way} this machine's"
        cure = "let both follow one time server; events from more than 300 s ahead are refused"
        yield Finding(Grade.WRONG if skew_s >= _SKEW_WRONG_S else Grade.WARNING, seen.where, what, cure)


def _together(seen: Sequence[Seen]) -> Iterator[Finding]:
    """Says where replicas do not fit each other."""
    answering = [one for one in seen if one.state is not None]
    generations = {one.where: one.state.generation for one in answering if one.state}
    if len(set(generations.values())) > 1:
        what = "replicas follow different generations: " + ", ".join(f"{k}: {v}" for k, v in generations.items())
        cure = "wait a few seconds and look again; if it stays, compare their --registry folders"
        yield Finding(Grade.WARNING, "all", what, cure)
    for encoder, retriever in itertools.product(answering, answering):
        if (encoder.service, retriever.service) == (ENCODER, RETRIEVER):
            yield from _fitting(encoder, retriever)


def _fitting(encoder: Seen, retriever: Seen) -> Iterator[Finding]:
    active = [one.space for one in encoder.bundles if one.role is BundleRole.ACTIVE]
    for space in set(active) - {one.space for one in retriever.bundles}:
        what = f"its active space {space[:12]} is not loaded by {retriever.where}"
        cure = "give both the same registry; an activation that was forced mends itself once the retriever has loaded"
        yield Finding(Grade.WRONG, encoder.where, what, cure)


def _whole(connection: Connection) -> Iterator[Finding]:
    """Asks for a list as any caller does."""
    try:
        with connection.open() as marquee:
            if not marquee.recommend(k=1, fallback=False):
                yield Finding(Grade.WARNING, "all", "a new person is recommended nothing", "look at the block list")
    except MarqueeError as error:
        yield Finding(Grade.WRONG, "all", f"no list can be had: {error.message}", "mend what is wrong above first")


def _pointer(registry: Registry, seen: Sequence[Seen]) -> Iterator[Finding]:
    """Compares the registry with what the replicas follow, and verifies what it points to."""
    where = f"registry {registry.root}"
    try:
        pointer = registry.read()
        for bundle_id in filter(None, (pointer.active, pointer.standby)):
            registry.open(bundle_id)
    except MarqueeError as error:
        yield Finding(Grade.WRONG, where, error.message, "publish a whole bundle, or roll back")
        return
    if not pointer.active:
        yield Finding(Grade.WRONG, where, "no bundle is active", "activate one: see docs/operations.md")
    for one in seen:
        if one.state is not None and one.state.generation != pointer.generation:
            what = f"it follows generation {one.state.generation}, and the pointer is at {pointer.generation}"
            cure = "wait a few seconds and look again; if it stays, it reads another registry, or its log says why not"
            yield Finding(Grade.WARNING, one.where, what, cure)


def _text(seen: Sequence[Seen], findings: Sequence[Finding]) -> str:
    columns = ("Service", "Address", "Generation", "Bundles", "Store", "Clock")
    replicas = output.table(columns, map(_row, seen), sys.stdout)
    if not findings:
        return f"{replicas}\n\nNothing is wrong."
    rows = [(one.grade.value, one.where, one.what, one.cure) for one in findings]
    return f"{replicas}\n\n{output.table(('', 'Where', 'What', 'What to do'), rows, sys.stdout)}"


def _row(seen: Seen) -> tuple[str, ...]:
    state, store = seen.state, "–"
    if state is None:
        return (seen.service, seen.address, "–", "no answer", "–", "–")
    if isinstance(state, EncoderState):
        store = f"{state.store.kind}, {'reachable' if state.store.reachable else 'away'}"
    bundles = ", ".join(f"{one.role.name.lower()} {one.space[:12]}/{one.bundle_id[:12]}" for one in seen.bundles)
    clock = "–" if seen.skew_s is None else f"{seen.skew_s:+.2f} s"
    return (seen.service, seen.address, str(state.generation), bundles or "none", store, clock)
