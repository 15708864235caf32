"""What Redis's refusals mean, and what to do about them."""

from __future__ import annotations

from redis.exceptions import AuthenticationError, NoPermissionError, TimeoutError

# How a refusal starts, of a command or within a script's error, and what it means.
_REFUSALS = {
    "maxmemory": "is full, and nothing was recorded; give it more memory (maxmemory), or delete what is not needed",
    "READONLY": "is a read-only replica, and nothing was recorded; name its primary in MARQUEE_STORE",
    "MISCONF": "cannot write its files, and so takes no writes; see its log and its disk",
    "NOREPLICAS": "has too few replicas to take writes (min-replicas-to-write); bring them back",
    "CLUSTERDOWN": "has no node for some slots; it can be used again when its Cluster is whole",
    "LOADING": "is loading its files after a start; send the call again in a moment",
    "MOVED": "is a Cluster; write redis+cluster:// in MARQUEE_STORE",
    "cluster support disabled": "is no Cluster; write redis:// in MARQUEE_STORE",
    "TRYAGAIN": "is moving some slots to another node; send the call again in a moment",
}


def what_to_do(error: Exception) -> str:
    """Says what an error of the client means and what to do about it; never what was sent."""
    text = str(error)
    for word, meaning in _REFUSALS.items():
        if word in text or word in type(error).__name__.upper():
            return meaning
    if isinstance(error, (AuthenticationError, NoPermissionError)) or "NOAUTH" in text:
        return "refuses the user or the password; see MARQUEE_STORE, and the user's rights (ACL)"
    if isinstance(error, TimeoutError):
        return "did not answer in time; see that it runs, can be reached and is not overloaded"
    return f"cannot be used ({text[:200]}); see that it runs and can be reached"
