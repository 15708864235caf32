"""Settings: a frozen dataclass per service, filled from flags over the environment over defaults.

A field is declared once, with `setting`, and from that come its flag (`--poll-s`), its variable (`MARQUEE_POLL_S`), its
line in `--help` and its check. Wrong values are collected and told in one message, so that one run finds them all.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from marquee.errors import ConfigError

S = TypeVar("S", bound="CommonSettings")

ENVIRONMENT_PREFIX = "MARQUEE_"
CHECK_CONFIG = "--check-config"
# How alike a variable must be to a setting's, from 0 to 1, to be taken for a mistake: one or two letters.
_MISSPELT = 0.85
# Stands for a value that could not be read.
_WRONG = object()
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class _Rule(NamedTuple):
    help: str
    choices: tuple[str, ...]
    low: float
    high: float
    check: Callable[[str], object] | None
    secret: bool
    shown: Callable[[str], str]


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    low: float = -math.inf,
    high: float = math.inf,
    check: Callable[[str], object] | None = None,
    secret: bool = False,
    shown: Callable[[str], str] = str,
) -> Any:
    """Declares a setting: `help` names the unit, `low` and `high` are inclusive.

    `check` gets the text and raises ValueError with what is wrong with it. A `secret` is never logged or
    shown; `shown` writes a text without the part of it that is secret.
    """
    rule = _Rule(help, tuple(choices), low, high, check, secret, shown)
    return dataclasses.field(default=default, metadata={"rule": rule})


def split_address(address: str) -> tuple[str, int]:
    """Splits "host:port" or "[host]:port"; raises ValueError where it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError("must be host:port with a port from 0 to 65535, for example 127.0.0.1:50051")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("must have an IPv6 host in brackets, for example [::]:50051")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Says whether only this machine can reach "host:port"; a name other than localhost may be anything."""
    host, _ = split_address(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def join_address(host: str, port: int) -> str:
    """Writes what `split_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_otlp_endpoint(text: str) -> None:
    wrong = ValueError("must be http://HOST:PORT, or https://HOST:PORT for TLS, for example http://127.0.0.1:4317")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None
    if text and (parts.scheme not in ("http", "https") or not parts.hostname or not port or rest):
        raise wrong


@dataclasses.dataclass(frozen=True, slots=True)
class CommonSettings:
    """Holds what every service can be told. Times are in seconds."""

    listen: str = setting(
        "127.0.0.1:50051", "address to listen on, host:port; port 0 takes a free one", check=split_address
    )
    registry: Path = setting(Path(".marquee/registry"), "folder of the bundle registry")
    poll_s: float = setting(0.5, "seconds between two looks at the registry's pointer", low=0.01)
    reload_delay_s: float = setting(
        0.0, "seconds to wait before a changed pointer is applied; staggers replicas", low=0
    )
    retire_quiet_s: float = setting(30.0, "seconds without a call after which a retired space is dropped", low=0)
    drain_s: float = setting(
        0.5,
        "seconds between saying NOT_SERVING and stopping; in a cluster longer than its endpoints take to notice, "
        "for example 5",
        low=0,
    )
    grace_s: float = setting(10.0, "seconds that running calls get to finish when the server stops", low=0)
    log_level: str = setting("info", "least level to log", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("json", "how to log: json lines or text", choices=("json", "text"))
    reflection: bool = setting(False, "serve gRPC reflection, for grpcurl and the like; under --auth, to admins")
    threads: int = setting(1, "threads that one query or one batch may use", low=1, high=1024)
    port_file: Path | None = setting(None, "file that gets the bound port once the service is SERVING; empty: none")
    health_port: int | None = setting(
        None,
        "port for the health alone, always plaintext, on the host of --listen, for probes that speak no TLS; 0 takes a "
        "free one; empty: none",
        low=0,
        high=65_535,
    )
    metrics_port: int | None = setting(
        None,
        "port for Prometheus, plaintext HTTP, on the host of --listen; 0 takes a free one; empty: none",
        low=0,
        high=65_535,
    )
    otlp_endpoint: str = setting(
        "",
        "OpenTelemetry collector that gets traces, by OTLP over gRPC: http://HOST:4317, or https:// for TLS; needs the "
        "extra tracing; empty: no traces",
        check=_check_otlp_endpoint,
    )
    trace_share: float = setting(
        1.0, "share of the calls that are traced, of those whose caller has not decided it; 1: all", low=0, high=1
    )
    max_deadline_s: float = setting(
        30.0, "seconds that a call may take; one with a longer deadline, or with none, gets this one", low=0.001
    )
    interactive_calls: int = setting(256, "interactive calls that run at the same time; more wait", low=1)
    batch_calls: int = setting(
        4,
        "batch calls (BatchEncode, BatchSearch, ExportEvents and the like) that run at the same time; more wait",
        low=1,
    )
    waiting_calls: int = setting(
        64,
        "calls of one method that may wait to begin, and of one class that may wait for a place; more are turned away, "
        "and above half of it some",
        low=2,
        high=100_000,
    )
    max_streams: int = setting(32, "calls at a time on one connection; more wait in the client", low=1, high=1_000_000)
    connection_age_s: float = setting(
        300.0,
        "seconds after which a connection is ended, give or take 10 %, so that clients find new replicas",
        low=1,
        high=1_000_000,
    )
    served_sample: float = setting(
        0.0,
        "share of the requests, by a hash of their ids, whose lists are compared and written to --served-folder; the "
        "same for both services; 0: none, 1: all",
        low=0,
        high=1,
    )
    served_folder: Path | None = setting(None, "folder that gets what is sampled, as JSON lines; empty: none")
    served_days: float = setting(7.0, "days after which what was sampled is removed", low=0.01, high=3650)
    served_mb: int = setting(
        256,
        "MiB that --served-folder may hold of each service's samples, and one shard more; the oldest go",
        low=1,
        high=1_048_576,
    )
    auth: str = setting(
        "anonymous",
        "who may call: anonymous, everybody on this machine, and no other machine can; keys, who has a key; mtls, who "
        "has a client certificate",
        choices=("anonymous", "keys", "mtls"),
    )
    callers: Path | None = setting(
        None,
        "file of who may call, as what, and with which key or certificate; read again within a second of a change. "
        "python -m services.common.keys new makes a key and its line",
    )
    tls_cert: Path | None = setting(
        None, "PEM file of the server's certificate and its chain; read again when it is renewed; empty: no TLS"
    )
    tls_key: Path | None = setting(None, "PEM file of the certificate's key, without a password")
    tls_client_ca: Path | None = setting(
        None, "PEM file of the authorities whose client certificates are asked for; empty: none is asked for"
    )

    def problems(self) -> list[str]:
        """Lists what is wrong with several settings together; a service adds its own."""
        return [*_tls_problems(self), *_auth_problems(self), *_served_problems(self), *_trace_problems(self)]


def _tls_problems(settings: CommonSettings) -> Iterator[str]:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        yield "--tls-cert and --tls-key belong together: give both, or neither"
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        yield "--tls-client-ca needs TLS: give --tls-cert and --tls-key as well"
    if settings.auth == "mtls" and settings.tls_client_ca is None:
        yield "--auth mtls knows callers by their certificates: give --tls-client-ca, the authorities that sign them"


def _auth_problems(settings: CommonSettings) -> Iterator[str]:
    if settings.auth != "anonymous":
        if settings.callers is None:
            yield (
                f"--auth {settings.auth} needs --callers, the file of who may call; make a key and its line with: "
                "python -m services.common.keys new"
            )
        return
    if settings.callers is not None:
        yield "--callers counts for nothing with --auth anonymous: add --auth keys or --auth mtls, or leave it away"
    if not is_loopback(settings.listen):
        yield (
            f"--listen {settings.listen} can be reached from other machines, and --auth anonymous lets everybody call: "
            "listen on 127.0.0.1, or give --auth keys or --auth mtls with --callers FILE"
        )


def _trace_problems(settings: CommonSettings) -> Iterator[str]:
    if settings.trace_share != 1 and not settings.otlp_endpoint:
        yield "--trace-share counts for nothing: give --otlp-endpoint as well, or leave it away"


def _served_problems(settings: CommonSettings) -> Iterator[str]:
    if settings.served_folder is not None and settings.served_sample == 0:
        yield "--served-folder gets nothing: give --served-sample as well, such as 0.01, or leave the folder away"


def load_settings(cls: type[S], arguments: Sequence[str], environ: Mapping[str, str]) -> S:
    """Reads settings; raises one ConfigError that lists everything that is wrong."""
    problems: list[str] = []
    texts = _from_environment(cls, environ, problems) | _from_arguments(cls, arguments, problems)
    values = {name: _value(cls, name, text, source, problems) for name, (text, source) in texts.items()}
    settings = cls(**{name: value for name, value in values.items() if value is not _WRONG})
    problems += _contradictions(settings, problems)
    if problems:
        raise ConfigError("; ".join(problems) + " (--help lists all settings)")
    return settings


def _contradictions(settings: CommonSettings, problems: Sequence[str]) -> list[str]:
    """Lists what is wrong with several settings together, but for those that are wrong by themselves.

    What one of these was to be is not known, so that what it contradicts is not, either.
    """
    told = _words(" ".join(problems))
    names = (field.name for field in dataclasses.fields(settings))
    wrong = {_flag(name) for name in names if not told.isdisjoint((_flag(name), _variable(name)))}
    return [problem for problem in settings.problems() if wrong.isdisjoint(_words(problem))]


def _words(text: str) -> set[str]:
    # Whole ones: --store is not meant by --store-timeout-s.
    return set(re.findall(r"[\w-]+", text))


def help_text(cls: type[CommonSettings], program: str, summary: str) -> str:
    """Writes what `--help` prints: every setting with its flag, variable, default and unit."""
    lines = [f"usage: {program} [--setting value ...]", "", summary, "", "Flags win over the environment.", ""]
    for field in dataclasses.fields(cls):
        rule = _rule(field)
        lines.append(f"  {_flag(field.name)}  {_variable(field.name)}")
        choices = f"; one of {', '.join(rule.choices)}" if rule.choices else ""
        text = f"{rule.help}{choices} (default: {_shown_default(field)})"
        lines += textwrap.wrap(text, 108, initial_indent="      ", subsequent_indent="      ")
    lines += [
        f"  {CHECK_CONFIG}",
        "      print the effective settings as JSON, or all that is wrong with them, and end",
    ]
    return "\n".join([*lines, "  --help", "      print this", ""])


def effective(settings: CommonSettings) -> dict[str, object]:
    """Lists the settings as they may be logged: secrets are starred."""
    return {field.name: _loggable(field, getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _loggable(field: dataclasses.Field[Any], value: object) -> object:
    if _rule(field).secret and value:
        return "***"
    return _rule(field).shown(str(value)) if isinstance(value, (str, Path)) else value


def _shown_default(field: dataclasses.Field[Any]) -> object:
    if field.default is None or field.default == "":
        return "none"
    return str(field.default).lower() if isinstance(field.default, bool) else _loggable(field, field.default)


def _rule(field: dataclasses.Field[Any]) -> _Rule:
    rule: _Rule = field.metadata["rule"]
    return rule


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _from_environment(
    cls: type[CommonSettings], environ: Mapping[str, str], problems: list[str]
) -> dict[str, tuple[str, str]]:
    names = {field.name: _variable(field.name) for field in dataclasses.fields(cls)}
    problems += _misspelt(environ.keys() - set(names.values()), names)
    return {name: (environ[variable], variable) for name, variable in names.items() if variable in environ}


def _misspelt(variables: Iterable[str], names: Mapping[str, str]) -> Iterator[str]:
    """Words a problem for each variable that is almost a setting's; others may be other programs'."""
    for variable in sorted(one for one in variables if one.startswith(ENVIRONMENT_PREFIX)):
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        for nearest in difflib.get_close_matches(name, names, n=1, cutoff=_MISSPELT):
            yield f"{variable} is not a setting; did you mean {names[nearest]}?"


def _from_arguments(
    cls: type[CommonSettings], arguments: Sequence[str], problems: list[str]
) -> dict[str, tuple[str, str]]:
    names = {_flag(field.name): field.name for field in dataclasses.fields(cls)}
    switches = {_flag(name) for name, kind in _kinds(cls).items() if kind is bool}
    found: dict[str, tuple[str, str]] = {}
    rest = list(arguments)
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        if flag not in names:
            problems.append(_unknown(flag, names))
            # The word after an unknown flag is most likely its value: one mistake, one problem.
            if rest and not equals and not rest[0].startswith("--"):
                rest.pop(0)
        elif equals:
            found[names[flag]] = (text, flag)
        elif flag in switches and not (rest and rest[0].lower() in (*_YES, *_NO)):
            found[names[flag]] = ("true", flag)
        elif rest and not rest[0].startswith("--"):
            found[names[flag]] = (rest.pop(0), flag)
        else:
            problems.append(f"{flag} needs a value")
    return found


def _unknown(flag: str, names: Mapping[str, str]) -> str:
    nearest = difflib.get_close_matches(flag, names, n=1, cutoff=0.0)
    return f"{flag} is not a setting; did you mean {nearest[0]}?"


def _kinds(cls: type[CommonSettings]) -> dict[str, type]:
    return {name: _plain(hint) for name, hint in typing.get_type_hints(cls).items()}


def _plain(hint: Any) -> type:
    # `Path | None` is read as a Path, empty text as None.
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    plain: type = kinds[0] if kinds else hint
    return plain


def _value(cls: type[CommonSettings], name: str, text: str, source: str, problems: list[str]) -> Any:
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    rule = _rule(field)
    if text == "" and field.default is None:
        return None
    try:
        value = _parse(_kinds(cls)[name], text)
        _check(rule, text, value)
    except ValueError as error:
        shown = "its value" if rule.secret else repr(rule.shown(text))
        problems.append(f"{source}: {shown} {error}")
        return _WRONG
    return value


def _parse(kind: type, text: str) -> Any:
    if kind is bool:
        return _parse_switch(text)
    if kind is Path:
        return _parse_path(text)
    if kind in (int, float):
        return _parse_number(kind, text)
    return text


def _parse_switch(text: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise ValueError("must be true or false")
    return text.lower() in _YES


def _parse_path(text: str) -> Path:
    if not text:
        raise ValueError("must be a path")
    return Path(text).expanduser()


def _parse_number(kind: type, text: str) -> float:
    try:
        value: float = kind(text)
    except ValueError:
        raise ValueError("must be a whole number" if kind is int else "must be a number") from None
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _check(rule: _Rule, text: str, value: Any) -> None:
    if rule.choices and value not in rule.choices:
        raise ValueError(f"must be one of {', '.join(rule.choices)}")
    if isinstance(value, (int, float)) and not rule.low <= value <= rule.high:
        bound = f"at least {rule.low:g}" if value < rule.low else f"at most {rule.high:g}"
        raise ValueError(f"must be {bound}")
    if rule.check is not None:
        rule.check(text)
