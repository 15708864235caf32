"""Who is calling, and whether they may: the guard of a service's chain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio

from marquee.errors import ConfigError, PermissionDenied, Unauthenticated
from services.common.callers import Caller, Callers, parse_callers
from services.common.interceptors import metadata_of_call
from services.common.policy import role_for
from services.common.settings import CommonSettings
from services.common.watched import Watched

# Quoted: only the stubs know it as generic.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

ANONYMOUS, KEYS, MTLS = "anonymous", "keys", "mtls"
_HEADER = "authorization"


class Auth:
    """Lets in whom the file of callers names: `mode` says whether a key or a client certificate tells who it is.

    Raises ConfigError where the file cannot be used. It is read again when it changes.
    """

    def __init__(self, mode: str, path: Path) -> None:
        self._identify = {KEYS: _by_key, MTLS: _by_certificate}[mode]
        self._callers = Watched({"--callers": path}, partial(parse_callers, path), _describe)

    async def watch(self) -> None:
        """Follows the file until cancelled."""
        await self._callers.watch()

    def guard(self, method: str) -> Callable[[Context], None]:
        """Returns what raises Unauthenticated or PermissionDenied where a caller may not call the method."""
        needed = role_for(method)

        def check(context: Context) -> None:
            caller = self._identify(self._callers.value, context)
            if not caller.may(needed):
                raise PermissionDenied(
                    f"{caller.name} may not call {method}: it has the role {', '.join(sorted(caller.roles))}, and the "
                    f"call needs {needed or 'one that nobody has'}; ask whoever runs the service"
                )

        return check


def auth_of(settings: CommonSettings) -> Auth | None:
    """Makes what the settings ask for; None lets everybody in."""
    if settings.auth == ANONYMOUS:
        return None
    if settings.callers is None:
        raise ConfigError(f"--auth {settings.auth} needs --callers, the file of who may call")
    return Auth(settings.auth, settings.callers)


def _describe(callers: Callers) -> str:
    return f"lets {len(callers)} callers in"


def _by_key(callers: Callers, context: Context) -> Caller:
    told = next((value for name, value in metadata_of_call() if name == _HEADER), "")
    scheme, _, key = str(told).partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("the call has no key; send it as the metadata `authorization: Bearer KEY`")
    caller = callers.by_key(key)
    if caller is None:
        raise Unauthenticated("the key is not known here; it is mistyped, for another service, or no longer valid")
    return caller


def _by_certificate(callers: Callers, context: Context) -> Caller:
    # All alternative names of the certificate or, where it has none, its common name.
    names = [name.decode(errors="replace") for name in context.peer_identities() or ()]
    caller = callers.by_names(names)
    if caller is None:
        raise Unauthenticated("none of the client certificate's names is known here; use the certificate of a caller")
    return caller
