"""Which of a person's events speak for and against movies: the tower is run once with every event left out.

N movies, K events left out, L history length, D dimension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from marquee.engine.encoder import Encoder
from marquee.errors import StoreUnavailable
from marquee.features import Events, Floats, Int64s, TowerInput
from services.user_encoder.checks import DEFAULT_LEFT_OUT
from services.user_encoder.encoding import Prepared

P = ParamSpec("P")
T = TypeVar("T")

# Rows of a run take at most 16 MB, but for the default number of events, which always go into one run.
_RUN_FLOATS = 4 << 20


class Explanation(NamedTuple):
    """Holds which movies are known, and the scores [N] and contributions [N, K] of those; K events, newest first."""

    known: npt.NDArray[np.bool_]
    events: Events
    scores_N: Floats
    contributions_NK: Floats


class Explainer:
    """Explains scores, one call at a time; the others wait.

    Runs on one thread of its own, so that everything else is answered meanwhile. A caller that gives up ends its call
    after the tower run that is going on; the next one's first run waits for that.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "explainer")

    async def explain(self, encoder: Encoder, prepared: Prepared, movie_ids: Int64s, most: int) -> Explanation:
        """Leaves out each of the newest `most` events that the tower reads, and sees how movies' scores change.

        Raises StoreUnavailable where there are no events because the store could not be read.
        """
        if prepared.degraded and prepared.merged.size == 0:
            raise StoreUnavailable("the feature store cannot be read now; send the person's events, or the call again")
        async with self._turn:
            without = await self._run(encoder.prepare_without_each, prepared.merged, prepared.as_of_ms, most)
            vectors_1D = await self._run(encoder.run_whole, prepared.encoded.tower)
            parts = _runs(without.tower, encoder.spec.dimension)
            runs_KD = [await self._run(encoder.run_whole, part) for part in parts]
            vectors_KD = np.concatenate([vectors_1D[:0], *runs_KD])
            return await self._run(_compare, encoder, movie_ids, without.events, vectors_1D, vectors_KD)

    def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *arguments, **named))


def _compare(
    encoder: Encoder, movie_ids: Int64s, events: Events, vectors_1D: Floats, vectors_KD: Floats
) -> Explanation:
    known, movies_ND = encoder.movies.find(movie_ids)
    scores_N1 = movies_ND @ vectors_1D.T
    return Explanation(known, events, scores_N1[:, 0], scores_N1 - movies_ND @ vectors_KD.T)


def _runs(tower_KL: TowerInput, dimension: int) -> list[TowerInput]:
    """Cuts a tower input into runs: one for the default number of events, and rows of bounded memory for more."""
    count, length = tower_KL.rows.shape
    step = max(DEFAULT_LEFT_OUT, _RUN_FLOATS // max(1, length * dimension))
    return [TowerInput._make(column[at : at + step] for column in tower_KL) for at in range(0, count, step)]
