"""Runs the retriever: `python -m services.retriever`."""

from __future__ import annotations

import sys
from functools import partial

from marquee.bundle.registry import Registry
from marquee.engine.index import use_blas_threads, use_threads
from services.common.server import Life, run_service
from services.common.spaces import Spaces
from services.retriever.block_list import BlockList
from services.retriever.milvus import open_milvus
from services.retriever.retrieval import Retrieval
from services.retriever.servicer import SERVICES, add_servicers
from services.retriever.settings import RetrieverSettings

SUMMARY = "Finds the movies nearest to a query vector, and looks movies up."


async def serve(settings: RetrieverSettings) -> None:
    """Serves until a signal comes."""
    block_list = BlockList(settings.block_list)
    # Milvus is the outer one: it is asked until the last call has been answered.
    with open_milvus(settings) as milvus:
        async with Life(settings, SERVICES) as life:
            # Bundles are loaded in other threads, and searched in this one.
            use_threads(settings.threads)
            use_blas_threads(settings.threads)
            load = partial(Retrieval, threads=settings.threads, block_list=block_list, milvus=milvus)
            spaces = Spaces(Registry(settings.registry), load, settings)
            await spaces.start()
            add_servicers(spaces, life.server)
            await life.run(spaces.watch(), block_list.watch())


def main() -> int:
    """Runs the retriever with the flags of this process."""
    return run_service("retriever", SUMMARY, RetrieverSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
