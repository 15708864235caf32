"""Both services as processes, on a bundle that is made in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from marquee.bundle.format import Bundle
from tests.bundles import make_bundle
from tests.rigs import publish, service_process


class Live(NamedTuple):
    """Is where the services are: the second encoder shares the store of the first."""

    bundle: Bundle
    registry: Path
    encoder: str
    second_encoder: str
    retriever: str


@contextmanager
def live_services(folder: Path, *arguments: str) -> Iterator[Live]:
    """Starts the services, the retriever with these arguments as well; 60 movies, ids from 1 in steps of three."""
    bundle = make_bundle(folder / "bundle", movies=60)
    registry = publish(folder / "registry", bundle).root
    store = f"--store={folder / 'features.sqlite'}"
    with ExitStack() as stack:
        encoders = [stack.enter_context(service_process("user_encoder", folder, registry, store)) for _ in range(2)]
        retriever = stack.enter_context(service_process("retriever", folder, registry, *arguments))
        addresses = (f"127.0.0.1:{process.port}" for process in (*encoders, retriever))
        yield Live(bundle, registry, *addresses)
