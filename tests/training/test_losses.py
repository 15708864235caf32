"""The losses, held to plain NumPy twins that spell every step."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from marquee.errors import ConfigError
from training.losses import full_softmax, log_q, sampled_softmax


def plain_loss(
    own: np.ndarray, others: np.ndarray, own_count: np.ndarray, counts: np.ndarray, masked: np.ndarray
) -> list[float]:
    losses = []
    for person in range(len(own)):
        target = own[person] - math.log(own_count[person])
        exponents = [target] + [
            others[person, candidate] - math.log(counts[candidate])
            for candidate in range(len(counts))
            if not masked[person, candidate]
        ]
        losses.append(math.log(sum(math.exp(exponent) for exponent in exponents)) - target)
    return losses


def plain_positive_aware(own: np.ndarray, others: np.ndarray, counts: np.ndarray, masked: np.ndarray) -> list[float]:
    losses = []
    for person in range(len(own)):
        rest = sum(
            math.exp(others[person, candidate]) / counts[candidate]
            for candidate in range(len(counts))
            if not masked[person, candidate]
        )
        missed = rest / (rest + math.exp(own[person]))
        losses.append(missed * (math.log(rest) - own[person]))
    return losses


def random_case(seed: int, people: int = 6, candidates: int = 9) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    masked = rng.random((people, candidates)) < 0.3
    masked[:, 0] = False
    own, others = rng.uniform(-3, 3, people), rng.uniform(-3, 3, (people, candidates))
    return own, others, rng.uniform(0.01, 3, people), rng.uniform(0.01, 3, candidates), masked


def tensors(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_its_plain_twin(seed: int) -> None:
    own, others, own_count, counts, masked = random_case(seed)
    positive_B, negatives_BC, own_B, counts_C, masked_BC = tensors(own, others, own_count, counts, masked)
    loss_B = sampled_softmax(positive_B, negatives_BC, log_q_B=own_B.log(), log_q_C=counts_C.log(), masked_BC=masked_BC)
    np.testing.assert_allclose(loss_B.numpy(), plain_loss(own, others, own_count, counts, masked), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_positive_aware_loss_equals_its_plain_twin(seed: int) -> None:
    own, others, own_count, counts, masked = random_case(seed)
    positive_B, negatives_BC, own_B, counts_C, masked_BC = tensors(own, others, own_count, counts, masked)
    loss_B = sampled_softmax(
        positive_B,
        negatives_BC,
        log_q_B=own_B.log(),
        log_q_C=counts_C.log(),
        masked_BC=masked_BC,
        positive_aware=True,
    )
    np.testing.assert_allclose(loss_B.numpy(), plain_positive_aware(own, others, counts, masked), rtol=1e-9)


def test_the_positive_aware_gradient_is_the_full_softmaxs_when_every_movie_is_a_negative() -> None:
    torch.manual_seed(0)
    logits_BN, targets_B = torch.randn(4, 7, dtype=torch.float64, requires_grad=True), torch.tensor([0, 3, 3, 6])
    torch.nn.functional.cross_entropy(logits_BN, targets_B, reduction="sum").backward()  # type: ignore[no-untyped-call]
    exact_BN, logits_BN.grad = logits_BN.grad, None
    loss_B = sampled_softmax(
        logits_BN[torch.arange(4), targets_B],
        logits_BN,
        log_q_B=torch.full((4,), 9.0),
        log_q_C=torch.zeros(7),
        masked_BC=torch.nn.functional.one_hot(targets_B, 7).bool(),
        positive_aware=True,
    )
    loss_B.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits_BN.grad, exact_BN)


def loss_of(
    own: float, other: float, counts: tuple[float, float], *, masked: bool = False, aware: bool = False
) -> float:
    """Computes the loss of one target beside one negative, expected `counts` times each."""
    log_q_2 = torch.tensor(counts, dtype=torch.float64).log()
    loss_B = sampled_softmax(
        torch.tensor([own], dtype=torch.float64),
        torch.tensor([[other]], dtype=torch.float64),
        log_q_B=log_q_2[:1],
        log_q_C=log_q_2[1:],
        masked_BC=torch.tensor([[masked]]),
        positive_aware=aware,
    )
    return loss_B.item()


def test_a_negative_weighs_less_by_the_times_it_is_expected() -> None:
    # e^2 for the target; the negative's e^5 counts a quarter, as it comes four times as often.
    assert loss_of(2, 5, (1, 4)) == pytest.approx(math.log(1 + math.exp(5 - 2) / 4), rel=1e-12)


def test_a_target_weighs_less_by_the_times_it_is_expected() -> None:
    assert loss_of(2, 5, (4, 1)) == pytest.approx(math.log(1 + math.exp(5 - 2) * 4), rel=1e-12)


def test_a_positive_aware_target_is_not_corrected() -> None:
    assert loss_of(2, 5, (4, 2), aware=True) == loss_of(2, 5, (1, 2), aware=True)


def test_a_frequent_negative_costs_less_than_a_rare_one() -> None:
    assert loss_of(2, 5, (1, 9)) < loss_of(2, 5, (1, 1 / 9))


@pytest.mark.parametrize("aware", [False, True])
def test_a_target_whose_candidates_are_all_masked_loses_nothing(aware: bool) -> None:
    assert loss_of(1, 9, (1, 1), masked=True, aware=aware) == 0.0


@pytest.mark.parametrize("aware", [False, True])
def test_a_target_whose_candidates_are_all_masked_has_a_finite_gradient(aware: bool) -> None:
    logits = torch.tensor([1.0, 9.0], requires_grad=True)
    loss_B = sampled_softmax(
        logits[:1],
        logits[None, 1:],
        log_q_B=torch.zeros(1),
        log_q_C=torch.zeros(1),
        masked_BC=torch.tensor([[True]]),
        positive_aware=aware,
    )
    loss_B.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(3))
def test_the_full_softmax_equals_its_plain_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, excluded = rng.uniform(-3, 3, (4, 8)), rng.random((4, 8)) < 0.3
    wanted = rng.random((4, 8)) * ~excluded
    wanted /= wanted.sum(axis=1, keepdims=True)
    share = rng.random(4)
    expected = 0.0
    for person in range(4):
        total = sum(math.exp(logits[person, movie]) for movie in range(8) if not excluded[person, movie])
        for movie in np.flatnonzero(~excluded[person]):
            likely = math.exp(logits[person, movie]) / total
            expected -= share[person] * wanted[person, movie] * math.log(likely)
    loss = full_softmax(*tensors(logits, wanted, excluded, share))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_log_q_variants() -> None:
    counts = torch.tensor([1, 3, 0])
    for variant in ("expected", "positive_aware"):
        assert log_q(counts, 8, variant)[:2].tolist() == pytest.approx([math.log(8 * 1 / 4), math.log(8 * 3 / 4)])
    assert log_q(counts, 8, "probability")[:2].tolist() == pytest.approx(
        [math.log(1 - (3 / 4) ** 8), math.log(1 - (1 / 4) ** 8)]
    )
    assert log_q(counts, 8, "none").tolist() == [0, 0, 0]
    assert torch.isfinite(log_q(counts, 8, "expected")).all()


def test_uniform_negatives_are_expected_alike() -> None:
    # Six drawn alike from the two movies that somebody watched: each is expected three times more.
    found = log_q(torch.tensor([1, 3, 0]), 8, "expected", uniform=6)
    assert found.tolist()[:2] == pytest.approx([math.log(2 + 3), math.log(6 + 3)])


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ConfigError, match=r"logq is 'sometimes'.*expected"):
        log_q(torch.tensor([1]), 2, "sometimes")
