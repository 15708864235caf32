"""Drops the collections of bundles that are gone: `python -m services.retriever drop-collections`.

A collection stays while a replica has its bundle loaded, while the registry may still go back to that, and while it may
be being filled.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from marquee.bundle.registry import KEEP, Registry
from marquee.bundle.replicas import TIMEOUT_S, Access, addresses, open_channel
from marquee.client.tls_flags import add_tls_flags, tls_of
from marquee.errors import ConfigError, MarqueeError, Unavailable
from marquee.v1 import retriever_pb2, retriever_pb2_grpc
from services.common.server import EXIT_CONFIG
from services.common.settings import load_settings
from services.retriever.milvus import connect, told
from services.retriever.milvus_filling import alias_of, aliases_of, fill_of
from services.retriever.settings import RetrieverSettings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

NAME = "drop-collections"
_PROGRAM = f"python -m services.retriever {NAME}"
_ABOUT = (
    "Drops the collections of bundles that no replica has loaded, nor a registry's pointer and last changes name, and "
    "what fills that were ended left behind. MARQUEE_MILVUS_TOKEN and MARQUEE_API_KEY hold the secrets for Milvus and "
    "for the replicas."
)
# What is younger may be being filled, for a bundle that this copy of the registry does not have yet.
YOUNG_S = 3600.0
_MILVUS_TIMEOUT_S = 60.0
_VARIABLES = {"MARQUEE_MILVUS_URI", "MARQUEE_MILVUS_TOKEN", "MARQUEE_MILVUS_CA"}


def run(arguments: Sequence[str]) -> int:
    """Runs the command; returns 0, 1 where nothing or not all was dropped, or 2 where a setting is wrong."""
    options = make_parser().parse_args(arguments)
    try:
        dropped = _run(options)
    except MarqueeError as error:
        print(f"{_PROGRAM}: {error.message}", file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1
    print(f"{'would drop' if options.dry_run else 'dropped'} {len(dropped)} collections", *dropped, sep="\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command's flags."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=_ABOUT)
    parser.add_argument("--milvus-uri", metavar="URI", help="as of the service; MARQUEE_MILVUS_URI")
    parser.add_argument("--milvus-ca", metavar="FILE", help="as of the service; MARQUEE_MILVUS_CA")
    parser.add_argument(
        "--replica",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a retriever that uses this Milvus; a name stands for all addresses that it has; repeatable: name all",
    )
    add_tls_flags(parser, "the replicas'")
    parser.add_argument(
        "--registry", type=Path, metavar="DIR", help="a registry whose bundles keep theirs; MARQUEE_REGISTRY"
    )
    parser.add_argument(
        "--keep", type=int, default=KEEP, metavar="N", help=f"changes of it that count, too (default: {KEEP})"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be dropped")
    return parser


def _run(options: argparse.Namespace) -> list[str]:
    milvus = _settings(options)
    if not options.replica:
        raise ConfigError("--replica: name every retriever that uses this Milvus, so that what they serve stays")
    kept = {bundle_id for replica in options.replica for bundle_id in _loaded_by(replica, options)}
    folder = options.registry or os.environ.get("MARQUEE_REGISTRY")
    return _in_milvus(milvus, kept | (_named_in(Path(folder), options.keep) if folder else set()), options.dry_run)


def _settings(options: argparse.Namespace) -> RetrieverSettings:
    """Reads which Milvus it is as the service does, and none of its other settings."""
    named = {"--milvus-uri": options.milvus_uri, "--milvus-ca": options.milvus_ca}
    flags = [f"{flag}={value}" for flag, value in named.items() if value is not None]
    environment = {name: os.environ[name] for name in _VARIABLES & os.environ.keys()}
    milvus = load_settings(RetrieverSettings, flags, environment)
    if not milvus.milvus_uri:
        raise ConfigError("--milvus-uri: is not set; name the Milvus whose collections are to be dropped")
    return milvus


def _named_in(registry: Path, keep: int) -> set[str]:
    pointer = Registry(registry).read()
    changes = pointer.history[-keep:] if keep > 0 else ()
    return {pointer.active, pointer.standby, *(id for one in changes for id in (one.active, one.standby))}


def _loaded_by(replica: str, options: argparse.Namespace) -> set[str]:
    """Asks a retriever, at every address that its name has, which bundles it has loaded."""
    access = Access(tls_of(options), os.environ.get("MARQUEE_API_KEY", "")).named(replica)
    return {bundle_id for address in addresses(replica) for bundle_id in _loaded_at(address, access)}


def _loaded_at(address: str, access: Access) -> list[str]:
    told = access.to(address)
    request = retriever_pb2.GetIndexRequest()
    try:
        with open_channel(address, told) as channel:
            index = retriever_pb2_grpc.RetrieverServiceStub(channel)
            answer = index.GetIndex(request, timeout=TIMEOUT_S, metadata=told.metadata)
    except grpc.RpcError as error:
        raise Unavailable(
            f"nothing was dropped: {address} does not say what it has loaded ({error.code().name}: {error.details()}); "
            "see that it runs, or leave it out if it is gone"
        ) from error
    return [one.bundle_id for one in answer.state.bundles]


def _in_milvus(milvus: RetrieverSettings, kept: set[str], dry_run: bool) -> list[str]:
    from pymilvus import MilvusException

    try:
        client = connect(milvus)
        doomed = _doomed(client, kept)
        for name in [] if dry_run else doomed:
            _drop(client, name)
    except (MilvusException, grpc.RpcError) as error:
        raise Unavailable(
            f"Milvus at {milvus.milvus_uri}: {told(error)}; see that it runs, and run this again: that is safe"
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
