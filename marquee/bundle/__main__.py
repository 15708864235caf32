"""The registry's command line: `python -m marquee.bundle publish|activate|roll-back|gc|list|sync`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from marquee.bundle.following import follow, keep_following
from marquee.bundle.registry import KEEP, Check, Pointer, Registry
from marquee.bundle.replicas import Access, asking
from marquee.bundle.v1 import bundle_pb2
from marquee.client.tls_flags import add_tls_flags, tls_of
from marquee.errors import BundleError, ConfigError, MarqueeError, RegistryError

DEFAULT_REGISTRY = ".marquee/registry"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 1 with one sentence on stderr."""
    options = _parser().parse_args(arguments)
    run: Callable[[Registry, argparse.Namespace], None] = options.run
    try:
        run(Registry(options.registry), options)
    except MarqueeError as error:
        return _fail(error.message)
    except OSError as error:
        return _fail(f"{error.filename or options.registry}: {error.strerror or error}")
    except KeyboardInterrupt:
        _fail("interrupted; the registry's pointer is as it was, or wholly changed")
        return 130
    return 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    registry = argparse.ArgumentParser(add_help=False)
    registry.add_argument(
        "--registry",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("MARQUEE_REGISTRY") or DEFAULT_REGISTRY),
        help=f"folder of the registry (default: $MARQUEE_REGISTRY, else {DEFAULT_REGISTRY})",
    )
    parser = argparse.ArgumentParser(prog="python -m marquee.bundle", description="Says which bundles are served.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Registry, argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[registry], help=text, description=text)
        added.set_defaults(run=run)
        return added

    publish = command("publish", _publish, "Copies a bundle into the registry, if it passes the gate.")
    publish.add_argument("bundle_dir", type=Path, metavar="BUNDLE_DIR", help="folder that training exported")
    publish.add_argument("--force", action="store_true", help="publish without asking the gate")
    activate = command("activate", _activate, "Makes the standby active.")
    activate.add_argument("name", nargs="?", default="", metavar="ID_OR_SPACE", help="default: the standby")
    activate.add_argument(
        "--replica", action="append", default=[], metavar="HOST:PORT", help="a replica to ask first; repeatable"
    )
    activate.add_argument("--force", action="store_true", help="activate without asking replicas")
    _add_access(activate)
    command("roll-back", _roll_back, "Brings back what was active before.")
    gc = command("gc", _gc, "Deletes bundles that nothing names any more.")
    gc.add_argument("--keep", type=int, default=KEEP, metavar="N", help=f"changes to keep bundles of (default: {KEEP})")
    syncing = command("sync", _sync, "Copies what another registry points to, and deletes what neither does any more.")
    syncing.add_argument(
        "--from", type=Path, required=True, dest="source", metavar="DIR", help="that registry; it is only read"
    )
    syncing.add_argument(
        "--every", type=_seconds, default=0.0, metavar="SECONDS", help="look again that often, until SIGTERM"
    )
    syncing.add_argument(
        "--until-active", action="store_true", help="with --every: end once there is an active bundle, which is copied"
    )
    listing = command("list", _list, "Prints the pointer and the bundles.")
    listing.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_access(activate: argparse.ArgumentParser) -> None:
    group = activate.add_argument_group("asking replicas", "A key for them is read from MARQUEE_API_KEY.")
    add_tls_flags(group, "the replicas'")
    activate.set_defaults(api_key=os.environ.get("MARQUEE_API_KEY", ""))


def _publish(registry: Registry, options: argparse.Namespace) -> None:
    if options.force:
        print("publishing without the gate (--force)")
    try:
        pointer = registry.publish(options.bundle_dir, check=None if options.force else _gate())
    except ModuleNotFoundError as error:
        raise RegistryError(
            f"refused: the gate runs the towers, and {error.name} is not installed here; "
            "`pip install 'marquee[encoder,retriever]'`, or publish with --force"
        ) from error
    _print_pointer(pointer)


def _gate() -> Check:
    # Here, because the gate runs the towers: only who publishes needs onnxruntime and faiss.
    from marquee.bundle.gate import check_gate

    return check_gate


def _activate(registry: Registry, options: argparse.Namespace) -> None:
    pointer = registry.read()
    if options.force:
        print("activating without asking replicas (--force)")
    elif pointer.active and not options.replica:
        raise RegistryError(
            "refused: without --replica nobody was asked whether the standby is loaded; name every encoder and "
            "retriever with --replica HOST:PORT, or activate with --force"
        )
    confirm = None if options.force else asking(options.replica, _access(options))
    _print_pointer(registry.activate(options.name, confirm=confirm))


def _access(options: argparse.Namespace) -> Access:
    return Access(tls_of(options), options.api_key)


def _roll_back(registry: Registry, options: argparse.Namespace) -> None:
    _print_pointer(registry.roll_back())


def _gc(registry: Registry, options: argparse.Namespace) -> None:
    deleted = registry.gc(options.keep)
    print(f"deleted {len(deleted)} bundles", *deleted, sep="\n")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no time to wait; give a number of seconds above 0")
    return seconds


def _sync(registry: Registry, options: argparse.Namespace) -> None:
    source = Registry(options.source)
    if options.until_active and not options.every:
        raise ConfigError("--until-active looks again and again: say with --every after how many seconds")
    if options.every:
        keep_following(registry, source, options.every, until_active=options.until_active)
    else:
        _print_pointer(follow(registry, source))


def _list(registry: Registry, options: argparse.Namespace) -> None:
    pointer = registry.read()
    ids = sorted(registry.bundle_ids(), key=lambda bundle_id: pointer.role(bundle_id) or "unused")
    bundles = [_describe(registry, pointer, bundle_id) for bundle_id in ids]
    if options.json:
        history = [change._asdict() for change in pointer.history]
        print(json.dumps({**pointer._asdict(), "history": history, "bundles": bundles}, indent=1))
        return
    _print_pointer(pointer)
    for bundle in bundles:
        print(_line(bundle))


def _describe(registry: Registry, pointer: Pointer, bundle_id: str) -> dict[str, Any]:
    described: dict[str, Any] = {"id": bundle_id, "role": pointer.role(bundle_id)}
    try:
        return described | _facts(registry.manifest(bundle_id))
    except BundleError as error:
        return described | {"error": error.message}


def _facts(manifest: bundle_pb2.Manifest) -> dict[str, Any]:
    return {
        "space": manifest.space,
        "revision": manifest.revision,
        "tower": manifest.tower.kind,
        "dataset": manifest.dataset.name,
        "simulated": manifest.dataset.simulated,
        "movies": manifest.movies,
        "bytes": sum(file.size for file in manifest.files),
    }


def _line(bundle: dict[str, Any]) -> str:
    start = f"{bundle['id'][:12]}  {bundle['role'] or '-':7}"
    if "error" in bundle:
        return f"{start}  unreadable: {bundle['error']}"
    simulated = " (simulated)" if bundle["simulated"] else ""
    return (
        f"{start}  space {bundle['space'][:12]}  {bundle['tower']}  {bundle['dataset']}{simulated}  "
        f"{bundle['movies']} movies  {bundle['bytes'] / 1e6:.1f} MB"
    )


def _print_pointer(pointer: Pointer) -> None:
    last = pointer.history[-1]
    print(f"generation {pointer.generation} ({last.at}, {last.what})")
    print(f"active   {pointer.active or 'none'}")
    print(f"standby  {pointer.standby or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
