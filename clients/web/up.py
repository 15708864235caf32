"""Serves what was trained: both services and the page, until Ctrl-C: `python -m clients.web.up`, `make up`."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from clients.demo.data import work_folder
from clients.demo.processes import Services, end_on_signals
from clients.web.__main__ import main as serve_page
from marquee.errors import MarqueeError, RegistryError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs everything until a signal ends it; returns the exit code, that of the page."""
    parser = argparse.ArgumentParser(prog="python -m clients.web.up", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".marquee"), help="folder of what was made (%(default)s)")
    parser.add_argument("--data", type=Path, help="serve what was made of this data (default: what was made last)")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to serve (%(default)s)")
    parser.add_argument("--port-file", metavar="FILE", help="file that gets the page's port")
    options = parser.parse_args(arguments)
    end_on_signals()
    try:
        return _run(find_work(options.work, options.data), options)
    except MarqueeError as error:
        print(f"up: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def find_work(root: Path, data: Path | None) -> Path:
    """Finds the folder with the registry to serve, the one that changed last; raises RegistryError with the cure."""
    folders = [work_folder(root, data)] if data else [root, *root.glob("*/")]
    pointers = [folder / "registry" / "registry.json" for folder in folders]
    there = [pointer for pointer in pointers if pointer.is_file()]
    if not there:
        where = folders[0] if data else root
        raise RegistryError(f"there is no registry in {where}: run `make demo` first, which trains and publishes")
    return max(there, key=lambda pointer: pointer.stat().st_mtime).parent.parent


def _run(work: Path, options: argparse.Namespace) -> int:
    registry, store = ("--registry", work / "registry"), ("--store", work / "features.sqlite")
    metrics = _free_port(), _free_port()
    with Services(work) as services:
        services.start("user_encoder", *registry, *store, "--metrics-port", str(metrics[0]))
        services.start("retriever", *registry, "--metrics-port", str(metrics[1]))
        encoder, retriever = services.addresses()
        print(f"Serving {work}: user_encoder on {encoder}, retriever on {retriever}; their logs are in {work}.")
        print("The operator's page is at /operator. Ctrl-C stops everything.", flush=True)
        told = [
            "--encoder",
            encoder,
            "--retriever",
            retriever,
            "--listen",
            options.listen,
            "--key",
            str(work / "web.key"),
        ]
        told += [f"--metrics=http://127.0.0.1:{port}/metrics" for port in metrics]
        told += ["--port-file", options.port_file] if options.port_file else []
        return serve_page(told)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
