"""Runs the retriever, or its command: `python -m services.retriever [drop-collections] ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from marquee.bundle.registry import Registry
from marquee.engine.index import use_blas_threads, use_threads
from services.common.served import LISTS, ServedFolder, open_folder, watch_folder
from services.common.server import Life, run_service
from services.common.spaces import Spaces
from services.common.telemetry import Telemetry
from services.retriever import milvus_cleanup
from services.retriever.block_list import BlockList
from services.retriever.measures import MEASURES
from services.retriever.milvus import open_milvus
from services.retriever.retrieval import Retrieval
from services.retriever.served import ServedLists, watch_lists
from services.retriever.servicer import SERVICES, add_servicers
from services.retriever.settings import RetrieverSettings

SUMMARY = (
    "Finds the movies nearest to a query vector, and looks movies up.\n"
    "Another command, with --help of its own: drop-collections drops what a Milvus holds of bundles that are gone."
)


async def serve(settings: RetrieverSettings) -> None:
    """Serves until a signal comes."""
    block_list = BlockList(settings.block_list)
    # Milvus and the folder are the outer ones: they are in use until the last call has been answered.
    with open_milvus(settings) as milvus, open_folder(LISTS, settings) as folder:
        async with Life(settings, SERVICES, name="retriever") as life:
            # Bundles are loaded in other threads, and searched in this one.
            use_threads(settings.threads)
            use_blas_threads(settings.threads)
            load = partial(Retrieval, threads=settings.threads, block_list=block_list, milvus=milvus)
            spaces = Spaces(Registry(settings.registry), load, settings)
            await spaces.start()
            life.telemetry.expect(MEASURES)
            life.telemetry.watch_spaces(spaces)
            if milvus is not None:
                life.telemetry.gauge("milvus_reachable", "1 while Milvus answers.", lambda: milvus.reachable)
                life.telemetry.counter("milvus_misses", "Searches that Milvus did not answer.", lambda: milvus.misses)
            served = ServedLists(settings.served_sample, folder) if settings.served_sample else None
            _watch_served(life.telemetry, spaces, served, folder)
            add_servicers(spaces, life.server, served)
            await life.run(spaces.watch(), block_list.watch(), *([] if folder is None else [folder.watch()]))


def _watch_served(
    telemetry: Telemetry, spaces: Spaces[Retrieval], served: ServedLists | None, folder: ServedFolder | None
) -> None:
    if served is not None:
        watch_lists(telemetry, served, spaces)
    if folder is not None:
        watch_folder(telemetry, folder)


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name, or the service; returns the exit code."""
    if arguments and arguments[0] == milvus_cleanup.NAME:
        return milvus_cleanup.run(arguments[1:])
    return run_service("retriever", SUMMARY, RetrieverSettings, serve, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
