"""What this process remembers of people's stored events: what it answers from while the store cannot be read."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import reduce

from marquee.features import Events
from services.user_encoder.stores.base import UserWrite, add

# What the arrays of a history and all around them take, beside their contents.
_HISTORY_BYTES = 1700
# Contents of an event: its kind, and its movie id, time and value.
_KIND_BYTES, _REST_BYTES = 8, 20
# Writes to a person that wait to be merged; each keeps its arrays.
_MOST_NEWER = 8


class LastKnown:
    """Remembers the histories of the people who were read last, up to `max_bytes` of them and for `max_age_s`.

    `digest` computes the keyed hash that deletions are told by. Of a person who had no events it remembers nothing.
    Times are of the monotonic clock. A read that takes longer than `longest_read_s` must not be remembered.
    """

    def __init__(
        self, digest: Callable[[str], bytes], *, max_bytes: int, max_age_s: float, longest_read_s: float
    ) -> None:
        self._digest = digest
        self._max_bytes, self._max_age_s, self._longest_read_s = max_bytes, max_age_s, longest_read_s
        # Those who were read longest ago come first.
        self._people: OrderedDict[str, _Person] = OrderedDict()
        self._ids: dict[bytes, str] = {}
        self._bytes = 0
        self._changed: OrderedDict[str, float] = OrderedDict()
        self._forgot_at = 0.0

    @property
    def people(self) -> int:
        """Counts the people who are remembered."""
        return len(self._people)

    @property
    def size_bytes(self) -> int:
        """Says about how many bytes are taken."""
        return self._bytes

    def put(self, user_id: str, history: Events, began: float) -> None:
        """Remembers what a read found that began at `began`, unless the person has changed since."""
        if began <= self._forgot_at or began <= self._changed.get(user_id, -1.0):
            return
        person = self._people.get(user_id)
        if person is None:
            if history.size:
                self._insert(user_id, history, began)
        elif history.size == 0:
            self._drop(user_id)
        else:
            self._people.move_to_end(user_id)
            self._bytes -= person.size
            person.read(history, began)
            self._bytes += person.size
            if self._bytes > self._max_bytes:
                self._trim(began)

    def _insert(self, user_id: str, history: Events, began: float) -> None:
        person = _Person(history, began, self._digest(user_id))
        self._people[user_id] = person
        self._ids[person.digest] = user_id
        self._bytes += person.size
        self._trim(began)

    def get(self, user_id: str, now: float) -> tuple[Events, float] | None:
        """Recalls a person's history, with what was recorded since, and when it was read."""
        person = self._people.get(user_id)
        if person is None or now - person.read_at > self._max_age_s:
            return None
        if person.newer:
            self._merge(person)
        return person.history, person.read_at

    def record(self, write: UserWrite, now: float) -> None:
        """Adds to a person's history what was recorded at `now`; reads that began before are not remembered."""
        self._note_change(write.user_id, now)
        person = self._people.get(write.user_id)
        if person is not None:
            # Merged where it is asked for: recording is the hotter path of the two.
            person.newer.append(write)
            person.size += _size(write.events)
            self._bytes += _size(write.events)
            if len(person.newer) == _MOST_NEWER:
                self._merge(person)
            self._trim(now)

    def forget_person(self, user_id: str, now: float) -> None:
        """Forgets a person; reads that began before are not remembered."""
        self._note_change(user_id, now)
        self._drop(user_id)

    def forget(self, digest: bytes | None, now: float) -> None:
        """Forgets the person of a digest, None being everybody; no read that began before is remembered."""
        # Whose digest it is cannot be told of people who are being read: for a moment, nobody is remembered anew.
        self._forgot_at = now
        if digest is None:
            self._people.clear()
            self._ids.clear()
            self._bytes = 0
        elif digest in self._ids:
            self._drop(self._ids[digest])

    def _merge(self, person: _Person) -> None:
        self._bytes -= person.size
        person.merge()
        self._bytes += person.size

    def _note_change(self, user_id: str, now: float) -> None:
        self._changed[user_id] = now
        self._changed.move_to_end(user_id)
        while next(iter(self._changed.values())) < now - self._longest_read_s:
            self._changed.popitem(last=False)

    def _trim(self, now: float) -> None:
        oldest = now - self._max_age_s
        while self._people:
            user_id, person = next(iter(self._people.items()))
            if self._bytes <= self._max_bytes and person.read_at >= oldest:
                return
            self._drop(user_id)

    def _drop(self, user_id: str) -> None:
        person = self._people.pop(user_id, None)
        if person is not None:
            self._bytes -= person.size
            del self._ids[person.digest]


class _Person:
    """Is what is remembered of one person; `newer` is what was recorded since, in the order of arrival."""

    __slots__ = ("digest", "history", "newer", "read_at", "size")

    def __init__(self, history: Events, read_at: float, digest: bytes) -> None:
        self.digest = digest
        self.read(history, read_at)

    def read(self, history: Events, read_at: float) -> None:
        self.history = history
        self.read_at = read_at
        self.newer: list[UserWrite] = []
        self.size = _size(history)

    def merge(self) -> None:
        self.history = reduce(add, self.newer, self.history)
        self.newer = []
        self.size = _size(self.history)


def _size(events: Events) -> int:
    held = events.times_ms.base
    # A store's columns but the kinds are views of what it read, which may be longer than they are and lives as long.
    blob = held.obj if isinstance(held, memoryview) else held
    rest = sys.getsizeof(blob) if isinstance(blob, bytes) else _REST_BYTES * events.size
    return _HISTORY_BYTES + _KIND_BYTES * events.size + rest
