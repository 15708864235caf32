"""The panel to filter by: genres, years, language."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable
from tkinter import ttk

from clients.presenter import Choice, Offer, choice_from

_ANY = "Any language"
_CHECKED, _UNCHECKED = "☑", "☐"


class FilterPanel(ttk.Frame):
    """Shows what can be chosen; calls `changed` when the person has chosen otherwise."""

    def __init__(self, master: tk.Misc, changed: Callable[[], None]) -> None:
        super().__init__(master, padding=(8, 4))
        self._changed = changed
        self._genres: dict[str, str] = {}
        self._chosen: set[str] = set()
        self._codes: dict[str, str] = {_ANY: ""}
        ttk.Label(self, text="Genres", style="Head.TLabel").grid(sticky="w")
        self.genres = self._genre_list()
        ttk.Label(self, text="Years", style="Head.TLabel").grid(sticky="w", pady=(8, 0))
        self.year_min, self.year_max = self._year_row()
        ttk.Label(self, text="Language", style="Head.TLabel").grid(sticky="w", pady=(8, 0))
        self.language = self._language_box()
        self.clear = ttk.Button(self, text="Clear filters", command=self.reset)
        self.clear.grid(sticky="ew", pady=(10, 0))
        self.clear.bind("<Return>", lambda _: self.clear.invoke())
        self.columnconfigure(0, weight=1)
        self.rowconfigure(1, weight=1)

    def _genre_list(self) -> ttk.Treeview:
        box = ttk.Frame(self)
        box.grid(sticky="nsew")
        tree = ttk.Treeview(box, style="Checks.Treeview", show="tree", selectmode="browse", height=8)
        bar = ttk.Scrollbar(box, command=tree.yview)
        tree.configure(yscrollcommand=bar.set)
        tree.column("#0", width=190, minwidth=120)
        tree.pack(side="left", fill="both", expand=True)
        bar.pack(side="left", fill="y")
        for key in ("<space>", "<Return>"):
            tree.bind(key, lambda _: self._toggle(tree.focus()))
        tree.bind("<ButtonRelease-1>", lambda event: self._toggle(tree.identify_row(event.y)))
        # What else moves the keyboard here has to show where it is.
        tree.bind("<FocusIn>", lambda _: self._point(tree))
        return tree

    def _point(self, tree: ttk.Treeview) -> None:
        rows = tree.get_children()
        if rows and not tree.focus():
            tree.focus(rows[0])
            tree.selection_set(rows[0])

    def _year_row(self) -> tuple[ttk.Entry, ttk.Entry]:
        row = ttk.Frame(self)
        row.grid(sticky="ew")
        first, last = (ttk.Entry(row, width=6) for _ in range(2))
        first.pack(side="left", fill="x", expand=True)
        ttk.Label(row, text=" to ").pack(side="left")
        last.pack(side="left", fill="x", expand=True)
        for entry in (first, last):
            entry.bind("<Return>", lambda _: self._changed())
            entry.bind("<FocusOut>", lambda _: self._changed())
        return first, last

    def _language_box(self) -> ttk.Combobox:
        box = ttk.Combobox(self, state="readonly", values=[_ANY])
        box.current(0)
        box.grid(sticky="ew")
        box.bind("<<ComboboxSelected>>", lambda _: self._changed())
        return box

    def offer(self, offer: Offer) -> None:
        """Shows what can be chosen; what is chosen stays so."""
        if not offer.genres and not offer.languages:
            return
        self._genres = {option.value: f"{option.label}  {option.films:,}" for option in offer.genres}
        pointed = self.genres.focus()
        self.genres.delete(*self.genres.get_children())
        for value in self._genres:
            self.genres.insert("", "end", iid=value, text=self._marked(value))
        if self.genres.exists(pointed):
            self.genres.focus(pointed)
        chosen = self.language.get()
        self._codes = {_ANY: "", **{f"{option.label} ({option.films:,})": option.value for option in offer.languages}}
        self.language.configure(values=list(self._codes))
        if chosen not in self._codes:
            self.language.current(0)

    @property
    def is_offered(self) -> bool:
        """Says whether it is known what can be chosen."""
        return bool(self._genres)

    def _marked(self, value: str) -> str:
        return f"{_CHECKED if value in self._chosen else _UNCHECKED}  {self._genres[value]}"

    def _toggle(self, value: str) -> None:
        if value in self._genres:
            self._chosen ^= {value}
            self.genres.item(value, text=self._marked(value))
            self._changed()

    def reset(self) -> None:
        """Chooses everything."""
        chosen, self._chosen = self._chosen, set()
        for value in chosen:
            self.genres.item(value, text=self._marked(value))
        for entry in (self.year_min, self.year_max):
            entry.delete(0, "end")
        self.language.current(0)
        self._changed()

    def choice(self) -> Choice:
        """Reads what is chosen; raises InvalidRequest, in words for the person, for years that are none."""
        code = self._codes.get(self.language.get(), "")
        genres = sorted(self._chosen)
        return choice_from(genres, self.year_min.get(), self.year_max.get(), [code] if code else [])
