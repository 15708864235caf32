"""Makes the Secrets of a first deployment, for `kubectl apply -f -`: `python -m deploy.make_secrets`.

Every run makes other ones. A store's key that is replaced makes all that the store holds unreadable: do not apply them
over those of a store that is in use.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import sys
from collections.abc import Mapping, Sequence

from services.common.callers import line_for, new_key
from services.common.policy import Role

# Who calls in a cluster, and as what; the names are those of the certificates, too.
# The page shows people what they said, and forgets them: both take an admin.
CALLERS: Mapping[str, tuple[Role, ...]] = {"web": (Role.ADMIN,), "operator": (Role.READER,)}
_REDIS = "redis:6379"
_KEY_BYTES = 32


def make_secrets(redis: str) -> list[dict[str, object]]:
    """Makes one Secret each for callers, their keys, the store, and the web page; `redis` is its HOST:PORT."""
    keys = {name: new_key(name) for name in CALLERS}
    lines = [line_for(name, roles, keys[name]) for name, roles in CALLERS.items()]
    lines += [f"{name} {','.join(roles)} certificate" for name, roles in CALLERS.items()]
    password = secrets.token_urlsafe(_KEY_BYTES)
    return [
        _secret("callers", {"callers": "\n".join(lines) + "\n"}),
        _secret("api-keys", keys),
        _secret(
            "store",
            {
                "password": password,
                "url": f"redis://:{password}@{redis}/0",
                "key": secrets.token_bytes(_KEY_BYTES),
            },
        ),
        _secret(
            "web", {"session-key": secrets.token_bytes(_KEY_BYTES), "operator-token": secrets.token_urlsafe(_KEY_BYTES)}
        ),
    ]


def _secret(name: str, values: Mapping[str, str | bytes]) -> dict[str, object]:
    data = {
        key: base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
        for key, value in values.items()
    }
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the Secrets as one list."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.make_secrets",
        description="Makes the Secrets of a first deployment, for kubectl apply -f -.",
    )
    parser.add_argument(
        "--redis", default=_REDIS, metavar="HOST:PORT", help="the Redis (default: %(default)s, of the component redis)"
    )
    items = make_secrets(parser.parse_args(arguments).redis)
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
