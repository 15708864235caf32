"""Drops the collections of bundles that are gone: `python -m services.retriever drop-collections`.

A collection stays while the registry may still go to its bundle, while a replica has that loaded, and while it may be
being filled.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from marquee.bundle.registry import KEEP, Registry
from marquee.errors import ConfigError, MarqueeError, Unavailable
from marquee.v1 import retriever_pb2, retriever_pb2_grpc
from services.common.server import EXIT_CONFIG
from services.common.settings import load_settings, split_address
from services.retriever.milvus import connect, told
from services.retriever.milvus_filling import alias_of, aliases_of, fill_of
from services.retriever.settings import RetrieverSettings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

NAME = "drop-collections"
_PROGRAM = f"python -m services.retriever {NAME}"
_ABOUT = (
    "Drops the collections of bundles that neither the registry's pointer nor its last changes name and no replica has "
    "loaded, and what fills that were ended left behind. Which Milvus and registry it is, it reads as the service does."
)
# What is younger may be being filled, for a bundle that this copy of the registry does not have yet.
YOUNG_S = 3600.0
_REPLICA_TIMEOUT_S = 5.0
_MILVUS_TIMEOUT_S = 60.0
_SETTINGS = ("registry", "milvus_uri", "milvus_token", "milvus_ca")


def run(arguments: Sequence[str]) -> int:
    """Runs the command; returns 0, 1 where nothing or not all was dropped, or 2 where a setting is wrong."""
    options = _parser().parse_args(arguments)
    try:
        dropped = _run(options)
    except MarqueeError as error:
        print(f"{_PROGRAM}: {error.message}", file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1
    print(f"{'would drop' if options.dry_run else 'dropped'} {len(dropped)} collections", *dropped, sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=_ABOUT)
    for name in _SETTINGS:
        # No flag for a secret: command lines can be read by others.
        if name != "milvus_token":
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"MARQUEE_{name.upper()}")
    parser.add_argument(
        "--replica",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a retriever that uses this Milvus; a name stands for all addresses that it has; repeatable: name all",
    )
    parser.add_argument(
        "--keep",
        type=int,
        default=KEEP,
        metavar="N",
        help=f"changes of the registry to keep the collections of (default: {KEEP})",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be dropped")
    return parser


def _run(options: argparse.Namespace) -> list[str]:
    settings = _settings(options)
    if not options.replica:
        raise ConfigError("--replica: name every retriever that uses this Milvus, so that what they serve stays")
    pointer = Registry(settings.registry).read()
    changes = pointer.history[-options.keep :] if options.keep > 0 else ()
    kept = {pointer.active, pointer.standby, *(id for one in changes for id in (one.active, one.standby))}
    for replica in options.replica:
        kept |= _loaded_by(replica)
    return _in_milvus(settings, kept, options.dry_run)


def _settings(options: argparse.Namespace) -> RetrieverSettings:
    """Reads which registry and which Milvus it is, and none of the other settings."""
    named = {name: getattr(options, name, None) for name in _SETTINGS}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in named.items() if value is not None]
    variables = {f"MARQUEE_{name.upper()}" for name in _SETTINGS} & os.environ.keys()
    settings = load_settings(RetrieverSettings, flags, {name: os.environ[name] for name in variables})
    if not settings.milvus_uri:
        raise ConfigError("--milvus-uri: is not set; name the Milvus whose collections are to be dropped")
    return settings


def _loaded_by(replica: str) -> set[str]:
    """Asks a retriever, at every address that its name has, which bundles it has loaded."""
    try:
        host, port = split_address(replica)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (ValueError, OSError) as error:
        raise ConfigError(f"--replica: {replica!r} is no address ({error}); write HOST:PORT") from error
    return {bundle_id for _, _, _, _, (host, port, *_) in set(found) for bundle_id in _loaded_at(str(host), int(port))}


def _loaded_at(host: str, port: int) -> list[str]:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(address) as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        try:
            answer = stub.GetIndex(retriever_pb2.GetIndexRequest(), timeout=_REPLICA_TIMEOUT_S)
        except grpc.RpcError as error:
            raise Unavailable(
                f"nothing was dropped: {address} does not say what it has loaded ({error.code().name}: "
                f"{error.details()}); see that it runs, or leave it out if it is gone"
            ) from error
    return [one.bundle_id for one in answer.state.bundles]


def _in_milvus(settings: RetrieverSettings, kept: set[str], dry_run: bool) -> list[str]:
    from pymilvus import MilvusException

    try:
        client = connect(settings)
        doomed = _doomed(client, kept)
        for name in [] if dry_run else doomed:
            _drop(client, name)
    except (MilvusException, grpc.RpcError) as error:
        raise Unavailable(
            f"Milvus at {settings.milvus_uri}: {told(error)}; see that it runs, and run this again: that is safe"
        ) from error
    return doomed


def _doomed(client: MilvusClient, kept: set[str]) -> list[str]:
    """Lists the collections of bundles that are not kept, and what nobody finished of those that are."""
    old_ms = (time.time() - YOUNG_S) * 1000
    names = sorted(client.list_collections(timeout=_MILVUS_TIMEOUT_S))
    ours = {name: fill for name in names if (fill := fill_of(name)) is not None}
    pointed = {name for name, fill in ours.items() if alias_of(fill.bundle_id) in aliases_of(client, name)}
    finished = {ours[name].bundle_id for name in pointed}
    return [
        name
        for name, fill in ours.items()
        if fill.begun_ms < old_ms
        and (fill.bundle_id not in kept or (fill.bundle_id in finished and name not in pointed))
    ]


def _drop(client: MilvusClient, name: str) -> None:
    # Milvus drops none that an alias points to.
    for alias in aliases_of(client, name):
        client.drop_alias(alias, timeout=_MILVUS_TIMEOUT_S)
    client.drop_collection(name, timeout=_MILVUS_TIMEOUT_S)
