"""Encodes calls that are there at the same time together.

The tower's run costs a person of 32 a fifth of what it costs one alone, and so does everything in numpy before it. So a
call waits for others while any arrive: some turns of the event loop, microseconds, and nothing where it is alone.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from marquee.engine.encoder import Encoder
from marquee.errors import MarqueeError
from marquee.features import Floats
from services.user_encoder.encoding import Account, Ask, encode_alone, prepare_many
from services.user_encoder.measures import TOGETHER

# A server accepts at most about one call in a turn: with fewer turns hardly any call meets another, with 32 of them in
# flight. A call that is alone pays about 20 µs for these.
_TURNS = 5
MOST = 32


class _Waiting(NamedTuple):
    ask: Ask
    answer: asyncio.Future[tuple[Floats, Account]]


class Together:
    """Collects people to encode and encodes them together; belongs to one event loop."""

    def __init__(self) -> None:
        self._groups: dict[Encoder, list[_Waiting]] = {}
        self._count = 0

    async def encode(self, encoder: Encoder, ask: Ask) -> tuple[Floats, Account]:
        """Encodes one person; returns their vector [D] and the account of it."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(ask, loop.create_future())
        if not encoder.gains_by_batches:
            _encode(encoder, [waiting])
            return await waiting.answer
        self._groups.setdefault(encoder, []).append(waiting)
        self._count += 1
        if self._count == 1:
            loop.call_soon(self._turn, 1, _TURNS)
        return await waiting.answer

    def _turn(self, known: int, left: int) -> None:
        if self._count > known:
            known, left = self._count, _TURNS
        if left and self._count < MOST:
            asyncio.get_running_loop().call_soon(self._turn, known, left - 1)
            return
        groups, self._groups, self._count = self._groups, {}, 0
        for encoder, group in groups.items():
            still_there = [waiting for waiting in group if not waiting.answer.done()]
            if still_there:
                _encode(encoder, still_there)


def _encode(encoder: Encoder, group: list[_Waiting]) -> None:
    # Said by the call that has waited longest: this runs in its context.
    TOGETHER.observe(len(group))
    try:
        answers = _answers(encoder, [waiting.ask for waiting in group])
    except Exception as error:
        for waiting in group:
            waiting.answer.set_exception(error)
        raise
    for waiting, answer in zip(group, answers, strict=True):
        if isinstance(answer, MarqueeError):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)


def _answers(encoder: Encoder, asks: list[Ask]) -> list[tuple[Floats, Account] | MarqueeError]:
    if len(asks) == 1:
        try:
            return [encode_alone(encoder, asks[0])]
        except MarqueeError as error:
            return [error]
    tower, accounts = prepare_many(encoder, asks)
    vectors_BD = encoder.run(tower)
    return [
        account if isinstance(account, MarqueeError) else (vector, account)
        for vector, account in zip(vectors_BD, accounts, strict=True)
    ]
