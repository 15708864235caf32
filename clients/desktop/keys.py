"""The keys that work everywhere in the window, and the page that lists them."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk
from typing import Final

from clients.desktop.details import DISLIKE, LIKE
from clients.desktop.looks import Looks
from clients.presenter import Opinion, Verdict

KEYS: Final = (
    ("Ctrl+F or /", "Find a film by its title"),
    ("Down, Enter", "From the title to what was found; open a film"),
    ("Escape", "Back to your list"),
    ("Ctrl+1, Ctrl+2", "Your list; what you said"),
    ("L, D", "Like, dislike the film"),
    ("1 to 5, + and -", "Rate it; half a star more, less"),
    ("U", "Take back what you said of it"),
    ("F6, Shift+F6", "To the next part of the window, the part before"),
    ("Tab, Shift+Tab", "To the next field, the field before"),
    ("F4", "Filters: show or hide in a narrow window, or go to them"),
    ("Shift+F4", "Clear filters"),
    ("F5", "Look again"),
    ("Ctrl+T", "Light or dark"),
    ("F1", "This page"),
    ("Ctrl+Q", "Close"),
)

# What a key says of a film; None takes back.
OPINION_KEYS: Final[dict[str, Opinion | None]] = {
    **dict.fromkeys(("l", "L"), LIKE),
    **dict.fromkeys(("d", "D"), DISLIKE),
    **dict.fromkeys(("u", "U"), None),
    **{f"<Key-{stars}>": Opinion(Verdict.RATED, float(stars)) for stars in range(1, 6)},
}
# By how many stars a key changes a rating.
STEP_KEYS: Final = {
    **dict.fromkeys(("<plus>", "<equal>", "<KP_Add>"), 0.5),
    **dict.fromkeys(("<minus>", "<KP_Subtract>"), -0.5),
}


class KeysPage(tk.Toplevel):
    """Lists the keys; Escape, F1 and Enter close it."""

    def __init__(self, root: tk.Misc, looks: Looks) -> None:
        super().__init__(root, background=looks.colours.dim)
        self.title("Keys")
        self.transient(root.winfo_toplevel())
        self.geometry(f"+{root.winfo_rootx() + 40}+{root.winfo_rooty() + 60}")
        frame = ttk.Frame(self, padding=18)
        frame.pack(fill="both", expand=True, padx=1, pady=1)
        for row, (keys, what) in enumerate(KEYS):
            ttk.Label(frame, text=keys, font=looks.strong).grid(row=row, column=0, sticky="w", padx=(0, 18), pady=2)
            ttk.Label(frame, text=what).grid(row=row, column=1, sticky="w", pady=2)
        close = ttk.Button(frame, text="Close", command=self.destroy)
        close.grid(row=len(KEYS), column=0, columnspan=2, pady=(12, 0))
        for key in ("<Escape>", "<F1>", "<Return>"):
            self.bind(key, lambda _: self.destroy())
        close.focus_set()
