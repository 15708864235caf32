"""The bundles that a replica has loaded, by embedding space, kept in step with the registry's pointer."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from marquee.bundle.format import Bundle
from marquee.bundle.registry import Pointer, Registry
from marquee.bundle.v1 import bundle_pb2
from marquee.errors import BundleError, RegistryError, SpaceNotLoaded
from marquee.v1 import types_pb2
from services.common.settings import CommonSettings

_log = logging.getLogger(__name__)

T = TypeVar("T")

ACTIVE = types_pb2.BUNDLE_ROLE_ACTIVE
STANDBY = types_pb2.BUNDLE_ROLE_STANDBY
RETIRING = types_pb2.BUNDLE_ROLE_RETIRING

# Besides active and standby: each one more costs the memory of a whole bundle.
_MAX_RETIRING = 1
# A bundle that could not be loaded is tried again after this long, pointer changed or not: a copy may have been going
# on.
_RETRY_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """Holds a bundle that was verified, and what the service made of it.

    `active_at` is when its space was last known to be the active one, on the monotonic clock; 0: never.
    """

    bundle: Bundle
    model: T
    role: types_pb2.BundleRole
    loaded_at_ms: int
    report: bundle_pb2.Report
    active_at: float = 0.0


class SpacesState(NamedTuple):
    """Holds what a `ReplicaState` says beside the bundles: the generation last applied, and what went wrong since."""

    generation: int
    reload_error: str


class Spaces(Generic[T]):
    """Keeps active and standby of a registry loaded.

    `load` makes the service's model of a verified bundle: it loads, probes and warms, in a worker thread, and raises
    BundleError where the bundle is no good. Belongs to one event loop: what a call got from `get` stays valid for that
    call, whatever is swapped meanwhile.
    """

    def __init__(self, registry: Registry, load: Callable[[Bundle], T], settings: CommonSettings) -> None:
        self._registry = registry
        self._load = load
        self._settings = settings
        # Replaced as a whole, never changed: a call sees all of the old pointer or all of the new one.
        self._by_space: dict[str, Loaded[T]] = {}
        self._named_at: dict[str, float] = {}
        self._applied = 0
        self._tried: Pointer | None = None
        self._tried_at = 0.0
        self._pointer_error = self._bundle_error = ""

    async def start(self) -> None:
        """Loads what the pointer names; raises RegistryError or BundleError where there is no active bundle to serve.

        A standby that cannot be loaded is logged and tried again later: the active one can serve without it.
        """
        pointer = await asyncio.to_thread(self._registry.read)
        if not pointer.active:
            raise RegistryError(self._no_active())
        self._note_tried(pointer)
        active = await asyncio.to_thread(self._open, pointer.active)
        self._by_space = _arrange({}, active, None)
        await self._apply(pointer)

    def get(self, space: str) -> Loaded[T]:
        """Finds what is loaded for a space, "" being the active one; raises SpaceNotLoaded."""
        loaded = self._by_space.get(space)
        if loaded is None:
            raise self._not_loaded(space)
        if loaded.role == RETIRING:
            self._named_at[space] = time.monotonic()
        return loaded

    def loaded(self) -> list[Loaded[T]]:
        """Lists what is loaded, each once: active, standby, retiring."""
        return [loaded for space, loaded in self._by_space.items() if space]

    def state(self) -> SpacesState:
        """Says which pointer was applied last and why a newer one could not be."""
        return SpacesState(self._applied, self._pointer_error or self._bundle_error)

    def replica_state(
        self, describe: Callable[[Loaded[T], types_pb2.LoadedBundle], None] | None = None
    ) -> types_pb2.ReplicaState:
        """Builds the message that says what this replica has loaded; `describe` adds what only the service knows."""
        state = types_pb2.ReplicaState(generation=self._applied, reload_error=self.state().reload_error)
        for loaded in self.loaded():
            message = state.bundles.add()
            message.CopyFrom(_message(loaded))
            if describe is not None:
                describe(loaded, message)
        return state

    async def watch(self) -> None:
        """Follows the registry's pointer until cancelled."""
        while True:
            await asyncio.sleep(self._settings.poll_s)
            await self.poll()

    async def poll(self) -> None:
        """Looks at the pointer once, applies it where it changed, and drops retired spaces that went quiet."""
        pointer = await self._read()
        if pointer is not None and self._is_due(pointer):
            await asyncio.sleep(self._settings.reload_delay_s)
            # Another change may have come meanwhile: only the newest counts.
            pointer = await self._read()
            if pointer is not None:
                self._note_tried(pointer)
                await self._apply(pointer)
        self._drop_quiet()

    async def _read(self) -> Pointer | None:
        try:
            pointer = await asyncio.to_thread(self._registry.read)
        except RegistryError as error:
            if error.message != self._pointer_error:
                _log.error("%s; what is loaded stays", error.message)
            self._pointer_error = error.message
            return None
        self._pointer_error = ""
        return pointer

    def _is_due(self, pointer: Pointer) -> bool:
        if pointer != self._tried:
            return True
        return bool(self._bundle_error) and time.monotonic() >= self._tried_at + _RETRY_S

    def _note_tried(self, pointer: Pointer) -> None:
        self._tried, self._tried_at = pointer, time.monotonic()

    def _no_active(self) -> str:
        return (
            f"{self._registry.root}: has no active bundle; make the standby active with `python -m marquee.bundle "
            f"activate --registry {self._registry.root}`, or name another registry with --registry"
        )

    async def _apply(self, pointer: Pointer) -> None:
        errors = [] if pointer.active else [self._no_active()]
        active = await self._find_or_open(pointer.active, errors)
        standby = await self._find_or_open(pointer.standby, errors)
        if errors:
            self._keep(active, standby, errors)
        else:
            self._swap(_arrange(self._by_space, active, standby))
            self._applied, self._bundle_error = pointer.generation, ""

    def _keep(self, active: Loaded[T] | None, standby: Loaded[T] | None, errors: list[str]) -> None:
        """Goes as far as possible: what did not load leaves what has its part where it is."""
        before = {loaded.role: loaded for loaded in self.loaded()}
        active = active or before[ACTIVE]
        standby = standby or before.get(STANDBY)
        self._swap(_arrange(self._by_space, active, standby))
        error = "; ".join(errors)
        if error != self._bundle_error:
            _log.error("%s; what was loaded stays", error)
        self._bundle_error = error

    async def _find_or_open(self, bundle_id: str, errors: list[str]) -> Loaded[T] | None:
        known = [loaded for loaded in self.loaded() if loaded.bundle.id == bundle_id]
        if known or not bundle_id:
            return known[0] if known else None
        try:
            return await asyncio.to_thread(self._open, bundle_id)
        except (BundleError, RegistryError) as error:
            errors.append(error.message)
            return None

    def _open(self, bundle_id: str) -> Loaded[T]:
        started = time.monotonic()
        path = self._registry.bundle_path(bundle_id)
        try:
            bundle = self._registry.open(bundle_id)
            model = self._load(bundle)
        except BundleError:
            raise
        except Exception as error:  # whatever a broken file makes a parser raise, the old bundle must stay
            raise BundleError(
                f"{path}: cannot be loaded ({type(error).__name__}: {error}); publish the bundle again"
            ) from error
        _log.info("loaded %r in %.2f s", bundle, time.monotonic() - started, extra=_names(bundle))
        return Loaded(bundle, model, STANDBY, time.time_ns() // 1_000_000, _read_report(bundle))

    def _swap(self, by_space: dict[str, Loaded[T]]) -> None:
        before, self._by_space = self._by_space, by_space
        for space, loaded in by_space.items():
            old = before.get(space)
            if loaded.role == RETIRING and old is not None and old.role != RETIRING:
                self._named_at[space] = time.monotonic()
            if space and (old is None or (old.bundle.id, old.role) != (loaded.bundle.id, loaded.role)):
                _log.info("%r is %s", loaded.bundle, role_name(loaded), extra=_names(loaded.bundle))
        self._log_dropped(before)

    def _drop_quiet(self) -> None:
        quiet_since = time.monotonic() - self._settings.retire_quiet_s
        quiet = {space for space, loaded in self._by_space.items() if loaded.role == RETIRING}
        quiet = {space for space in quiet if self._named_at[space] <= quiet_since}
        if quiet:
            before = self._by_space
            self._by_space = {space: loaded for space, loaded in before.items() if space not in quiet}
            self._log_dropped(before)

    def _log_dropped(self, before: dict[str, Loaded[T]]) -> None:
        for space in before.keys() - self._by_space.keys():
            self._named_at.pop(space, None)
            _log.info("dropped %r", before[space].bundle, extra=_names(before[space].bundle))

    def _not_loaded(self, space: str) -> SpaceNotLoaded:
        loaded = ",".join(one.bundle.space for one in self.loaded())
        return SpaceNotLoaded(
            f"space {space[:100]!r} is not loaded here (loaded: {loaded}); encode the person again and search with the "
            "vector and the space of that answer",
            metadata={"space": space[:100], "loaded": loaded},
        )


def _arrange(before: dict[str, Loaded[T]], active: Loaded[T] | None, standby: Loaded[T] | None) -> dict[str, Loaded[T]]:
    """Orders what is loaded by space: active (also under ""), standby, and what leaves."""
    after: dict[str, Loaded[T]] = {}
    for loaded, role in ((active, ACTIVE), (standby, STANDBY)):
        if loaded is not None and loaded.bundle.space not in after:
            active_at = time.monotonic() if role == ACTIVE else _active_at(before, loaded)
            after[loaded.bundle.space] = dataclasses.replace(loaded, role=role, active_at=active_at)
    if active is not None:
        after[""] = after[active.bundle.space]
    leaving = [loaded for space, loaded in before.items() if space not in after]
    # What was active last comes first: encoders that lag behind still answer in it, but never in a standby. Then what
    # only now leaves, as roles ascend from active to retiring.
    leaving.sort(key=lambda loaded: (-loaded.active_at, loaded.role))
    for loaded in leaving[:_MAX_RETIRING]:
        after[loaded.bundle.space] = dataclasses.replace(loaded, role=RETIRING)
    return after


def _active_at(before: dict[str, Loaded[T]], loaded: Loaded[T]) -> float:
    # A refresh is a new bundle in a space that may have been active.
    same_space = before.get(loaded.bundle.space, loaded)
    return same_space.active_at


def _message(loaded: Loaded[T]) -> types_pb2.LoadedBundle:
    manifest = loaded.bundle.manifest
    return types_pb2.LoadedBundle(
        space=manifest.space,
        bundle_id=loaded.bundle.id,
        revision=manifest.revision,
        role=loaded.role,
        dimension=manifest.features.dimension,
        movies=manifest.movies,
        loaded_at_ms=loaded.loaded_at_ms,
        tower=manifest.tower.kind,
        metrics=loaded.report.metrics,
    )


def _read_report(bundle: Bundle) -> bundle_pb2.Report:
    # No id covers the report and nothing hangs on it: a damaged one must not keep a good bundle out.
    try:
        return bundle.report()
    except BundleError as error:
        _log.warning("%s; served without its figures", error.message)
        return bundle_pb2.Report()


def role_name(loaded: Loaded[T]) -> str:
    """Names the role of a bundle as people write it: "active"."""
    return types_pb2.BundleRole.Name(loaded.role).removeprefix("BUNDLE_ROLE_").lower()


def _names(bundle: Bundle) -> dict[str, str]:
    return {"bundle_id": bundle.id, "space": bundle.space}
