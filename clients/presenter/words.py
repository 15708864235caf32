"""Facts about films, as sentences, lines and colours that every client shows alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from marquee.client import Movie

# From how many stars on a rating is a recommendation of the film.
GOOD_STARS: Final = 4.0

# What says most of a film comes first: "Action" says less than "Western".
_HUES = {
    "animation": 85,
    "western": 60,
    "horror": 20,
    "musical": 345,
    "documentary": 170,
    "film-noir": 262,
    "war": 118,
    "sci-fi": 225,
    "fantasy": 300,
    "romance": 5,
    "mystery": 280,
    "children": 100,
    "crime": 248,
    "comedy": 70,
    "adventure": 148,
    "thriller": 205,
    "action": 35,
    "drama": 325,
    "imax": 190,
}
_NO_GENRE = 230
_LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cn": "Cantonese",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "ka": "Georgian",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "ml": "Malayalam",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


def language(code: str) -> str:
    """Names a language in English; a code that is not known stays a code."""
    return _LANGUAGES.get(code, code)


def stars(value: float) -> str:
    """Says a rating: "1 star", "4.5 stars"."""
    return f"{value:g} star" + ("" if value == 1 else "s")


def runtime(minutes: int) -> str:
    """Says how long a film runs: "45 min", "2 h", "1 h 57 min"."""
    hours, rest = divmod(minutes, 60)
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{rest} min"] if rest or not hours else [])])


def line(movie: Movie) -> str:
    """Says year and genres in a line; empty where neither is known."""
    return " · ".join(filter(None, [str(movie.year or ""), ", ".join(movie.genres)]))


def facts(movie: Movie) -> tuple[tuple[str, str], ...]:
    """Lists what is known of a film, as pairs of name and text."""
    return tuple((name, text) for name, text in _facts(movie) if text)


def _facts(movie: Movie) -> Iterator[tuple[str, str]]:
    yield "Year", str(movie.year or "")
    yield "Released", f"{movie.release_date:%d %B %Y}".lstrip("0") if movie.release_date else ""
    yield "Genres", ", ".join(movie.genres)
    yield "Language", language(movie.language) if movie.language else ""
    yield "Runtime", runtime(movie.runtime_minutes) if movie.runtime_minutes else ""
    yield ("Directed by" if len(movie.directors) < 2 else "Directors"), ", ".join(movie.directors)
    yield "With", ", ".join(movie.cast)
    yield "Rating", _rating(movie)


def _rating(movie: Movie) -> str:
    if movie.mean_rating is None:
        return ""
    return f"{movie.mean_rating:.1f} of 5 stars, {count(movie.rating_count, 'rating')}"


def count(number: int, noun: str) -> str:
    """Says how many of something there are: "1 rating", "1,204 ratings"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def hue(genres: Sequence[str]) -> int:
    """Gives a film's colour, 0 to 359 degrees: that of its most telling genre; the same everywhere, for ever."""
    names = {genre.casefold() for genre in genres}
    known = next((name for name in _HUES if name in names), None)
    if known is not None:
        return _HUES[known]
    return hashlib.sha256(min(names).encode()).digest()[0] * 360 // 256 if names else _NO_GENRE
