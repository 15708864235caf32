"""Runs a real Milvus Lite for tests, as a server with a process and a folder of its own, and breaks it."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.retriever.milvus import Milvus, connect, open_milvus
from services.retriever.settings import RetrieverSettings
from tests.rigs import DEADLINE_S

if TYPE_CHECKING:
    from pymilvus import MilvusClient

needs_milvus = pytest.mark.skipif(
    importlib.util.find_spec("milvus_lite") is None or importlib.util.find_spec("pymilvus") is None,
    reason="needs Milvus Lite: nothing here shows that searches through Milvus are right, or outlive it; "
    "pip install -c constraints.txt milvus-lite pymilvus (`make setup` does)",
)
# A Milvus Lite on a busy machine is slow; that it answers at all is what most tests are about.
PATIENT_S = 10.0


class MilvusServer:
    """Is a Milvus Lite's process in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    @property
    def uri(self) -> str:
        """Names the server as the setting `milvus_uri` does."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the process, which reads the folder's files, and waits until it listens."""
        flags = ["--data-dir", str(self._folder / "data"), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self._folder / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "milvus_lite.cmdline", "server", *flags]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE_S
        while not self._listens():
            assert self.process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < deadline, "Milvus Lite did not come up"
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal: SIGKILL, SIGSTOP, SIGCONT."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(DEADLINE_S)

    def bring_back(self) -> None:
        """Lets a stopped process go on, and starts one that was killed again."""
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
        else:
            self.start()

    def stop(self) -> None:
        """Ends the process, which keeps its files as they are."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def settings(self, **fields: Any) -> RetrieverSettings:
        """Makes settings that name this Milvus."""
        defaults: dict[str, Any] = {"milvus_uri": self.uri, "milvus_timeout_s": PATIENT_S}
        return RetrieverSettings(**defaults | fields)

    def connection(self, **fields: Any) -> contextlib.AbstractContextManager[Milvus | None]:
        """Connects as a retriever with these settings does."""
        return open_milvus(self.settings(**fields))

    def client(self) -> MilvusClient:
        """Connects as an operator does."""
        return connect(self.settings())


@contextlib.contextmanager
def milvus_server(folder: Path) -> Iterator[MilvusServer]:
    """Runs one server."""
    server = MilvusServer(folder)
    try:
        yield server
    finally:
        server.stop()
