"""Statistics of answers: against closed forms, published examples, and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from vidgen.metrics.perception import agreement, binomial_test, bradley_terry, correlation, rate

FLEISS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
"""Fourteen people, ten questions, five answers: the example by which Fleiss' kappa is usually explained; it has 0.210."""


def crossed(num_people: int, num_stimuli: int) -> tuple[np.ndarray, np.ndarray]:
    """Who and what of every answer, where everybody sees everything."""
    people, stimuli = np.meshgrid(np.arange(num_people), np.arange(num_stimuli), indexing="ij")
    return people.ravel(), stimuli.ravel()


@pytest.mark.parametrize(("spread_of_people", "spread_of_stimuli"), [(0.0, 0.0), (0.15, 0.0), (0.0, 0.2)])
def test_the_interval_of_a_rate_covers_it_as_often_as_it_says(spread_of_people: float, spread_of_stimuli: float) -> None:
    generator = np.random.default_rng(1)
    people, stimuli = crossed(24, 24)
    covered, widths = 0, []
    for trial in range(40):
        chance = (
            0.3
            + spread_of_people * generator.uniform(-1, 1, 24)[people]
            + spread_of_stimuli * generator.uniform(-1, 1, 24)[stimuli]
        )
        measured = rate(generator.random(len(people)) < chance, people, stimuli, seed=trial)
        covered += measured.low <= 0.3 <= measured.high
        widths.append(measured.high - measured.low)
    assert covered >= 34
    normal = 2 * 1.96 * np.sqrt(0.3 * 0.7 / len(people))
    variance = max(spread_of_people, spread_of_stimuli) ** 2 / 3 / 24  # of the mean of 24 uniform ones
    assert np.mean(widths) < 1.3 * np.sqrt(normal**2 + 4 * 1.96**2 * variance)


def test_a_rate_that_no_resampling_varies_has_the_exact_binomial_interval() -> None:
    people, stimuli = crossed(2, 10)
    for outcome, expected in ((False, (0.0, 0.1684)), (True, (0.8316, 1.0))):
        measured = rate([outcome] * 20, people, stimuli)
        assert (measured.low, measured.high) == pytest.approx(expected, abs=1e-4)
        assert scipy.stats.binomtest(20 * outcome, 20).proportion_ci().low == pytest.approx(measured.low)


def test_groups_count_the_same_whatever_their_sizes() -> None:
    people, stimuli = crossed(4, 10)
    groups = (stimuli >= 8).astype(int)
    measured = rate(groups == 1, people, stimuli, groups)
    assert measured.value == 0.5
    assert measured.count == 40


def test_one_person_has_an_interval_from_the_stimuli() -> None:
    outcomes = np.arange(50) % 5 == 0
    measured = rate(outcomes, [0] * 50, np.arange(50))
    assert measured.low == pytest.approx(0.2 - 1.96 * np.sqrt(0.2 * 0.8 / 50), abs=0.03)
    assert measured.deviation == pytest.approx(np.sqrt(0.2 * 0.8 / 50), rel=0.1)


@pytest.mark.parametrize(("wins", "trials"), [(0, 0), (5, 10), (9, 10), (0, 6), (560, 1000), (1, 1)])
def test_the_test_of_a_preference_is_the_exact_binomial_one(wins: int, trials: int) -> None:
    expected = scipy.stats.binomtest(wins, trials).pvalue if trials else 1.0
    assert binomial_test(wins, trials) == pytest.approx(expected, abs=1e-12)


def test_fleiss_kappa_is_that_of_the_published_example() -> None:
    found = agreement(FLEISS)
    assert found is not None
    assert found.kappa == pytest.approx(0.210, abs=5e-4)
    assert found.pairwise == pytest.approx(0.378, abs=5e-4)
    assert found.num_questions == 10


def test_questions_with_one_answer_say_nothing_on_agreement() -> None:
    assert agreement(np.array([[1, 0], [0, 1]])) is None
    both = agreement(np.array([[4, 0], [0, 4], [1, 0]]))
    assert both is not None
    assert (both.pairwise, both.kappa, both.num_questions) == (1, 1, 2)
    alike = agreement(np.array([[4, 0], [3, 0]]))
    assert alike is not None
    assert alike.kappa is None


def test_correlations_are_those_of_scipy_also_with_ties() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 6, 40).astype(float)
    second = first + generator.normal(0, 2, 40)
    found = correlation(first, second)
    assert found is not None
    assert found.pearson == pytest.approx(scipy.stats.pearsonr(first, second)[0])
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(first, second)[0])
    assert found.low < found.spearman < found.high
    assert correlation([1, 2, 3], [1, 2, 3]) is None
    assert correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None


def test_strengths_are_the_most_likely_ones() -> None:
    wins = np.array([[0, 30, 45], [10, 0, 30], [5, 20, 0]], float)
    strengths = bradley_terry(wins)
    assert strengths.sum() == pytest.approx(1)
    counted = wins + 0.5 * (1 - np.eye(3))
    expected = counted.sum(axis=1)  # at the maximum, each has won as often as its strength says
    chances = strengths[:, None] / (strengths[:, None] + strengths[None])
    assert ((counted + counted.T) * chances * (1 - np.eye(3))).sum(axis=1) == pytest.approx(expected, rel=1e-5)
    assert bradley_terry(np.array([[0, 10], [0, 0]], float))[1] > 0
