"""Checkpoints: one safetensors file each, whole or not there, from which training goes on to the same bits.

A file's name holds its step and the sha256 of its bytes, so nothing cut off or damaged is ever parsed. There is no
pickle: tensors are tensors, and everything else is JSON in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from marquee.bundle.format import sha256_of, sync_folder
from marquee.errors import ConfigError, DataError

Tensors = dict[str, Tensor]

# Two, so that a damaged newest file costs the steps since the one before, and not all of them.
KEPT = 2
_NAME = re.compile(r"step-(\d{12})(-best)?-([0-9a-f]{64})\.safetensors")
_KEY = "marquee.checkpoint"
_TEMPORARY = ".saving"
_TORCH_RNG = "torch_rng"


class Checkpoint(NamedTuple):
    """Is a whole checkpoint: `step` and `epoch` are numbers done, `state` is what was given to `save`."""

    file: Path
    step: int
    epoch: int
    tensors: Tensors
    state: dict[str, Any]


class _Saved(NamedTuple):
    file: Path
    step: int
    is_best: bool
    sha256: str


class Checkpoints:
    """Keeps the last two checkpoints of a run, and the best, in a folder.

    `identity` is JSON-able and says what must be equal for a run to go on: configuration, data fingerprint, seed.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        self._identity = _flat(json.loads(json.dumps(identity)))

    def save(self, step: int, epoch: int, tensors: Tensors, state: Mapping[str, Any], *, best: bool = False) -> Path:
        """Writes a checkpoint, forces it to disk, gives it its name, and removes those that it makes superfluous.

        Checkpoints of later steps are among them: this run has gone back behind them. Raises DataError where a tensor
        is no longer finite (nothing is written then) and ConfigError where the folder cannot be written.
        """
        self._check_finite(step, tensors)
        about = {"step": step, "epoch": epoch, "identity": self._identity, "state": dict(state)}
        content = save(_copies(tensors), {_KEY: json.dumps(about)})
        temporary, file = self._folder / _TEMPORARY, self._folder / _name(step, best, content)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            sync_folder(self._folder, [_TEMPORARY])
            os.replace(temporary, file)
            sync_folder(self._folder, [])
            self._remove_superfluous(step, file)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise ConfigError(
                f"{self._folder}: the checkpoint of step {step} cannot be written ({error.strerror}); make room, or "
                "name another folder"
            ) from error
        return file

    def latest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Reads the newest whole checkpoint; None where there is none.

        `warn` is given a sentence for each damaged one that was passed over. Raises ConfigError naming what differs
        where the checkpoint is of a run with another identity.
        """
        for saved in reversed(self._all()):
            if damage := _damage(saved):
                warn(f"{saved.file}: {damage}; it is passed over")
                continue
            return self._read(saved.file)
        return None

    def newest_file(self) -> Path | None:
        """Names the file of the newest checkpoint without reading it."""
        saved = self._all()
        return saved[-1].file if saved else None

    def clear(self) -> None:
        """Removes all checkpoints, and nothing else, from the folder."""
        for saved in self._all():
            saved.file.unlink()
        (self._folder / _TEMPORARY).unlink(missing_ok=True)

    def _check_finite(self, step: int, tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise DataError(f"{name} is no longer finite in step {step}, so it was not saved: {_cure(self)}")

    def _read(self, file: Path) -> Checkpoint:
        with safe_open(file, framework="pt") as stream:
            about = json.loads(stream.metadata()[_KEY])
            self._check_identity(file, about["identity"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - it is no dict
        return Checkpoint(file, about["step"], about["epoch"], tensors, about["state"])

    def _check_identity(self, file: Path, theirs: dict[str, Any]) -> None:
        ours = self._identity
        differing = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
        if differing:
            what = ", ".join(f"{name} was {_shown(theirs, name)} and is {_shown(ours, name)}" for name in differing)
            raise ConfigError(f"{file}: is a checkpoint of another run: {what}; set it back, or name another folder")

    def _all(self) -> list[_Saved]:
        """Lists the checkpoints, oldest first."""
        if not self._folder.is_dir():
            return []
        matches = ((file, _NAME.fullmatch(file.name)) for file in self._folder.iterdir())
        found = [_Saved(file, int(match[1]), bool(match[2]), match[3]) for file, match in matches if match]
        return sorted(found, key=lambda saved: saved.step)

    def _remove_superfluous(self, step: int, written: Path) -> None:
        saved = [each for each in self._all() if each.step < step or each.file == written]
        kept = {each.file for each in saved[-KEPT:]}
        kept.update(each.file for each in [each for each in saved if each.is_best][-1:])
        for each in self._all():
            if each.file not in kept:
                each.file.unlink()


def check_loss(loss: float, step: int, epoch: int, kept: Checkpoints | None) -> None:
    """Raises DataError, naming step and last good checkpoint, where the loss is no longer a finite number."""
    if not math.isfinite(loss):
        raise DataError(f"the loss became {loss} in epoch {epoch}, step {step}: {_cure(kept)}")


def _cure(kept: Checkpoints | None) -> str:
    newest = kept.newest_file() if kept else None
    return "lower the learning rate" + (f" (the last good checkpoint is {newest})" if newest else "")


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, **more: Mapping[str, Tensor]) -> Tensors:
    """Collects what a run goes on from: model, optimizer, PyTorch's CPU generator, and `more`, each under its name.

    NumPy's generator is no tensor: `rng.bit_generator.state` goes into the JSON state as it is.
    """
    sections: dict[str, Mapping[str, Tensor]] = {"model": model.state_dict(), **more}
    named = {f"{name}.{key}": tensor for name, section in sections.items() for key, tensor in section.items()}
    return named | optimizer_tensors(optimizer) | {_TORCH_RNG: torch.get_rng_state()}


def restore(tensors: Tensors, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts back what `training_tensors` collected, but for `more`, which `section` returns."""
    try:
        model.load_state_dict(section(tensors, "model"))
    except RuntimeError as error:
        raise ConfigError(f"the checkpoint is of another model; name another folder ({error})") from error
    load_optimizer(optimizer, tensors)
    torch.set_rng_state(tensors[_TORCH_RNG])


