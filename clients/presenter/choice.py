"""What a person wants to see: genres, years, languages."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from marquee.client import Filters, InvalidRequest, Movie

FIRST_YEAR: Final = 1870
_YEAR = re.compile(r"\d{4}", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}", re.ASCII)
# A screen offers a few dozen of each; the services take 100.
_MOST = 40
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class Choice:
    """Is what a person filters by; empty: everything. Years are inclusive, languages ISO 639-1."""

    genres: tuple[str, ...] = ()
    year_min: int | None = None
    year_max: int | None = None
    languages: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Choice()

    def lets_through(self, movie: Movie) -> bool:
        """Says whether a film passes, as the services would say it."""
        year = movie.year or 0
        return (
            (not self.genres or not _folded(self.genres).isdisjoint(_folded(movie.genres)))
            and (self.year_min is None or year >= self.year_min)
            and (self.year_max is None or 0 < year <= self.year_max)
            and (not self.languages or movie.language in self.languages)
        )

    def filters(self) -> Filters:
        """Says the same to the SDK."""
        return {
            "genres": self.genres,
            "year_min": self.year_min,
            "year_max": self.year_max,
            "languages": self.languages,
        }


def choice_from(
    genres: Sequence[str] = (), year_min: str = "", year_max: str = "", languages: Sequence[str] = ()
) -> Choice:
    """Reads a choice from the texts of a form; raises InvalidRequest, in words for the person, for what is none."""
    choice = Choice(
        genres=_few("genres", genres),
        year_min=_year(year_min),
        year_max=_year(year_max),
        languages=_languages(languages),
    )
    if choice.year_min is not None and choice.year_max is not None and choice.year_min > choice.year_max:
        raise InvalidRequest(
            f"No film is from {choice.year_min} or later and from {choice.year_max} or earlier: "
            f"swap the years, or leave one empty.",
            field="year_min",
        )
    return choice


def _folded(texts: Sequence[str]) -> set[str]:
    return {text.casefold() for text in texts}


def _few(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if len(chosen) > _MOST or any(len(text) > _LONGEST for text in chosen):
        raise InvalidRequest(f"That is too much to filter by: choose at most {_MOST} {name}.", field=name)
    return chosen


def _languages(texts: Sequence[str]) -> tuple[str, ...]:
    chosen = _few("languages", texts)
    for text in chosen:
        if not _LANGUAGE.fullmatch(text):
            raise InvalidRequest(f"“{text}” is no language code: choose one such as fr or ja.", field="languages")
    return chosen


def _year(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    latest = dt.datetime.now(dt.UTC).year + 10
    if not _YEAR.fullmatch(text) or not FIRST_YEAR <= int(text) <= latest:
        raise InvalidRequest(
            f"“{text[:12]}” is no year: write one from {FIRST_YEAR} to {latest}, such as 1999.", field="year_min"
        )
    return int(text)
