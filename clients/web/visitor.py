"""What a request says about who sent it and what they want."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from clients.presenter import Choice, choice_from
from clients.web.sessions import Keys, new_session

SESSION: Final = "marquee_session"
TOLD: Final = "marquee_told"
_FIELDS: Final = 200
# A path of this site: "//host" and "/\host" would lead to another.
_OWN_PATH = re.compile(r"/(?![/\\])[^\\\s]*", re.ASCII)
# As many digits as the largest id has; Python refuses to read some thousands.
_NUMBER = re.compile(r"\d{1,19}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Visitor:
    """Is a person as their browser is known. `told` is what their last click led to, to be read once."""

    user_id: str
    token: str
    is_new: bool
    told: str


def visitor_of(request: Request, keys: Keys) -> Visitor:
    """Reads who sent a request; somebody without a session, or with one that is not ours, is new."""
    signed = request.cookies.get(SESSION, "")
    known = keys.read("session", signed)
    user_id = known or new_session()
    told = keys.read("told", unquote(request.cookies.get(TOLD, ""))) or ""
    return Visitor(user_id, keys.token(user_id), known is None, told)


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """Is the fields of a query or of a form, in their order."""

    fields: tuple[tuple[str, str], ...]

    def text(self, name: str) -> str:
        """Reads a field's last value; empty where there is none."""
        return next((value for key, value in reversed(self.fields) if key == name), "")

    def texts(self, name: str) -> Sequence[str]:
        """Reads all values of a field."""
        return [value for key, value in self.fields if key == name]

    def choice(self) -> Choice:
        """Reads what to filter by; raises InvalidRequest."""
        return choice_from(self.texts("genre"), self.text("from"), self.text("to"), self.texts("language"))

    def numbers(self, name: str) -> list[int]:
        """Reads ids that stand in one field, with commas between them; what is none is left out."""
        return [int(text) for text in self.text(name).split(",") if _NUMBER.fullmatch(text)]

    def stars(self) -> float:
        """Reads a rating; 0, which is none, where it is no number."""
        text = self.text("stars")
        return float(text) if re.fullmatch(r"\d(\.\d)?", text, re.ASCII) else 0.0

    def back(self) -> str:
        """Reads the path to go back to; the first page where it is none of this site's."""
        path = self.text("back")
        return path if _OWN_PATH.fullmatch(path) else "/"


def form_of(text: str) -> Form:
    """Reads an encoded form; what is after the 200th field is left out."""
    pairs = parse_qsl(text, keep_blank_values=True, separator="&", errors="replace")
    return Form(tuple(pairs[:_FIELDS]))


def film_of(request: Request) -> int:
    """Reads which film a path names; raises HTTPException where it names none."""
    text: str = request.path_params["movie_id"]
    if not _NUMBER.fullmatch(text):
        raise HTTPException(404)
    return int(text)


async def posted(request: Request) -> Form:
    """Reads the form in a request's body."""
    return form_of((await request.body()).decode("ascii", "replace"))


def query_of(path: str) -> Form:
    """Reads the query of a path."""
    return form_of(urlsplit(path).query)


def path_of(choice: Choice) -> str:
    """Writes the path of the first page with these filters."""
    pairs = [("genre", genre) for genre in choice.genres]
    pairs += [("from", str(choice.year_min))] if choice.year_min is not None else []
    pairs += [("to", str(choice.year_max))] if choice.year_max is not None else []
    pairs += [("language", language) for language in choice.languages]
    return f"/?{urlencode(pairs)}" if pairs else "/"
