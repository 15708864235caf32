"""Arms of experiments are the same everywhere, and in equal shares."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from marquee.client import InvalidRequest, arm


def test_an_arm_is_what_the_docstring_defines() -> None:
    digest = hashlib.sha256(b"posters\x0042").digest()
    assert arm("42", "posters", 7) == int.from_bytes(digest[:8], "big") * 7 // 2**64


def test_arms_never_change() -> None:
    assert [arm(str(user), "posters") for user in range(12)] == [0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0]
    assert arm("Аня 🎬", "posters", 100) == 91


def test_shares_are_equal_and_experiments_unrelated() -> None:
    users = [str(number) for number in range(20_000)]
    counted = Counter((arm(user, "one"), arm(user, "other")) for user in users)
    assert len(counted) == 4
    # Four standard deviations of a binomial share of 1/4.
    assert all(abs(count - 5_000) < 4 * (20_000 * 0.25 * 0.75) ** 0.5 for count in counted.values())


@pytest.mark.parametrize("arms", [0, -1])
def test_fewer_arms_than_one_are_refused(arms: int) -> None:
    with pytest.raises(InvalidRequest, match="give at least 1") as caught:
        arm("42", "posters", arms)
    assert caught.value.field == "arms"