def section(tensors: Tensors, name: str) -> Tensors:
    """Selects the tensors of a section, under the names they had in it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Names the state of an Adam-like optimizer: `optimizer.<parameter>.<what>`, and each group's learning rate."""
    saved = optimizer.state_dict()
    named = {
        f"optimizer.{number}.{what}": value for number, slots in saved["state"].items() for what, value in slots.items()
    }
    rates = [torch.tensor(float(group["lr"]), dtype=torch.float64) for group in saved["param_groups"]]
    return named | {f"optimizer.lr.{number}": rate for number, rate in enumerate(rates)}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Gives a fresh optimizer over the same parameters, in the same order, the state of `optimizer_tensors`."""
    state: dict[int, Tensors] = {}
    groups = optimizer.state_dict()["param_groups"]
    for name, tensor in section(tensors, "optimizer").items():
        first, second = name.split(".")
        if first == "lr":
            groups[int(second)]["lr"] = tensor.item()
        else:
            state.setdefault(int(first), {})[second] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _name(step: int, best: bool, content: bytes) -> str:
    return f"step-{step:012d}{'-best' if best else ''}-{hashlib.sha256(content).hexdigest()}.safetensors"


def _copies(tensors: Tensors) -> Tensors:
    # safetensors refuses tensors that share memory.
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _damage(saved: _Saved) -> str:
    try:
        whole = sha256_of(saved.file) == saved.sha256
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if whole else "was cut off or changed (its sha256 is not that of its name)"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    parts = (_flat(inner, f"{prefix}.{name}" if prefix else name) for name, inner in value.items())
    return {name: inner for part in parts for name, inner in part.items()}


def _shown(identity: dict[str, Any], name: str) -> str:
    return json.dumps(identity[name]) if name in identity else "not given"
