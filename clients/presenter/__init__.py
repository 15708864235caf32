"""What a person sees and does, without a window or a page: the desktop and the web client show these views.

    presenter = Presenter(AsyncRecommender(encoder, retriever))
    home = await presenter.home(user_id, Choice(genres=("Comedy",)))
    told = await presenter.like(user_id, home.cards[0].movie.movie_id)

Every view is frozen and complete: texts are ready to be shown, and what went wrong is a `Notice` in it, never an
exception. `Stage` runs a presenter for a program that has no event loop of its own.
"""

from clients.presenter.choice import Choice, choice_from
from clients.presenter.presenter import Presenter
from clients.presenter.stage import Stage
from clients.presenter.views import (
    Card,
    Changes,
    Film,
    Found,
    History,
    Home,
    Mood,
    Notice,
    Offer,
    Opinion,
    Option,
    Reason,
    Said,
    Shelf,
    Told,
    Verdict,
    changes,
)

__all__ = [
    "Card",
    "Changes",
    "Choice",
    "Film",
    "Found",
    "History",
    "Home",
    "Mood",
    "Notice",
    "Offer",
    "Opinion",
    "Option",
    "Presenter",
    "Reason",
    "Said",
    "Shelf",
    "Stage",
    "Told",
    "Verdict",
    "changes",
    "choice_from",
]
