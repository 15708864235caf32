"""One movie as training, bundles and services pass it on."""

from __future__ import annotations

import re
from typing import NamedTuple

_TITLE = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:[–-]\d{0,4})?\)\s*$", re.DOTALL)
_ARTICLE = re.compile(
    r"^(?P<rest>.+), (?P<article>The|A|An|Le|La|Les|L'|Il|Lo|I|Gli|El|Los|Las|Un|Une|Una|Der|Die|Das|Ein|Eine|Den|Det|De|Het|Een|O|Os|As)"
    r"(?P<tail>\s*\(.*\))?$",
    re.DOTALL,
)


class MovieRecord(NamedTuple):
    """Holds what is known about a movie. What is not known is None or empty, never a placeholder.

    `title` is as a person reads it ("The Matrix"), without the year. `external_id` is "source:id". `mean_rating` is
    in stars, 0.5 to 5, over the `rating_count` ratings of the training data.
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


def parse_title(raw: str) -> tuple[str, int | None]:
    """Splits a MovieLens title into the title as a person reads it and the year: "Matrix, The (1999)" is The Matrix, 1999."""
    match = _TITLE.match(raw.strip())
    title, year = (match["title"], int(match["year"])) if match else (raw.strip(), None)
    moved = _ARTICLE.match(title)
    if moved:
        space = "" if moved["article"].endswith("'") else " "
        title = moved["article"] + space + moved["rest"] + (moved["tail"] or "")
    return title, year
