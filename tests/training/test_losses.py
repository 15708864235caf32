"""The loss, held to a plain NumPy twin that spells every step."""

import math

import numpy as np
import pytest
import torch

from marquee.errors import ConfigError
from training.losses import in_batch_softmax, log_q


def plain_loss(cosines: np.ndarray, temperature: float, expected_counts: np.ndarray, masked: np.ndarray) -> float:
    losses = []
    for person in range(len(cosines)):
        exponents = {
            target: cosines[person, target] / temperature - math.log(expected_counts[target])
            for target in range(len(cosines))
            if not masked[person, target]
        }
        total = sum(math.exp(exponent) for exponent in exponents.values())
        losses.append(math.log(total) - exponents[person])
    return float(sum(losses) / len(losses))


def random_case(seed: int, batch: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masked = rng.random((batch, batch)) < 0.3
    np.fill_diagonal(masked, False)
    return rng.uniform(-1, 1, (batch, batch)), rng.uniform(0.01, 3, batch), masked


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_its_plain_twin(seed: int) -> None:
    cosines, counts, masked = random_case(seed)
    loss = in_batch_softmax(
        torch.from_numpy(cosines),
        temperature=0.07,
        log_q_B=torch.from_numpy(np.log(counts)),
        masked_BB=torch.from_numpy(masked),
    )
    assert loss.item() == pytest.approx(plain_loss(cosines, 0.07, counts, masked), rel=1e-9)


def loss_of_the_first(cosine: float, expected_count: float, temperature: float) -> float:
    """Computes the loss of person 0, whose only negative is target 1; person 1 meets none and loses nothing."""
    cosines = torch.tensor([[0.0, cosine], [0.0, 0.0]])
    masked = torch.tensor([[False, False], [True, False]])
    log_q_B = torch.tensor([1.0, expected_count]).log()
    return 2 * in_batch_softmax(cosines, temperature=temperature, log_q_B=log_q_B, masked_BB=masked).item()


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def loss_of_person_0(cosines: tuple[float, float], temperature: float, counts: tuple[float, float]) -> float:
    """Computes the loss of a person with one negative; the batch's other person has none, so no loss either."""
    loss = in_batch_softmax(
        torch.tensor([cosines, (0.0, 0.0)], dtype=torch.float64),
        temperature=temperature,
        log_q_B=torch.tensor(counts, dtype=torch.float64).log(),
        masked_BB=torch.tensor([[False, False], [True, False]]),
    )
    return 2 * loss.item()


def test_a_negative_weighs_less_by_the_times_it_is_expected() -> None:
    # e^(0.2 / 0.1) for the target; the negative's e^(0.5 / 0.1) counts a quarter, as it comes four times as often.
    expected = math.log(1 + math.exp(5 - 2) / 4)
    assert loss_of_person_0((0.2, 0.5), 0.1, (1, 4)) == pytest.approx(expected, rel=1e-12)


def test_a_target_weighs_less_by_the_times_it_is_expected() -> None:
    expected = math.log(1 + math.exp(5 - 2) * 4)
    assert loss_of_person_0((0.2, 0.5), 0.1, (4, 1)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0])
def test_the_temperature_does_not_divide_log_q(temperature: float) -> None:
    assert loss_of_person_0((0, 0), temperature, (1, 4)) == pytest.approx(math.log(1 + 1 / 4), rel=1e-12)


def test_a_frequent_negative_costs_less_than_a_rare_one() -> None:
    assert loss_of_person_0((0.2, 0.5), 0.1, (1, 9)) < loss_of_person_0((0.2, 0.5), 0.1, (1, 1 / 9))


def test_masked_targets_are_no_negatives() -> None:
    cosines = torch.tensor([[0.1, 0.9], [0.2, 0.3]])
    masked = torch.tensor([[False, True], [True, False]])
    assert in_batch_softmax(cosines, temperature=0.1, log_q_B=torch.zeros(2), masked_BB=masked).item() == 0.0


def test_log_q_variants() -> None:
    counts = torch.tensor([1, 3, 0])
    assert log_q(counts, 8, "expected")[:2].tolist() == pytest.approx([math.log(8 * 1 / 4), math.log(8 * 3 / 4)])
    assert log_q(counts, 8, "probability")[:2].tolist() == pytest.approx(
        [math.log(1 - (3 / 4) ** 8), math.log(1 - (1 / 4) ** 8)]
    )
    assert log_q(counts, 8, "none").tolist() == [0, 0, 0]
    assert torch.isfinite(log_q(counts, 8, "expected")).all()


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ConfigError, match=r"logq is 'sometimes'.*expected"):
        log_q(torch.tensor([1]), 2, "sometimes")
