"""The top of the window: the field to find films in, and buttons for what keys do as well."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Iterable
from tkinter import ttk


class Header(ttk.Frame):
    """Holds the search field, whose every change calls `typed`, and a row of buttons."""

    def __init__(
        self, master: tk.Misc, typed: Callable[[], None], buttons: Iterable[tuple[str, Callable[[], None]]]
    ) -> None:
        super().__init__(master)
        self._name = ttk.Label(self, text="Marquee", style="Name.TLabel")
        ttk.Label(self, text="Find").grid(row=0, column=1, padx=(0, 6))
        self.typed = tk.StringVar(self)
        self.typed.trace_add("write", lambda *_: typed())
        self.search = ttk.Entry(self, textvariable=self.typed)
        self.search.grid(row=0, column=2, sticky="ew")
        self.columnconfigure(2, weight=1)
        self.buttons = ttk.Frame(self)
        for text, command in buttons:
            self._add(text, command)

    def _add(self, text: str, command: Callable[[], None]) -> None:
        button = ttk.Button(self.buttons, text=text, command=command, width=max(2, len(text)))
        button.pack(side="left", padx=(6, 0))
        button.bind("<Return>", lambda _: button.invoke())

    def narrow(self, narrow: bool) -> None:
        """Puts the buttons below the field, or beside it."""
        if narrow:
            self._name.grid_forget()
            self.buttons.grid(row=1, column=1, columnspan=2, sticky="w", pady=(6, 0))
        else:
            self._name.grid(row=0, column=0, padx=(0, 14))
            self.buttons.grid(row=0, column=3, columnspan=1, pady=0)

    def point(self) -> None:
        """Moves the keyboard to the field, and selects what is in it."""
        self.search.focus_set()
        self.search.selection_range(0, "end")
