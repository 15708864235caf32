"""How a person's row lies in a SQLite file, so that nothing of it stays when it is deleted.

What is deleted must leave the file. `PRAGMA secure_delete` overwrites what is freed, but SQLite also moves rows from
page to page when it balances its trees, and the copy that stays in a page's unused part is not overwritten. So no row
holds anything about a person inside a tree: its key is a number made of the person's tag, and its blob starts with
zeros, as many as SQLite keeps in the tree; the rest lies in overflow pages, which never move.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from marquee.errors import StoreUnavailable
from services.user_encoder.stores.base import damaged


class Page(NamedTuple):
    """Fills blobs so that all of their content lies in overflow pages.

    Of a row too large for a leaf, SQLite keeps `least` bytes in the tree, or up to a page more so that the last
    overflow page has no rest (https://sqlite.org/fileformat2.html#b_tree_pages). Without a rest it keeps `least`.
    """

    least: int
    overflow: int
    # A multiple of 8, so that what follows is aligned.
    start: int

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Page:
        """Reads a file's page size."""
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        least = (size - 12) * 32 // 255 - 23
        return cls(least, size - 4, -(-least // 8) * 8)

    def fill(self, content: bytes) -> bytes:
        """Makes the blob that holds a content: zeros, the content, zeros, the content's length in four bytes."""
        needed = self.start + len(content) + 4
        pages = max(1, -(-(needed + _MAX_HEADER - self.least) // self.overflow))
        row = self.least + pages * self.overflow
        rest = row - _header(row) - needed
        return b"".join((bytes(self.start), content, bytes(rest), len(content).to_bytes(4, "little")))

    def content(self, blob: bytes) -> memoryview:
        """Finds the content of a blob that `fill` made."""
        end = self.start + int.from_bytes(blob[-4:], "little")
        if end + 4 > len(blob):
            raise damaged(f"a row of {len(blob)} bytes that cannot be read")
        return memoryview(blob)[self.start : end]


# A row's header: its own length, the key's type, and the blob's type, a number of 7 bits a byte made of its length.
_MAX_HEADER = 7


def _header(row: int) -> int:
    for size in range(3, _MAX_HEADER + 1):
        if (2 * (row - size) + 12) >> (7 * (size - 2)) == 0:
            return size
    raise StoreUnavailable(f"a person's row would have {row:,} bytes, which is too long")
