"""Arms of an experiment: the same person always in the same one, without a table of who is where."""

from __future__ import annotations

import hashlib

from marquee.errors import InvalidRequest


def arm(user_id: str, salt: str, arms: int = 2) -> int:
    """Says in which arm of an experiment a person is: 0 to `arms` - 1, in equal shares.

    `salt` names the experiment: people are in unrelated arms of two of them. The same in every process, version and
    language: with h the first 8 bytes of SHA-256(salt in UTF-8, one zero byte, user id in UTF-8) as an unsigned
    big-endian number, the arm is floor(h x arms / 2^64). For unequal shares ask for 100 arms and compare:
    `arm(user_id, "bigger-posters", 100) < 5` is one person in 20. Raises InvalidRequest for fewer arms than 1.
    """
    if arms < 1:
        raise InvalidRequest(f"arms is {arms}; give at least 1", field="arms")
    digest = hashlib.sha256(f"{salt}\0{user_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * arms >> 64
