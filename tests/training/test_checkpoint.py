"""Checkpoints: going on from one gives the bits of a run that never stopped, and no accident leaves half of one."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from marquee.errors import ConfigError, DataError
from training.checkpoint import Checkpoint, Checkpoints, check_loss, restore, section, training_tensors

IDENTITY = {"seed": 0, "data": "f00d", "training": {"learning_rate": 0.01, "layers": (1, 2)}}


class Run:
    """Is a small training run that draws from both generators and keeps an average of its weights."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.rng = np.random.default_rng(0)
        self.model = nn.Sequential(nn.Embedding(10, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.average = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.losses: list[float] = []

    def train(self, steps: int) -> None:
        for _ in range(steps):
            loss = (self.model(torch.from_numpy(self.rng.integers(0, 10, 8))) - 1).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.optimizer.param_groups[0]["lr"] *= 0.9
            for name, tensor in self.model.state_dict().items():
                self.average[name].lerp_(tensor, 0.1)
            self.losses.append(loss.item())

    def save(self, checkpoints: Checkpoints) -> Path:
        tensors = training_tensors(self.model, self.optimizer, average=self.average)
        state = {"rng": self.rng.bit_generator.state, "losses": self.losses}
        return checkpoints.save(len(self.losses), 1, tensors, state)

    def go_on(self, checkpoint: Checkpoint) -> None:
        restore(checkpoint.tensors, self.model, self.optimizer)
        self.average = section(checkpoint.tensors, "average")
        self.rng.bit_generator.state = checkpoint.state["rng"]
        self.losses = checkpoint.state["losses"]


def unexpected(sentence: str) -> None:
    pytest.fail(sentence)


def newest(folder: Path, identity: dict[str, Any] = IDENTITY) -> Checkpoint:
    checkpoint = Checkpoints(folder, identity).latest(unexpected)
    assert checkpoint is not None
    return checkpoint


def ones(step: int) -> dict[str, Tensor]:
    return {"model.weight": torch.full((100,), float(step))}


def save(folder: Path, *steps: int, best: int = 0) -> list[Path]:
    checkpoints = Checkpoints(folder, IDENTITY)
    return [checkpoints.save(step, 0, ones(step), {}, best=step == best) for step in steps]


def steps_in(folder: Path) -> list[int]:
    return sorted(int(file.name.split("-")[1]) for file in folder.iterdir())


def test_a_run_that_goes_on_equals_one_that_never_stopped(tmp_path: Path) -> None:
    whole = Run()
    whole.train(12)
    first = Run()
    first.train(5)
    first.save(Checkpoints(tmp_path, IDENTITY))
    second = Run()
    second.train(1)  # leaves traces that going on has to wipe out
    second.go_on(newest(tmp_path))
    second.train(7)

    expected = training_tensors(whole.model, whole.optimizer, average=whole.average)
    tensors = training_tensors(second.model, second.optimizer, average=second.average)
    assert tensors.keys() == expected.keys()
    assert {"model.0.weight", "optimizer.0.exp_avg_sq", "optimizer.0.step", "average.2.bias"} < expected.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], expected[name])] == []
    assert second.losses == whole.losses
    assert second.rng.bit_generator.state == whole.rng.bit_generator.state


def test_a_checkpoint_holds_what_was_saved(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "b": shared.T, "c": torch.tensor(7), "d": torch.zeros(0), "e": shared.to(torch.bfloat16)}
    state = {"huge": 1 << 100, "tiny": 0.1, "none": float("nan"), "title": "Amélie"}
    file = Checkpoints(tmp_path / "new" / "folder", IDENTITY).save(3, 2, tensors, state)
    read = newest(tmp_path / "new" / "folder")
    assert (read.file, read.step, read.epoch) == (file, 3, 2)
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in tensors.items())
    assert str(read.state) == str(state)


def test_two_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 10, 20, 30, 40, best=10)
    assert steps_in(tmp_path) == [10, 30, 40]
    save(tmp_path, 50, 60, best=50)
    assert steps_in(tmp_path) == [50, 60]
    save(tmp_path, 70, 80)
    assert steps_in(tmp_path) == [50, 70, 80]


def test_a_run_that_went_back_leaves_nothing_of_later_steps(tmp_path: Path) -> None:
    save(tmp_path, 10, 20, 30)
    save(tmp_path, 20)
    assert steps_in(tmp_path) == [20]
    assert newest(tmp_path).step == 20


