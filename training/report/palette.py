"""Names and colours: the same system has the same colour in every chart and table, by day and by night.

Charts are drawn in the day's colours; in the page each becomes a CSS variable, so every colour here is there once.
"""

from __future__ import annotations

from typing import NamedTuple


class Colour(NamedTuple):
    """Is a colour on light and on dark ground, as #rrggbb in lower case."""

    light: str
    dark: str


class System(NamedTuple):
    """Says how a system is called and drawn; `marker` is matplotlib's."""

    label: str
    colour: Colour
    marker: str


INK = {
    "paper": Colour("#fdfcfa", "#15171c"),
    "panel": Colour("#f3f1ec", "#1e2128"),
    "text": Colour("#1f2328", "#e8e6e1"),
    "quiet": Colour("#5b6169", "#a3a8b0"),
    "rule": Colour("#d9d5cc", "#363b45"),
    "link": Colour("#1a5fb5", "#7db4ff"),
    "good": Colour("#1c6e3a", "#6fce92"),
    "bad": Colour("#a8321f", "#ff9b87"),
}

SYSTEMS = {
    "pooled": System("pooled tower", Colour("#1e63d0", "#6ea8ff"), "o"),
    "sequence": System("sequence tower", Colour("#a3259c", "#f08ae6"), "o"),
    "ease": System("EASE", Colour("#8f5f00", "#e3ae4b"), "D"),
    "recency_ease": System("recency-weighted EASE", Colour("#c04a08", "#ff9a5c"), "D"),
    "transitions+ease": System("transitions + EASE", Colour("#b02438", "#ff8591"), "D"),
    "ials": System("iALS", Colour("#0d7377", "#4cd0d2"), "s"),
    "item_knn": System("item-kNN", Colour("#3a7a2a", "#8bd276"), "^"),
    "content_knn": System("content-kNN", Colour("#6b5b95", "#b5a6e0"), "v"),
    "popularity": System("popularity", Colour("#6a7078", "#a9afb9"), "X"),
}
_OTHER = Colour("#50606f", "#9db0c2")

# The more telling first: a film has the colour of the first of its genres in this order.
GENRES = {
    "Documentary": Colour("#7d6a4b", "#c4ae88"),
    "Animation": Colour("#d2649a", "#ff9fce"),
    "Horror": Colour("#7a2d8f", "#cf86e6"),
    "Sci-Fi": Colour("#138aa8", "#5ccbe8"),
    "Crime": Colour("#565f6b", "#9aa5b3"),
    "Adventure": Colour("#2f8f6b", "#66cfa8"),
    "Action": Colour("#c23b3b", "#f58080"),
    "Comedy": Colour("#c98a00", "#f1bf4d"),
    "Drama": Colour("#3f6fb5", "#7fa9ec"),
    "other": Colour("#9a9890", "#7d8088"),
}

_SHORT = {"recall": "R", "ndcg": "N", "mrr": "MRR"}


def system(name: str) -> System:
    """Finds how a system is drawn; one that is not known here keeps its name, in slate."""
    return SYSTEMS.get(name) or System(name.replace("_", " "), _OTHER, "P")


def metric(name: str) -> str:
    """Writes a metric's name shortly: R@10 for recall@10."""
    base, _, k = name.partition("@")
    return f"{_SHORT.get(base, base.replace('_', ' '))}@{k}" if k else base.replace("_", " ")


def variable(name: str) -> str:
    """Names the CSS variable of a system's colour."""
    return f"system-{name.replace('+', '-')}" if name in SYSTEMS else "system-other"


def variables() -> dict[str, Colour]:
    """Lists all colours by the name of their CSS variable."""
    systems = {variable(name): one.colour for name, one in SYSTEMS.items()} | {"system-other": _OTHER}
    genres = {f"genre-{name.lower()}": colour for name, colour in GENRES.items()}
    return INK | systems | genres


def style() -> str:
    """Writes the variables of both schemes as CSS."""
    light = "".join(f"--{name}:{colour.light};" for name, colour in variables().items())
    dark = "".join(f"--{name}:{colour.dark};" for name, colour in variables().items())
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
