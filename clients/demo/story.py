"""What the demo shows once the services run: a known person, a new one, and a list that moves."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marquee.client import Event, EventKind, Movie, Recommendations, Recommender

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


def tell(marquee: Recommender, known_user: str, console: Console) -> None:
    """Tells the whole story."""
    _known_person(marquee, known_user, console)
    likes = _find(marquee, _FAVOURITES)
    before = _new_person(marquee, likes, console)
    _list_moves(marquee, likes, before, console)


def _known_person(marquee: Recommender, user: str, console: Console) -> None:
    console.rule(f"[bold]Person {escape(user)}, known from the data")
    history = sorted(marquee.history(user), key=lambda event: (event.stars or 0, event.movie_id), reverse=True)
    loved = marquee.movies([event.movie_id for event in history[:_MOST_HISTORY]])
    console.print(f"{len(history)} events; loved {_titles([movie for movie in loved if movie])}", highlight=False)
    console.print(_table(marquee.recommend(user, k=10), "Recommended, nothing seen before among it"))


def _new_person(marquee: Recommender, likes: Sequence[Movie], console: Console) -> Recommendations:
    console.rule("[bold]A person who was never in the data")
    console.print(f"likes {_titles(likes)}", highlight=False)
    found = marquee.recommend(likes=[movie.movie_id for movie in likes], k=10)
    console.print(_table(found, f"Recommended from {found.events_used} events in the request"))
    return found


def _list_moves(marquee: Recommender, likes: Sequence[Movie], before: Recommendations, console: Console) -> None:
    user = f"demo-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S-%f}"
    console.rule("[bold]The same person signs up, and the list follows")
    now = dt.datetime.now(dt.UTC)
    marquee.record(user, [Event(movie.movie_id, EventKind.LIKED, time=now) for movie in likes])
    liked = next(movie for movie in _find(marquee, _ANOTHER_TASTE) if movie not in likes)
    marquee.like(user, liked.movie_id)
    after_like = marquee.recommend(user, k=10)
    console.print(_table(after_like, f"After liking {liked}", before, liked))
    disliked = after_like.items[0].movie
    marquee.dislike(user, disliked.movie_id)
    after_dislike = marquee.recommend(user, k=10)
    console.print(_table(after_dislike, f"After disliking {disliked}", after_like, disliked))


def _find(marquee: Recommender, titles: Sequence[str]) -> list[Movie]:
    found = [marquee.search(title, limit=1) for title in titles]
    movies = list({movies[0].movie_id: movies[0] for movies in found if movies}.values())
    if len(movies) >= 2:
        return movies
    # A catalogue without the classics: whatever people without a history are shown.
    return [item.movie for item in marquee.recommend(k=len(titles))]


def _titles(movies: Sequence[Movie]) -> str:
    return ", ".join(escape(str(movie)) for movie in movies)


def _table(
    found: Recommendations, title: str, before: Recommendations | None = None, about: Movie | None = None
) -> Table:
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
    if before is not None and about is not None:
        gone = [item for item in before if item.movie not in {other.movie for other in found}]
        table.caption = f"{len(gone)} of {len(before)} left the list"
    return table
