"""What the demo shows once the services run: a known person, a new one, and a list that moves."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marquee.client import Event, EventKind, Movie, Recommendations, Recommender
from marquee.errors import InvalidRequest, UserUnknown

# Films that most collections have, for somebody who was never in the data.
_FAVOURITES = (
    "Alien (1979)",
    "Blade Runner (1982)",
    "The Matrix (1999)",
    "The Terminator (1984)",
    "Back to the Future (1985)",
)
_ANOTHER_TASTE = ("Toy Story (1995)", "The Lion King (1994)", "Finding Nemo (2003)", "Spirited Away (2001)")
_MOST_HISTORY = 6
_MOST_ASKED = 100


def tell(marquee: Recommender, known_users: Iterable[str], console: Console) -> None:
    """Tells the whole story; the known person is the first of `known_users` that the store has events of."""
    user = next((user for user in itertools.islice(known_users, _MOST_ASKED) if _has_history(marquee, user)), None)
    if user is None:
        console.print("The store knows nobody of the data: the known person is left out.")
    else:
        _known_person(marquee, user, console)
    likes = _find(marquee, _FAVOURITES)
    before = _new_person(marquee, likes, console)
    _list_moves(marquee, likes, before, console)


def _has_history(marquee: Recommender, user: str) -> bool:
    try:
        return next(marquee.history(user), None) is not None
    except (UserUnknown, InvalidRequest):
        # The import skipped an id that no request may carry.
        return False


def _known_person(marquee: Recommender, user: str, console: Console) -> None:
    console.rule(f"[bold]Person {escape(user)}, known from the data")
    history = sorted(marquee.history(user), key=lambda event: (event.stars or 0, event.movie_id), reverse=True)
    loved = marquee.movies([event.movie_id for event in history[:_MOST_HISTORY]])
    console.print(f"{len(history)} events; loved {_titles([movie for movie in loved if movie])}", highlight=False)
    _show(console, marquee.recommend(user, k=10), "Recommended, nothing seen before among it")


def _new_person(marquee: Recommender, likes: Sequence[Movie], console: Console) -> Recommendations:
    console.rule("[bold]A person who was never in the data")
    console.print(f"likes {_titles(likes) or 'nothing: the catalogue is empty'}", highlight=False)
    found = marquee.recommend(likes=[movie.movie_id for movie in likes], k=10)
    _show(console, found, f"Recommended from {found.events_used} events in the request")
    return found


def _list_moves(marquee: Recommender, likes: Sequence[Movie], before: Recommendations, console: Console) -> None:
    user = f"demo-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S-%f}"
    console.rule("[bold]The same person signs up, and the list follows")
    liked = _another(marquee, likes, before)
    if liked is None:
        console.print("No film is left to like: the list cannot move.")
        return
    now = dt.datetime.now(dt.UTC)
    marquee.record(user, [Event(movie.movie_id, EventKind.LIKED, time=now) for movie in likes])
    marquee.like(user, liked.movie_id)
    after_like = marquee.recommend(user, k=10)
    _show(console, after_like, f"After liking {liked}", before)
    if not after_like.items:
        console.print("No film is left to dislike.")
        return
    disliked = after_like.items[0].movie
    marquee.dislike(user, disliked.movie_id)
    _show(console, marquee.recommend(user, k=10), f"After disliking {disliked}", after_like)


def _another(marquee: Recommender, likes: Sequence[Movie], before: Recommendations) -> Movie | None:
    liked = {movie.movie_id for movie in likes}
    candidates = [*_find(marquee, _ANOTHER_TASTE), *(item.movie for item in before)]
    return next((movie for movie in candidates if movie.movie_id not in liked), None)


def _find(marquee: Recommender, titles: Sequence[str]) -> list[Movie]:
    found = (movie for title in titles for movie in marquee.search(title, limit=1))
    movies = list({movie.movie_id: movie for movie in found}.values())
    if len(movies) >= 2:
        return movies
    # A catalogue without the classics: whatever people without a history are shown.
    return [item.movie for item in marquee.recommend(k=len(titles))]


def _titles(movies: Sequence[Movie]) -> str:
    return ", ".join(escape(str(movie)) for movie in movies)


def _show(console: Console, found: Recommendations, title: str, before: Recommendations | None = None) -> None:
    console.print(_table(found, title, before))
    if not found.items:
        console.print("Nothing is left to recommend: every film here has been seen.")


def _table(found: Recommendations, title: str, before: Recommendations | None) -> Table:
    table = Table(title=escape(title), title_justify="left", caption_justify="left", box=SIMPLE)
    table.add_column("", justify="right")
    table.add_column("title")
    table.add_column("year")
    table.add_column("genres")
    table.add_column("score", justify="right")
    if before is not None:
        table.add_column("was", justify="right")
    places = {item.movie.movie_id: item.rank for item in before} if before is not None else {}
    for item in found:
        row = [str(item.rank), escape(item.movie.title), str(item.movie.year or ""), ", ".join(item.movie.genres)]
        was = [str(places.get(item.movie.movie_id, "new"))] if before is not None else []
        table.add_row(*row, f"{item.score:.3f}", *was)
    if before is not None:
        gone = [item for item in before if item.movie not in {other.movie for other in found}]
        table.caption = f"{len(gone)} of {len(before)} left the list"
    return table
