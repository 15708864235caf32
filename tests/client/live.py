"""Both services as processes, on a bundle that is made in a moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
def live_services(folder: Path, *retrievers: str, everywhere: Sequence[str] = ()) -> Iterator[Live]:
    """Starts two encoders and a retriever; 60 movies, ids from 1 in steps of three.

    `retrievers` are arguments of the retriever, `everywhere` those of all.
    """
    bundle = make_bundle(folder / "bundle", movies=60)
    registry = publish(folder / "registry", bundle).root
    encoders = (f"--store={folder / 'features.sqlite'}", *everywhere)
    with ExitStack() as stack:
        started = [
            stack.enter_context(service_process("user_encoder", folder, registry, *encoders)),
            stack.enter_context(service_process("user_encoder", folder, registry, *encoders)),
            stack.enter_context(service_process("retriever", folder, registry, *retrievers, *everywhere)),
        ]
        yield Live(bundle, registry, *(f"127.0.0.1:{process.port}" for process in started))