def test_nothing_but_checkpoints_is_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    save(tmp_path, 10, 20, 30)
    Checkpoints(tmp_path, IDENTITY).clear()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none", IDENTITY)
    assert checkpoints.latest(unexpected) is None
    assert checkpoints.newest_file() is None
    checkpoints.clear()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_passed_over(tmp_path: Path, share: float) -> None:
    file = save(tmp_path, 10, 20)[1]
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert_passed_over(tmp_path, file)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_found(tmp_path: Path, share: float) -> None:
    file = save(tmp_path, 10, 20)[1]
    content = bytearray(file.read_bytes())
    content[int(share * len(content))] ^= 1
    file.write_bytes(content)
    assert_passed_over(tmp_path, file)


def test_a_folder_in_a_checkpoints_place_is_passed_over(tmp_path: Path) -> None:
    file = save(tmp_path, 10, 20)[1]
    file.unlink()
    file.mkdir()
    assert_passed_over(tmp_path, file)


def assert_passed_over(folder: Path, file: Path) -> None:
    warnings: list[str] = []
    read = Checkpoints(folder, IDENTITY).latest(warnings.append)
    assert read is not None
    assert read.step == 10
    assert torch.equal(read.tensors["model.weight"], torch.full((100,), 10.0))
    assert len(warnings) == 1
    assert warnings[0].startswith(str(file))
    assert warnings[0].endswith("; it is passed over")


def test_where_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    for file in save(tmp_path, 10, 20):
        file.write_bytes(b"")
    warnings: list[str] = []
    assert Checkpoints(tmp_path, IDENTITY).latest(warnings.append) is None
    assert len(warnings) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "seed was 0 and is 1;"),
        ({"data": "beef"}, 'data was "f00d" and is "beef";'),
        ({"training": {"learning_rate": 0.01, "layers": (1, 3)}}, r"training\.layers was \[1, 2\] and is \[1, 3\];"),
        ({"tower": "pooled"}, 'tower was not given and is "pooled";'),
        ({"seed": 2, "data": ""}, 'data was "f00d" and is "", seed was 0 and is 2;'),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    save(tmp_path, 10)
    with pytest.raises(ConfigError, match=f"is a checkpoint of another run: {sentence} set it back"):
        newest(tmp_path, IDENTITY | change)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run = Run()
    run.save(Checkpoints(tmp_path, IDENTITY))
    other = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="of another model"):
        restore(newest(tmp_path).tensors, other, torch.optim.Adam(other.parameters()))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_the_step_and_the_last_good_checkpoint(tmp_path: Path, loss: float) -> None:
    file = save(tmp_path, 10)[0]
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    check_loss(0.1, 11, 2, checkpoints)
    with pytest.raises(DataError, match=rf"the loss became {loss} in epoch 2, step 12: lower.*{file.name}"):
        check_loss(loss, 12, 2, checkpoints)


def test_weights_that_are_no_numbers_are_never_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10)
    broken = ones(20)
    broken["model.weight"][7] = float("nan")
    with pytest.raises(DataError, match=r"model\.weight is no longer finite in step 20"):
        Checkpoints(tmp_path, IDENTITY).save(20, 0, broken, {})
    assert newest(tmp_path).step == 10


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"taken/below: the checkpoint of step 1 cannot be written"):
        save(tmp_path / "taken" / "below", 1)


def test_a_full_disk_is_said_and_leaves_the_checkpoints_there_were(tmp_path: Path) -> None:
    save(tmp_path, 10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"step 20 cannot be written \(File too large\); make room"):
            save(tmp_path, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert steps_in(tmp_path) == [10]
    assert newest(tmp_path).step == 10


def large(step: int) -> Tensor:
    return torch.full((4_000_000,), float(step))


def save_for_ever(folder: Path) -> None:
    checkpoints = Checkpoints(folder, IDENTITY)
    read = checkpoints.latest(unexpected)
    step = read.step if read else 0
    while True:
        step += 1
        checkpoints.save(step, 0, {"a": large(step)}, {"step": step}, best=step % 3 == 0)


@pytest.mark.parametrize("moment", [".saving", "step-*"])
def test_kill_9_while_saving_leaves_a_checkpoint(tmp_path: Path, moment: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.checkpoint"])
    Checkpoints(tmp_path, IDENTITY).save(1, 0, {"a": large(1)}, {"step": 1})
    for _ in range(4):
        reached, before = newest(tmp_path).step, set(tmp_path.glob("step-*"))
        (tmp_path / ".saving").unlink(missing_ok=True)
        process = context.Process(target=save_for_ever, args=(tmp_path,))
        process.start()
        while not set(tmp_path.glob(moment)) - before:
            assert process.is_alive()
        process.kill()
        process.join()
        assert process.exitcode == -9
        read = newest(tmp_path)
        assert read.step >= (reached + 1 if moment == "step-*" else reached)
        assert read.state == {"step": read.step}
        assert torch.equal(read.tensors["a"], large(read.step))
        assert len(list(tmp_path.iterdir())) <= 5, "two, the best, one not yet removed, and one half-written"
