"""The window: its parts, what keys do in it, and how answers get onto the screen."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from tkinter import ttk
from typing import Final

from clients.desktop.bridge import Bridge
from clients.desktop.details import Details
from clients.desktop.films import FilmList, Section
from clients.desktop.filters import FilterPanel
from clients.desktop.header import Header
from clients.desktop.keys import OPINION_KEYS, STEP_KEYS, KeysPage
from clients.desktop.looks import OTHER, Looks
from clients.desktop.notices import NoticeBar
from clients.desktop.timers import Timers
from clients.desktop.voice import Voice
from clients.presenter import (
    Card,
    Choice,
    Film,
    Found,
    History,
    Home,
    Mood,
    Notice,
    Offer,
    Opinion,
    Presenter,
    Stage,
    Told,
    Verdict,
    changes,
)
from marquee.client import InvalidRequest

# Below it, list, film and filters are shown one at a time.
NARROW: Final = 860
# After it what was away is looked for again; gRPC itself tries every three seconds at the latest.
RETRY_MS: Final = 1_500
# What is typed, and films that are run through, are asked for once the fingers rest.
_REST_MS: Final = 60
_FOUND: Final = 30

_HOME, _FOUND_VIEW, _SAID = "home", "found", "said"
_LIST, _FILM, _FILTERS = "list", "film", "filters"
_WEIGHTS: Final = {_FILTERS: 0, _LIST: 3, _FILM: 2}
_HINTS = "F1 keys · / find · L like · D dislike · 1–5 stars · U take back · F4 filters · F6 next part · Ctrl+T colours"
_HINTS_NARROW = "F1 keys · / find · Enter open · Esc back"
# Control, and Alt, in an event's state.
_MODIFIERS: Final = 0x4 | 0x8


class Window:
    """Is the window of one person. Everything is asked on the stage; nothing here waits.

    `report` is told what stands behind it where the window says that something is away.
    """

    def __init__(
        self,
        root: tk.Tk,
        stage: Stage,
        presenter: Presenter,
        user_id: str,
        *,
        theme: str = "light",
        report: Callable[[str], None],
    ) -> None:
        self.root = root
        self._presenter = presenter
        self._user_id = user_id
        self._bridge = Bridge(root, stage)
        self.voice = Voice(self._bridge, presenter, user_id, self._heard)
        self._view, self._front = _HOME, _LIST
        self._home: Home | None = None
        self._choice = Choice()
        # What was said and may not be in an answer yet.
        self._said: dict[int, Opinion | None] = {}
        self._new: frozenset[int] = frozenset()
        self._timers = Timers(root)
        self._keys: KeysPage | None = None
        self._narrow: bool | None = None
        self.closed = False
        self._looks = Looks(root, theme)
        self._report = report
        self._build()
        self._bind()
        self._arrange()
        self.refresh()
        self.header.search.focus_set()

    def _build(self) -> None:
        self.root.title("Marquee")
        self.root.geometry("1180x760")
        self.root.minsize(380, 420)
        self.header = Header(self.root, self._typing, self._buttons())
        self.header.grid(row=0, column=0, sticky="ew", padx=12, pady=(10, 6))
        self.notices = NoticeBar(self.root, self._looks, self._report)
        self.notices.grid(row=1, column=0, sticky="ew", padx=12)
        self._body = ttk.Frame(self.root)
        self._body.grid(row=2, column=0, sticky="nsew", padx=8, pady=6)
        self.filters = FilterPanel(self._body, self._filters_changed)
        self.films = FilmList(self._body, self._looks, self._film_chosen, self._film_opened)
        self.details = Details(self._body, self._looks, self._say_of_shown, self._film_opened)
        self.status = ttk.Label(self.root, padding=(12, 2, 12, 8))
        self.status.grid(row=3, column=0, sticky="ew")
        self.root.rowconfigure(2, weight=1)
        self.root.columnconfigure(0, weight=1)
        self._body.rowconfigure(0, weight=1)
        self._dress()

    def _buttons(self) -> Sequence[tuple[str, Callable[[], None]]]:
        return (
            ("For you", self.show_home),
            ("You said", self.show_said),
            ("Filters", self.show_filters),
            ("◐", self.switch_theme),
            ("?", self.show_keys),
        )

    def _bind(self) -> None:
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.root.bind("<Configure>", self._resized)
        for key, command in (
            ("<Control-f>", self.header.point),
            ("<Escape>", self.back),
            ("<Control-Key-1>", self.show_home),
            ("<Control-Key-2>", self.show_said),
            ("<F1>", self.show_keys),
            ("<F4>", self.show_filters),
            ("<F5>", self.refresh),
            ("<F6>", lambda: self._next_part(1)),
            ("<Shift-F6>", lambda: self._next_part(-1)),
            ("<Control-t>", self.switch_theme),
            ("<Shift-F4>", self.filters.reset),
            ("<Control-q>", self.close),
        ):
            self.root.bind(key, _calling(command))
        own = (self.films.tree, self.details.similar.tree)
        for widget in {*own, *self.details.parts}:
            self._bind_film_keys(widget, self._selected_in if widget in own else self._shown)
        self.header.search.bind("<Control-a>", _calling(self.header.point))
        self.header.search.bind("<Down>", _calling(self._to_films))
        self.header.search.bind("<Return>", _calling(self._to_films))

    def _bind_film_keys(self, widget: tk.Misc, film: Callable[[tk.Misc], Card | None]) -> None:
        """Binds the keys that say something of a film: of the one that is selected in a list, or of the one shown."""
        for key, opinion in OPINION_KEYS.items():
            widget.bind(key, _unmodified(partial(self._say_of, film, widget, opinion)))
        for key, step in STEP_KEYS.items():
            widget.bind(key, _unmodified(partial(self._rate_by, film, widget, step)))
        widget.bind("/", _calling(self.header.point))

    def _say_of(self, film: Callable[[tk.Misc], Card | None], widget: tk.Misc, opinion: Opinion | None) -> None:
        self.say(opinion, film(widget))

    def _rate_by(self, film: Callable[[tk.Misc], Card | None], widget: tk.Misc, step: float) -> None:
        card = film(widget)
        opinion = self._told(card).opinion if card else None
        stars = (opinion.stars if opinion else None) or 3.0
        self.say(Opinion(Verdict.RATED, min(5.0, max(0.5, stars + step))), card)

    def _selected_in(self, tree: tk.Misc) -> Card | None:
        films = self.films if tree is self.films.tree else self.details.similar
        card = films.selected
        if card is not None and films is self.films:
            # Fast fingers are here before the list has told what is selected.
            self._film_chosen(card)
        # What was just said may have taken the film out of its list: it is still the one that is shown.
        return card or self.details.card

    def _shown(self, _: tk.Misc) -> Card | None:
        return self.details.card

    def _resized(self, event: tk.Event[tk.Misc]) -> None:
        if event.widget is self.root and (event.width < NARROW) is not self._narrow:
            self._narrow = event.width < NARROW
            self._arrange()

    def _arrange(self) -> None:
        """Puts list, film and filters beside each other, or shows the one in front."""
        parts: dict[str, ttk.Frame] = {_FILTERS: self.filters, _LIST: self.films, _FILM: self.details}
        for column, (name, part) in enumerate(parts.items()):
            shown = not self._narrow or name == self._front
            weight = int(shown) if self._narrow else _WEIGHTS[name]
            self._body.columnconfigure(column, weight=weight, uniform="parts" if weight else "")
            if shown:
                part.grid(row=0, column=column, sticky="nsew", padx=4)
            else:
                part.grid_forget()
        self.films.narrow(bool(self._narrow))
        self.header.narrow(bool(self._narrow))
        self.status.configure(text=_HINTS_NARROW if self._narrow else _HINTS)

    def _bring(self, part: str) -> None:
        self._front = part
        if self._narrow:
            self._arrange()

    @property
    def busy(self) -> bool:
        """Says whether an answer is awaited, or something is about to be asked."""
        return self._timers.busy or self._bridge.busy

    def close(self) -> None:
        """Closes the window, whatever is on its way."""
        self.closed = True
        self._timers.close()
        self._bridge.close()
        self.root.destroy()

    def switch_theme(self) -> None:
        """Changes between light and dark."""
        self._looks.wear(OTHER[self._looks.theme])
        self._dress()

    def _dress(self) -> None:
        self.status.configure(foreground=self._looks.colours.dim)
        self.films.dress()
        self.details.dress()
        self.notices.dress()

    def show_keys(self) -> None:
        """Lists the keys."""
        if self._keys is not None:
            self._keys.destroy()
        self._keys = KeysPage(self.root, self._looks)

    def _to_films(self) -> None:
        self._bring(_LIST)
        self.films.focus_first()

    def _next_part(self, step: int) -> None:
        stops: Sequence[tuple[str, tk.Misc]] = (
            ("", self.header.search),
            (_FILTERS, self.filters.genres),
            (_LIST, self.films.tree),
            (_FILM, self.details.like),
        )
        focus = str(self.root.focus_get() or "")
        holders = [str(self.header.search), str(self.filters), str(self.films), str(self.details)]
        at = next((number for number, holder in enumerate(holders) if focus.startswith(holder)), 0)
        part, widget = stops[(at + step) % len(stops)]
        if part:
            self._bring(part)
        if part == _LIST:
            self.films.focus_first()
        else:
            widget.focus_set()

    def back(self) -> None:
        """Goes back: in a narrow window from the film to the list, from what was found to the person's list."""
        if self._narrow and self._front != _LIST:
            self._to_films()
        elif self.header.typed.get() or self._view != _HOME:
            self.show_home()
            self.films.focus_first()
        else:
            self.films.focus_first()

    def show_home(self) -> None:
        """Shows the person's list."""
        self._leave_titles(_HOME)
        self._show_cards()
        self.refresh()

    def show_said(self) -> None:
        """Shows what the person said."""
        self._leave_titles(_SAID)
        self._ask_said()
        self.films.focus_first()

    def _leave_titles(self, view: str) -> None:
        """Empties the search field for another view; what was asked for it is not to come any more."""
        self._view = view
        if self.header.typed.get():
            self.header.typed.set("")
        self._timers.stop("typing")
        self._bridge.drop("typed")
        self.notices.show("typed", ())
        self._bring(_LIST)

    def show_filters(self) -> None:
        """Goes to the filters; from them in a narrow window back to the list."""
        if self._narrow and self._front == _FILTERS:
            self._to_films()
            return
        self._bring(_FILTERS)
        self.filters.genres.focus_set()

    def refresh(self) -> None:
        """Says what still waits to be heard, and looks again at everything that is shown."""
        self._timers.stop("again")
        self.voice.again()
        self._bridge.ask("home", self._presenter.home(self._user_id, self._choice), self._home_came)
        if self._view == _FOUND_VIEW:
            self._ask_typed()
        elif self._view == _SAID:
            self._ask_said()
        if self.details.card is not None:
            self._ask_film(self.details.card)
        if not self.filters.is_offered:
            self._bridge.ask("offer", self._presenter.offer(), self._offer_came)

    def _typing(self) -> None:
        self._timers.start("typing", _REST_MS, self._typed)

    def _typed(self) -> None:
        self._bring(_LIST)
        self._ask_typed()

    def _ask_typed(self) -> None:
        text = self.header.typed.get()
        if not text.strip():
            self._bridge.drop("typed")
            if self._view == _FOUND_VIEW:
                self.show_home()
            return
        self._bridge.ask("typed", self._presenter.typed(text, self._user_id, _FOUND), self._found_came)

    def _ask_said(self) -> None:
        self._bridge.ask("said", self._presenter.history(self._user_id), self._history_came)

    def _ask_film(self, card: Card) -> None:
        self._bridge.ask("film", self._presenter.film(self._user_id, card.movie.movie_id), self._film_came)

    def _filters_changed(self) -> None:
        try:
            choice = self.filters.choice()
        except InvalidRequest as error:
            self.notices.show("filters", (Notice(Mood.REFUSED, error.message),))
            return
        self.notices.show("filters", ())
        if choice != self._choice:
            self._choice = choice
            self._new = frozenset()
            self.refresh()

    def _film_chosen(self, card: Card) -> None:
        if self.details.card is None or self.details.card.movie.movie_id != card.movie.movie_id:
            self.details.begin(self._told(card))
            self._timers.start("film", _REST_MS, lambda: self._ask_film(card))

    def _film_opened(self, card: Card) -> None:
        self._film_chosen(card)
        self._bring(_FILM)
        self.details.like.focus_set()

    def _say_of_shown(self, opinion: Opinion | None) -> None:
        self.say(opinion, self.details.card)

    def say(self, opinion: Opinion | None, card: Card | None) -> None:
        """Says what the person thinks of a film, None taking back."""
        if card is None:
            self.notices.show("told", (Notice(Mood.HINT, "Choose a film first."),))
            return
        movie_id = card.movie.movie_id
        if self._told(card).opinion == opinion:
            return
        self._said[movie_id] = opinion
        if self.details.card is not None and self.details.card.movie.movie_id == movie_id:
            self.details.show_opinion(opinion)
        self.voice.say(movie_id, opinion, self._home.request_id if self._home else "")

    def _heard(self, movie_id: int, told: Told) -> None:
        self.notices.show("told", (told.notice,))
        if not told.done and told.notice.mood is Mood.AWAY:
            self._again()
        elif not told.done:
            self._said.pop(movie_id, None)
        if self.voice.quiet:
            self.refresh()

    def _told(self, card: Card) -> Card:
        """Gives a film with what was said of it a moment ago."""
        movie_id = card.movie.movie_id
        return replace(card, opinion=self._said[movie_id]) if movie_id in self._said else card

    def _home_came(self, home: Home) -> None:
        if self.voice.quiet:
            self._said.clear()
        if self._home is not None and self._home.choice == home.choice and home.personal:
            changed = changes((card.movie.movie_id for card in self._home.cards), home.cards)
            if changed.new and home.opinions != self._home.opinions:
                self._new = changed.new
                self.notices.add("told", str(changed))
        self._home = home
        self.notices.show("home", home.notices)
        if not home.whole:
            self._again()
        if self._view == _HOME:
            self._show_cards()

    def _found_came(self, found: Found) -> None:
        self._view = _FOUND_VIEW
        self.films.show([Section(f"Films called “{found.text}”", tuple(map(self._told, found.cards)))])
        self._came("typed", found.notices)

    def _history_came(self, history: History) -> None:
        if self._view == _SAID:
            cards = tuple(self._told(line.card) for line in history.lines)
            self.films.show([Section("What you said" if cards else "You have not said anything yet", cards)])
        self._came("said", history.notices)

    def _film_came(self, film: Film) -> None:
        if film.card is not None:
            self.details.show(replace(film, card=self._told(film.card)))
        self._came("film", film.notices)

    def _offer_came(self, offer: Offer) -> None:
        self.filters.offer(offer)

    def _came(self, slot: str, notices: tuple[Notice, ...]) -> None:
        self.notices.show(slot, notices)
        if any(notice.mood is Mood.AWAY for notice in notices):
            self._again()

    def _show_cards(self) -> None:
        if self._home is None:
            return
        self.films.show(list(self._sections(self._home)), self._new)
        self.notices.show("said", ())

    def _sections(self, home: Home) -> Iterator[Section]:
        if home.cards:
            headline = "For you" if home.personal else "What most people watch"
            yield Section(headline, tuple(map(self._told, home.cards)))
        for shelf in home.shelves:
            yield Section(shelf.headline, tuple(map(self._told, shelf.cards)))

    def _again(self) -> None:
        """Looks again in a moment, once, however many parts want to."""
        if not self._timers.waits("again"):
            self._timers.start("again", RETRY_MS, self.refresh)


def _calling(command: Callable[[], object]) -> Callable[[tk.Event[tk.Misc]], str]:
    def handler(_: tk.Event[tk.Misc]) -> str:
        command()
        # The key has done its work: nothing else is to see it.
        return "break"

    return handler


def _unmodified(command: Callable[[], object]) -> Callable[[tk.Event[tk.Misc]], str | None]:
    def handler(event: tk.Event[tk.Misc]) -> str | None:
        # Tk takes Ctrl+2 for 2 where nothing closer is bound.
        if int(event.state) & _MODIFIERS:
            return None
        command()
        return "break"

    return handler
