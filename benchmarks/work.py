"""The temporary folder that everything is made in, and the steps that fill it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import ROOT, Processes
from marquee.bundle.format import open_bundle

_KEPT = ROOT / "data"
_LOCAL = _KEPT / "ml-latest-small"
_CHOSEN_FOR_US = ("", "sample")


class Work(NamedTuple):
    """Is where everything is made: `folder` is temporary, `data` is only read."""

    folder: Path
    data: Path
    processes: Processes

    @property
    def bundle(self) -> Path:
        """The bundle that training exports."""
        return self.folder / "bundle"

    @property
    def registry(self) -> Path:
        """The registry that the services read."""
        return self.folder / "registry"

    @property
    def store(self) -> Path:
        """The feature store."""
        return self.folder / "features.sqlite"

    def arguments(self, service: str) -> list[str | Path]:
        """Lists what a service has to be told beside where to listen."""
        store: list[str | Path] = ["--store", self.store] if service == "user_encoder" else []
        # Text, because the last line that a service logs is quoted where it does not come up.
        return ["--registry", self.registry, "--log-format", "text", *store]


def obtain_data(named: str, folder: Path, processes: Processes) -> Path:
    """Finds the data as the demo does, but keeps nothing: what is written or downloaded goes to `folder`."""
    data = named if named in _CHOSEN_FOR_US else str(Path(named).absolute())
    into = _KEPT if not named and _LOCAL.is_dir() else folder / "data"
    ended = processes.run("training.obtain", "--data", data, "--into", into)
    # Where it came from, and on what terms.
    say(ended.stderr)
    return Path(ended.stdout)


def publish(work: Work) -> None:
    """Fills the registry and the store. No gate: how good the model is, is not the question here."""
    at = ("--registry", work.registry)
    work.processes.run("marquee.bundle", "publish", work.bundle, *at, "--force")
    work.processes.run("marquee.bundle", "activate", *at, "--force", open_bundle(work.bundle).space)
    work.processes.run("services.user_encoder", "import-events", "--data", work.data, "--store", work.store)


def describe_data(work: Work) -> str:
    """Names the data, with its sizes where a bundle knows them."""
    if not work.bundle.is_dir():
        return work.data.name
    dataset = open_bundle(work.bundle).manifest.dataset
    simulated = "; the viewers are SIMULATED" if dataset.simulated else ""
    sizes = f"{dataset.events:,} events of {dataset.users:,} people on {dataset.movies:,} movies"
    return f"{dataset.name}: {sizes}{simulated}"


def say(text: str) -> None:
    """Tells on stderr how far the benchmarks are."""
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)
