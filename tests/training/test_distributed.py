"""Two real processes over gloo: they compute what one computes, and none waits for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from marquee.errors import ConfigError, Unavailable
from tests.training import distributed_worker as worker
from training.device import autocast, choose_device
from training.distributed import (
    Group,
    average_gradients,
    gather,
    gather_with_gradient,
    mean_over_processes,
    process_group,
    shard,
)

ROOT = Path(__file__).parents[2]
WORKER = "tests.training.distributed_worker"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Is what each of two processes of torchrun wrote."""
    out = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", WORKER, "equal", str(out)],
        cwd=ROOT,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return [load_file(out / f"rank{rank}.safetensors") for rank in (0, 1)]


def one() -> dict[str, Tensor]:
    return worker.train(worker.towers(), worker.events(), Group(0, 1, torch.device("cpu")))


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_of_b_rows_do_what_one_does_with_2b(two: list[dict[str, Tensor]], rank: int) -> None:
    expected = one()
    assert {"loss.0", "loss.1", "gradient.0.log_temperature", "weight.movies.weight"} < expected.keys()
    assert expected["gradient.0.movies.weight"].abs().max() > 1e-3
    for name, tensor in expected.items():
        assert torch.allclose(two[rank][name], tensor, rtol=0, atol=1e-9), name


def test_the_batches_compared_hold_accidental_hits_of_the_other_process() -> None:
    log = worker.events()
    order = np.random.default_rng(2).permutation(log.size)[: worker.GLOBAL_BATCH]
    by_rank = np.concatenate([shard(order, rank, 2) for rank in (0, 1)])
    masked = worker.masks(log, torch.from_numpy(log.users[by_rank]), torch.from_numpy(log.items[by_rank]))
    half = worker.GLOBAL_BATCH // 2
    assert masked[:half, half:].any()
    assert masked[half:, :half].any()


def test_own_rows_come_first(two: list[dict[str, Tensor]]) -> None:
    assert [written["gathered"].tolist() for written in two] == [[0, 1, 10, 11], [10, 11, 0, 1]]


def test_shards_of_one_step_are_the_step_of_one_process() -> None:
    order = np.array([5, 3, 8, 1, 9, 2, 7])
    shards = [shard(order, rank, 3) for rank in range(3)]
    assert [part.tolist() for part in shards] == [[5, 1], [3, 9], [8, 2]]
    assert shard(order, 0, 1).tolist() == order.tolist()


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
        rows = torch.ones(2, 3, requires_grad=True)
        assert gather_with_gradient(rows) is rows
        assert gather(rows) is rows
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
