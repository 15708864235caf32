"""What calls of the retriever say of themselves, beside what calls of every service do."""

from __future__ import annotations

from services.common.measures import Kinds, Sizes

LISTS = Kinds("lists", "Lists that were found, by why they are short; none: they are not.", "short_reason")
SEARCHES = Kinds("index_searches", "Searches of the index, by what found the movies.", "path")
MATCHING = Sizes(
    "filter_matching_ratio",
    "Share of the movies that a list with a filter was chosen from.",
    (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
)
DETAILS = Kinds("details", "Movies whose details went into a list, by where they were: memory or catalogue.", "where")

MEASURES = (LISTS, SEARCHES, MATCHING, DETAILS)
