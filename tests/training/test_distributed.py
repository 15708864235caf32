"""Two real processes over gloo: they compute what one computes, and none waits for ever."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from marquee.bundle.format import open_bundle
from marquee.bundle.gate import check_gate
from marquee.errors import ConfigError, Unavailable
from tests.planted import write_planted
from tests.training import distributed_worker as worker
from training.__main__ import build_parser, run
from training.device import autocast, choose_device
from training.distributed import Group, average_gradients, mean_over_processes, process_group
from training.model import TOWERS
from training.objectives import Table

ROOT = Path(__file__).parents[2]
WORKER = "tests.training.distributed_worker"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def torchrun(*arguments: str) -> str:
    """Runs a module in two processes; returns what they print."""
    done = subprocess.run(
        [*TORCHRUN, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Compared(NamedTuple):
    """Holds what one process computed, and what each of two did."""

    one: dict[str, Tensor]
    two: list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    out = tmp_path_factory.mktemp("two")
    write_planted(out / "data")
    torchrun(WORKER, "equal", str(out))
    one = worker.steps(out / "data", Group(0, 1, torch.device("cpu")))
    return Compared(one, [load_file(out / f"rank{rank}.safetensors") for rank in (0, 1)])


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("objective", ["next", "hide"])
def test_two_processes_have_the_loss_and_gradients_of_one(compared: Compared, kind: str, objective: str) -> None:
    names = [name for name in compared.one if name.startswith(f"{kind}.{objective}.")]
    for written in compared.two:
        for step in range(worker.STEPS):
            name = f"{kind}.{objective}.{step}.loss"
            torch.testing.assert_close(written[name], compared.one[name], rtol=1e-5, atol=0)
    assert compared.one[f"{kind}.{objective}.0.ids.weight"].abs().max() > 1e-3
    for name in names:
        for written in compared.two:
            torch.testing.assert_close(written[name], compared.one[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", TOWERS)
def test_two_processes_end_at_the_weights_of_one(compared: Compared, kind: str) -> None:
    names = [name for name in compared.one if name.startswith((f"{kind}.ids.", f"{kind}.user_tower."))]
    assert len(names) > 2
    for name in names:
        torch.testing.assert_close(compared.two[0][name], compared.two[1][name], rtol=0, atol=0)
        torch.testing.assert_close(compared.two[0][name], compared.one[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", TOWERS)
def test_the_processes_really_share_the_work(tmp_path: Path, kind: str) -> None:
    data = write_planted(tmp_path / "data")
    shares = []
    for rank in (0, 1):
        model, bags, objectives = worker.objectives_of(kind, data, Group(0, 1, torch.device("cpu")))
        _, _, mine = worker.objectives_of(kind, data, Group(rank, 2, torch.device("cpu")))
        losses = [
            [
                each.loss(model, Table(*model.table(bags)), batch, np.random.default_rng(1)).item()
                for each in (whole, part)
            ]
            for whole, part in zip(objectives.values(), mine.values(), strict=True)
            for batch in whole.batches(np.random.default_rng(0))[:1]
        ]
        shares.append(losses)
    for (whole, first), (_, second) in zip(*shares, strict=True):
        assert whole == pytest.approx((first + second) / 2, rel=1e-5)
        assert abs(first - second) > 1e-5, "each has rows of its own"


def epoch_lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if " tower, epoch " in line]


def test_torchrun_trains_and_one_process_prints_and_writes(tmp_path: Path) -> None:
    data, options = write_planted(tmp_path / "data"), ("--dimension", "16", "--epochs", "2", "--tower", "pooled")
    printed = torchrun("training", "--data", str(data), "--out", str(tmp_path / "two"), "--batch", "50", *options)
    assert printed.count("next: python -m marquee.bundle publish") == 1
    output = io.StringIO()
    one = build_parser().parse_args(["--data", str(data), "--out", str(tmp_path / "one"), "--batch", "100", *options])
    run(one, Console(file=output))
    first, alone = epoch_lines(printed), epoch_lines(output.getvalue())
    assert len(first) == len(alone) == 2
    assert first[0].split(",")[1].split()[3] == alone[0].split(",")[1].split()[3], "the loss of the first epoch"
    two = open_bundle(tmp_path / "two")
    assert json_format.MessageToDict(two.manifest.tower.config)["training"]["batch"] == 100
    check_gate(two, open_bundle(tmp_path / "one"))


def start(what: str, rank: int, port: int) -> subprocess.Popen[str]:
    launch = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", WORKER, what, ""],
        cwd=ROOT,
        env=os.environ | ONE_THREAD | launch | where,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("how", ["dies", "sleeps"])
def test_who_loses_another_process_says_so_and_ends(how: str) -> None:
    port = free_port()
    with start(how, 0, port) as left, start(how, 1, port) as lost:
        try:
            _, said = left.communicate(timeout=50)
        finally:
            left.kill()
            lost.kill()
    assert left.returncode == 1
    assert "met" in said.splitlines()
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("training: process 0 of 2 lost the others")


def launched(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_port_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        launched(monkeypatch, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with (
            pytest.raises(Unavailable, match=r"process 0 of 2 .*never met them.*address already in use.*MASTER_PORT"),
            process_group(timeout_s=1),
        ):
            pytest.fail("joined a group of two alone")


def test_a_process_that_stays_alone_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(free_port())
    launched(monkeypatch, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with pytest.raises(Unavailable, match="process 0 of 2"), process_group(timeout_s=1):
        pytest.fail("joined a group of two alone")


def test_a_launch_that_lacks_variables_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, RANK="0", WORLD_SIZE="2")
    missing = "WORLD_SIZE is set and LOCAL_RANK, MASTER_ADDR, MASTER_PORT not"
    with pytest.raises(ConfigError, match=missing), process_group():
        pytest.fail("joined")


@pytest.mark.parametrize(
    ("rank", "world", "sentence"),
    [("first", "2", "no number.*'first'"), ("0", "many", "no number.*'many'"), ("2", "2", "ranks are 0 to 1")],
)
def test_a_launch_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, rank: str, world: str, sentence: str
) -> None:
    launched(monkeypatch, RANK=rank, LOCAL_RANK="0", WORLD_SIZE=world, MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    with pytest.raises(ConfigError, match=sentence), process_group():
        pytest.fail("joined")


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}])
def test_alone_everything_is_what_it_was(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    launched(monkeypatch, **variables)
    with process_group() as group:
        assert (group.rank, group.world, group.leads) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        assert np.arange(5)[group.share].tolist() == [0, 1, 2, 3, 4]
        assert mean_over_processes(0.25, group.device) == 0.25
        model = nn.Linear(2, 1)
        average_gradients(model)
        assert model.weight.grad is None


def test_each_process_of_a_machine_has_its_gpu() -> None:
    assert choose_device(0, gpus=0) == torch.device("cpu")
    assert choose_device(3, gpus=0) == torch.device("cpu")
    assert choose_device(1, gpus=2) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="process 3 here has no GPU: start at most 2"):
        choose_device(2, gpus=2)


def test_a_cpu_computes_in_float32() -> None:
    layer = nn.Linear(2, 2)
    with autocast(torch.device("cpu")):
        assert layer(torch.ones(1, 2)).dtype == torch.float32
