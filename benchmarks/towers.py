"""Registries with a tower that was trained for a moment: how fast it is does not depend on how good it is."""

from __future__ import annotations

from pathlib import Path

from benchmarks.work import Work, say
from marquee.bundle.format import open_bundle

POOLED, SEQUENCE = "pooled", "sequence"
TOWERS = (POOLED, SEQUENCE)
# More movies than the longest history that is read has events, and few enough to be trained on in a moment.
_SIZES = ("--people", "500", "--movies", "2500", "--events", "30000")


def registry_of(work: Work, tower: str) -> Path:
    """Trains one pass of a tower on generated events and activates it; once a run."""
    bundle, registry = work.folder / f"tower-{tower}", work.folder / f"tower-{tower}-registry"
    if registry.is_dir():
        return registry
    data = work.folder / "towers-data"
    if not data.is_dir():
        work.processes.run("training.generate", "--out", data, *_SIZES)
    say(f"training a {tower} tower for an epoch")
    work.processes.run("training", "--data", data, "--out", bundle, "--epochs", "1", "--tower", tower)
    activate(work, bundle, registry)
    return registry


def activate(work: Work, bundle: Path, registry: Path) -> None:
    """Makes a bundle the only one of a registry; no gate: how good it is, is not the question here."""
    at = ("--registry", registry, "--force")
    work.processes.run("marquee.bundle", "publish", bundle, *at)
    work.processes.run("marquee.bundle", "activate", *at, open_bundle(bundle).space)
