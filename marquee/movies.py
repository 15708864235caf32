"""One movie as training, bundles and services pass it on."""

from __future__ import annotations

import re
from typing import NamedTuple

# A year outside these centuries is part of the title: "Room (1408)". A series has a range, open while it runs.
_TITLE = re.compile(r"^(?P<title>.+?) ?\((?P<year>(?:18|19|20)\d\d)(?: ?[–—-] ?(?:\d{4}|\d{2})?)? ?\)[ )]*$")
_ARTICLES = (
    "The|A|An|Le|La|Les|L'|L’|Un|Une|Il|Lo|I|Gli|Una|El|Los|Las|Der|Die|Das|Ein|Eine|Den|Det|De|Het|Een|En|Ett|O|Os|As"
)
_ARTICLE = re.compile(
    rf"^(?P<rest>(?:[^()]|\([^()]*\))+), (?P<article>{_ARTICLES})(?P<tail> ?\(.*\)|: .+)?$",
)
_ALIAS = re.compile(r"\((?P<aka>a\.k\.a\. )?(?P<name>[^()]+)\)")


class MovieRecord(NamedTuple):
    """Holds what is known about a movie. What is not known is None or empty, never a placeholder.

    `title` is as a person reads it ("The Matrix"), without the year. `external_id` is "source:id". `mean_rating` is
    in stars, 0.5 to 5, over the `rating_count` ratings of the training data. `links` are URLs of pages about the movie.
    """

    movie_id: int
    title: str
    year: int | None = None
    genres: tuple[str, ...] = ()
    language: str = ""
    release_date: str = ""
    runtime_minutes: int | None = None
    directors: tuple[str, ...] = ()
    cast: tuple[str, ...] = ()
    external_id: str = ""
    mean_rating: float | None = None
    rating_count: int = 0
    links: tuple[str, ...] = ()


def parse_title(raw: str) -> tuple[str, int | None]:
    """Splits a MovieLens title into the title as a person reads it and the year.

    "Matrix, The (1999)" is The Matrix, 1999; "Hate (Haine, La) (1995)" is Hate (La Haine), 1995.
    """
    text = " ".join(raw.split())
    match = _TITLE.match(text)
    title, year = (match["title"], int(match["year"])) if match else (text, None)
    return _ALIAS.sub(_front_alias, _front_article(title)), year


def _front_alias(alias: re.Match[str]) -> str:
    return f"({alias['aka'] or ''}{_front_article(alias['name'])})"


def _front_article(title: str) -> str:
    moved = _ARTICLE.match(title)
    if not moved:
        return title
    space = "" if moved["article"].endswith(("'", "’")) else " "
    return moved["article"] + space + moved["rest"] + (moved["tail"] or "")
