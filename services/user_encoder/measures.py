"""What calls of the encoder say of themselves, beside what calls of every service do."""

from __future__ import annotations

from services.common.measures import Kinds, Sizes

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0

SOURCES = Kinds("answers", "People who were encoded, by what of.", "source")
NEWEST_EVENT_AGE = Sizes(
    "newest_event_age_seconds",
    "How long before the moment of the answer a person's newest event was.",
    (_MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY, 90 * _DAY, 365 * _DAY, 1825 * _DAY),
)
REMEMBERED_AGE = Sizes(
    "remembered_age_seconds",
    "How long ago a history had been read that was answered from memory.",
    (1.0, 5.0, 10.0, 30.0, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE, _HOUR),
)
TOGETHER = Sizes("encoded_together", "Calls of Encode that went through the tower as one.", (1, 2, 4, 8, 16, 32))

MEASURES = (SOURCES, NEWEST_EVENT_AGE, REMEMBERED_AGE, TOGETHER)
