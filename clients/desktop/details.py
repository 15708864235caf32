"""One film: what is known of it, what you think of it, what speaks for it, and what is like it."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Sequence
from tkinter import ttk

from clients.desktop.direction import visual
from clients.desktop.films import FilmList, Section
from clients.desktop.looks import Looks
from clients.desktop.stars import Stars
from clients.presenter import Card, Film, Opinion, Verdict

LIKE, DISLIKE = Opinion(Verdict.LIKED), Opinion(Verdict.DISLIKED)
_MOST_REASONS = 6


class Details(ttk.Frame):
    """Shows a film; `said` gets what the person says of it, None taking back, and `opened` a film that is like it."""

    def __init__(
        self, master: tk.Misc, looks: Looks, said: Callable[[Opinion | None], None], opened: Callable[[Card], None]
    ) -> None:
        super().__init__(master, padding=(14, 4, 4, 4))
        self._looks = looks
        self.card: Card | None = None
        self._title = ttk.Label(self, style="Name.TLabel", justify="left")
        self._line = ttk.Label(self, justify="left")
        self._opinion = ttk.Label(self, style="Opinion.TLabel")
        self._buttons = ttk.Frame(self)
        self.like = self._button("Like (L)", lambda: said(LIKE))
        self.dislike = self._button("Dislike (D)", lambda: said(DISLIKE))
        self.take_back = self._button("Take back (U)", lambda: said(None))
        self.stars = Stars(self, looks, lambda stars: said(Opinion(Verdict.RATED, stars)))
        self.text = tk.Text(
            self, wrap="word", relief="flat", height=9, width=30, borderwidth=0, cursor="arrow", takefocus=True
        )
        self.similar = FilmList(self, looks, lambda _: None, opened, height=3)
        self.similar.narrow(True)
        self._make_readable_only()
        self._lay_out()
        self.bind("<Configure>", lambda event: self._wrap(event.width))
        self.dress()

    def _button(self, text: str, command: Callable[[], None]) -> ttk.Button:
        button = ttk.Button(self._buttons, text=text, command=command)
        button.pack(side="left", padx=(0, 6))
        button.bind("<Return>", lambda _: button.invoke())
        return button

    def _make_readable_only(self) -> None:
        """Takes everything but scrolling from the text; a disabled one would be passed over by Tab."""
        self.text.bindtags((str(self.text), str(self.winfo_toplevel()), "all"))
        for keys, lines in (
            (("<Up>", "<Button-4>"), -1),
            (("<Down>", "<Button-5>"), 1),
            (("<Prior>",), -5),
            (("<Next>",), 5),
        ):
            for key in keys:
                self.text.bind(key, lambda _, by=lines: self.text.yview_scroll(by, "units"))  # type: ignore[misc]
        self.text.bind("<MouseWheel>", lambda event: self.text.yview_scroll(-1 if event.delta > 0 else 1, "units"))

    @property
    def parts(self) -> tuple[tk.Misc, ...]:
        """Lists what the keyboard can be on."""
        return self.like, self.dislike, self.take_back, self.stars, self.text, self.similar.tree

    def _lay_out(self) -> None:
        self._title.grid(row=0, column=0, sticky="w", pady=(0, 6))
        self._line.grid(row=1, column=0, sticky="w", pady=(0, 6))
        self._title.configure(text="Choose a film")
        self._line.configure(text="With the arrow keys or a click; Enter opens it.")
        self.columnconfigure(0, weight=1)

    def _lay_out_film(self) -> None:
        """Brings out what only makes sense once there is a film."""
        rows: tuple[tk.Widget, ...] = (self._opinion, self._buttons, self.stars, self.text, self.similar)
        for row, widget in enumerate(rows, 2):
            weight = {self.text: 3, self.similar: 2}.get(widget, 0)
            widget.grid(row=row, column=0, sticky="nsew" if weight else "w", pady=(0, 6))
            self.rowconfigure(row, weight=weight)

    def _wrap(self, width: int) -> None:
        for label in (self._title, self._line):
            label.configure(wraplength=max(120, width - 30))

    def dress(self) -> None:
        """Takes the colours of the theme."""
        colours = self._looks.colours
        self._line.configure(foreground=colours.dim)
        self.text.configure(
            background=colours.back,
            foreground=colours.text,
            font=self._looks.body,
            highlightthickness=1,
            highlightbackground=colours.back,
            highlightcolor=colours.accent,
            spacing3=3,
        )
        self.text.tag_configure("name", foreground=colours.dim)
        self.text.tag_configure("head", font=self._looks.strong, spacing1=8)
        self.stars.dress()
        self.similar.dress()

    def begin(self, card: Card) -> None:
        """Shows at once what a list knows of a film, until the rest has come."""
        if self.card is None or self.card.movie.movie_id != card.movie.movie_id:
            self.similar.show(())
        self._show_card(card, ())

    def show(self, film: Film) -> None:
        """Shows a film."""
        if film.card is None:
            return
        told = [f"{'+' if reason.weight > 0 else '−'} {reason.movie}: {reason.text}" for reason in film.reasons]
        self._show_card(film.card, told[:_MOST_REASONS])
        self.similar.show([Section(film.similar.headline, film.similar.cards)] if film.similar.cards else ())

    def _show_card(self, card: Card, reasons: Sequence[str]) -> None:
        if self.card is None:
            self._lay_out_film()
        self.card = card
        self._title.configure(text=visual(card.movie.title))
        self._line.configure(text=visual(card.line))
        self.show_opinion(card.opinion)
        self.text.delete("1.0", "end")
        for name, fact in card.facts:
            self.text.insert("end", f"{name}: ", "name", f"{visual(fact)}\n")
        if reasons:
            self.text.insert("end", "What you said, for and against it\n", "head", visual("\n".join(reasons)))

    def show_opinion(self, opinion: Opinion | None) -> None:
        """Shows what the person thinks of the film."""
        self._opinion.configure(
            text=str(opinion) if opinion else "You have not said what you think of it.",
            foreground=self._looks.colours.accent if opinion else self._looks.colours.dim,
        )
        self.stars.show((opinion.stars or 0.0) if opinion else 0.0)
        self.take_back.state(["!disabled" if opinion else "disabled"])
        for button, said in ((self.like, LIKE), (self.dislike, DISLIKE)):
            button.configure(style="Accent.TButton" if opinion == said else "TButton")
