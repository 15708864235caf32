"""Turns filters, exclusions and the block list into masks. N movies, in the rows of the index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee.bundle.columns import Columns
from marquee.engine.facts import Facts
from marquee.engine.groups import Groups
from marquee.engine.index import Index, Mask
from marquee.features import Int64s
from marquee.v1 import types_pb2
from services.retriever.block_list import BlockList


class Filters:
    """Turns filters, exclusions and the block list into masks over the rows of an index."""

    def __init__(self, index: Index, columns: Columns, block_list: BlockList) -> None:
        self._index = index
        self.facts = Facts(index.movie_ids, columns)
        self._block_list = block_list
        self._blocked = block_list.ids, index.rows(block_list.ids)

    @property
    def missing(self) -> Int64s:
        """Lists the movies of the index that the columns do not have."""
        return self._index.movie_ids[~self.facts.known]

    @property
    def genres(self) -> Groups:
        """Says which movies have which genre."""
        return self.facts.genres

    @property
    def directors(self) -> Groups:
        """Says which movies are whose."""
        return self.facts.directors

    def matching(self, wanted: types_pb2.MovieFilter | None, excluded: Int64s) -> Mask | None:
        """Marks the movies that may be in an answer: None where all may, else a mask that the caller may write into."""
        blocked = self._blocked_rows()
        if wanted is None:
            if len(excluded) == 0 and len(blocked) == 0:
                return None
            mask = np.ones(self._index.count, bool)
        else:
            mask = self.passing(wanted)
            if wanted.exclude_ids:
                mask[self._rows(wanted.exclude_ids)] = False
        mask[blocked] = False
        if len(excluded):
            mask[self._index.rows(excluded)] = False
        return mask

    def _blocked_rows(self) -> Int64s:
        ids, rows = self._blocked
        if ids is not self._block_list.ids:
            ids = self._block_list.ids
            rows = self._index.rows(ids)
            self._blocked = ids, rows
        return rows

    def _rows(self, movie_ids: Sequence[int]) -> Int64s:
        return self._index.rows(np.fromiter(movie_ids, np.int64, len(movie_ids)))

    def passing(self, wanted: types_pb2.MovieFilter) -> Mask:
        """Marks the movies that meet every condition but `exclude_ids`; the caller may write into the mask."""
        mask = np.ones(self._index.count, bool)
        if wanted.include_ids:
            mask[:] = False
            mask[self._rows(wanted.include_ids)] = True
        self.facts.keep(mask, wanted)
        return mask
