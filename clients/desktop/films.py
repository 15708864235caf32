"""A list of films in sections, each film a row with its tile, its facts and why it is there."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Sequence
from tkinter import ttk
from typing import Any, Final, NamedTuple

from clients.desktop.direction import visual
from clients.desktop.looks import Looks
from clients.presenter import Card

_FILM, _HEADING, _NEW = "film", "heading", "new"
# Pixels: a width that no window has, the frame of a list, and what stands before a film's text.
_LEAST_WIDTH: Final = 100
_EDGES: Final = 12
_BESIDE_TEXT: Final = 84
_WHY_SHARE: Final = 0.36


class Section(NamedTuple):
    """Is some films under a headline."""

    headline: str
    cards: tuple[Card, ...]


class FilmList(ttk.Frame):
    """Shows sections of films; `chosen` gets the film that is selected, `opened` one that Enter or two clicks open."""

    def __init__(
        self,
        master: tk.Misc,
        looks: Looks,
        chosen: Callable[[Card], None],
        opened: Callable[[Card], None],
        *,
        height: int = 12,
    ) -> None:
        super().__init__(master)
        self._looks = looks
        self._chosen = chosen
        self._opened = opened
        self._cards: dict[str, Card] = {}
        self._sections: Sequence[Section] = ()
        self._narrow = False
        self._reordered = self.tk.call("tk", "windowingsystem") == "x11"
        self.tree = ttk.Treeview(
            self, style="Films.Treeview", columns=("why",), show="tree", selectmode="browse", height=height
        )
        for column in ("#0", "why"):
            self.tree.column(column, minwidth=60, stretch=False)
        bar = ttk.Scrollbar(self, command=self.tree.yview)
        self.tree.configure(yscrollcommand=bar.set)
        self.tree.grid(row=0, column=0, sticky="nsew")
        bar.grid(row=0, column=1, sticky="ns")
        self.rowconfigure(0, weight=1)
        self.columnconfigure(0, weight=1)
        self.tree.bind("<Configure>", lambda event: self._resize(event.width))
        self.tree.bind("<<TreeviewSelect>>", lambda _: self._tell(self._chosen))
        self.tree.bind("<Return>", lambda _: self._tell(self._opened))
        self.tree.bind("<Double-1>", lambda _: self._tell(self._opened))
        self.dress()

    def dress(self) -> None:
        """Takes the colours of the theme."""
        self.tree.tag_configure(_HEADING, font=self._looks.heading)
        self.tree.tag_configure(_NEW, foreground=self._looks.colours.accent)

    def narrow(self, narrow: bool) -> None:
        """Leaves out why a film is there, or shows it."""
        self._narrow = narrow
        self.tree.configure(displaycolumns=() if narrow else ("why",))
        self._resize(self.tree.winfo_width())

    def _resize(self, width: int) -> None:
        """Shares the width between the columns, and fits the texts into them."""
        if width < _LEAST_WIDTH:
            return
        why = 0 if self._narrow else round(width * _WHY_SHARE)
        self.tree.column("why", width=why)
        self.tree.column("#0", width=width - why - _EDGES)
        for row, card in self._cards.items():
            self.tree.item(row, **self._texts(card))

    @property
    def selected(self) -> Card | None:
        """Gives the film that is selected."""
        return next((self._cards[row] for row in self.tree.selection() if row in self._cards), None)

    @property
    def cards(self) -> tuple[Card, ...]:
        """Lists the films that are shown, in their order."""
        return tuple(self._cards.values())

    def sections(self) -> list[str]:
        """Lists the headlines that are shown."""
        return [section.headline for section in self._sections]

    def rows(self) -> Sequence[tuple[str, Card]]:
        """Lists the rows of the films, as the tree names them, with their films."""
        return tuple(self._cards.items())

    def show(self, sections: Sequence[Section], new: frozenset[int] = frozenset()) -> None:
        """Shows sections, `new` films marked; what was selected stays so, where it is still there."""
        kept, top, at = self.selected, self.tree.yview()[0], self._pointed()
        self.tree.delete(*self.tree.get_children())
        self._cards.clear()
        self._sections = sections
        for section in sections:
            parent = self.tree.insert("", "end", text=self._seen(section.headline), open=True, tags=_HEADING)
            for card in section.cards:
                self._add(parent, card, card.movie.movie_id in new)
        if kept is None or not self.select(kept.movie.movie_id):
            self._point(at)
        self.tree.yview_moveto(top)

    def _rows_in_order(self) -> list[str]:
        return [row for parent in self.tree.get_children() for row in (parent, *self.tree.get_children(parent))]

    def _pointed(self) -> int:
        """Says in which row the keyboard is; the first film's where it is in none."""
        rows, row = self._rows_in_order(), self.tree.focus()
        return rows.index(row) if row in rows else 1

    def _point(self, at: int) -> None:
        """Puts the keyboard before a row, so that Down comes to it; nothing is selected by that."""
        rows = self._rows_in_order()
        if rows:
            self.tree.focus(rows[max(0, min(at, len(rows)) - 1)])

    def _add(self, parent: str, card: Card, new: bool) -> None:
        tags = (_FILM, _NEW) if new else (_FILM,)
        row = self.tree.insert(parent, "end", image=self._looks.tile(card.hue), tags=tags, **self._texts(card))
        self._cards[row] = card

    def _texts(self, card: Card) -> dict[str, Any]:
        """Gives the texts of a film's row, as long as they have room."""
        title = f"{card.rank}.  {card.movie.title}" if card.rank else card.movie.title
        room = int(self.tree.column("#0", "width")) - _BESIDE_TEXT
        lines = [self._looks.fit(text, room, 1) for text in (title, card.line) if text]
        why = str(card.opinion) if card.opinion else card.reason
        fitted = self._looks.fit(why, int(self.tree.column("why", "width")) - _EDGES, 2)
        return {"text": self._seen("\n".join(lines)), "values": (self._seen(fitted),)}

    def _seen(self, text: str) -> str:
        return visual(text) if self._reordered else text

    def select(self, movie_id: int) -> bool:
        """Selects a film, and says whether it is there."""
        for row, card in self._cards.items():
            if card.movie.movie_id == movie_id:
                self.tree.selection_set(row)
                self.tree.focus(row)
                return True
        return False

    def focus_first(self) -> None:
        """Moves the keyboard to the list, to what is selected or else to the first film."""
        self.tree.focus_set()
        row = next(iter(self.tree.selection() or self._cards), "")
        if row:
            self.tree.selection_set(row)
            self.tree.focus(row)
            self.tree.see(row)

    def _tell(self, hearer: Callable[[Card], None]) -> None:
        card = self.selected
        if card is not None:
            hearer(card)
