"""Statistics of what people answered: rates with intervals, preference, agreement between people, correlation with metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
MIN_CORRELATED = 4
_TAILS = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
_MAX_STEPS, _TOLERANCE = 10_000, 1e-9


@dataclass(frozen=True)
class Rate:
    """A share of answers.

    Attributes:
        value: 0..1.
        low: lower end of the 95 % interval.
        high: its upper end.
        deviation: standard deviation over the resamples.
        count: answers that it rests on.
    """

    value: float
    low: float
    high: float
    deviation: float
    count: int


@dataclass(frozen=True)
class Agreement:
    """How alike people answer.

    Attributes:
        pairwise: share of pairs of answers to one question that are the same.
        kappa: Fleiss' kappa: 1 where all agree, 0 where they agree as often as by chance; None where all answers are the same.
        num_questions: questions that at least two people answered.
    """

    pairwise: float
    kappa: float | None
    num_questions: int


@dataclass(frozen=True)
class Correlation:
    """How two lists of values go together.

    Attributes:
        pearson: of the values.
        spearman: of their ranks.
        low: lower end of the 95 % interval of `spearman`, from resampled entries.
        high: its upper end.
        count: entries.
    """

    pearson: float
    spearman: float
    low: float
    high: float
    count: int


def rate(
    outcomes: Sequence[bool] | np.ndarray,
    people: Sequence[int] | np.ndarray,
    stimuli: Sequence[int] | np.ndarray,
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Rate:
    """The share of outcomes that hold, with a bootstrap interval.

    Answers of one person are alike, and so are answers to one stimulus. People are resampled with all their answers, then, by
    itself, stimuli with all theirs, and the wider of the two intervals counts (percentiles). Where all outcomes are the same, which
    no resampling varies, the interval is the exact one of the binomial distribution (Clopper and Pearson, 1934).

    Args:
        outcomes: bool [N].
        people: who gave each answer, [N].
        stimuli: what it was given to, [N].
        groups: of each answer, [N]; the share is then the mean of the groups' shares, whatever their sizes.
    """
    held = np.asarray(outcomes, dtype=np.float64)
    member = np.zeros(len(held), np.int64) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    value = float(_shares(*_sums(held, member, np.zeros(len(held), np.int64)))[0])
    if np.ptp(held) == 0:
        reach = 1 - ((1 - CONFIDENCE) / 2) ** (1 / len(held))
        low, high = (1 - reach, 1.0) if held[0] else (0.0, reach)
        return Rate(value, low, high, 0.0, len(held))
    generator = np.random.default_rng(seed)
    widest = Rate(value, 0.0, 1.0, 0.5, len(held))
    is_first = True
    for names in (people, stimuli):
        clusters = np.unique(np.asarray(names), return_inverse=True)[1]
        num_clusters = clusters.max() + 1
        weights = generator.multinomial(num_clusters, [1 / num_clusters] * num_clusters, NUM_RESAMPLES)
        draws = _shares(*(weights @ sums for sums in _sums(held, member, clusters)))
        draws = draws[np.isfinite(draws)]
        if num_clusters < 2 or len(draws) < NUM_RESAMPLES // 2:
            continue
        low, high = map(float, np.percentile(draws, _TAILS))
        if is_first or high - low > widest.high - widest.low:
            widest = Rate(value, low, high, float(draws.std(ddof=1)), len(held))
        is_first = False
    return widest


def _sums(outcomes: np.ndarray, groups: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many outcomes hold, and how many there are, in each cluster and group [K,G]."""
    shape = clusters.max() + 1, groups.max() + 1
    cells = clusters * shape[1] + groups
    held, all_of_them = (np.bincount(cells, values, shape[0] * shape[1]).reshape(shape) for values in (outcomes, None))
    return held, all_of_them


def _shares(held: np.ndarray, all_of_them: np.ndarray) -> np.ndarray:
    """The mean over groups of the shares [R,G] of each row; NaN where a group is empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = (held / all_of_them).mean(axis=1)
    return mean


def binomial_test(wins: int, trials: int) -> float:
    """The two-sided p-value of `wins` out of `trials` where either side is as likely; exact, 1 for no trials."""
    fewer = min(wins, trials - wins)
    tail = sum(math.comb(trials, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / 2**trials) if trials else 1.0


def agreement(counts: np.ndarray) -> Agreement | None:
    """How far people give the same answer; None where no question has two answers.

    Questions may have different numbers of answers: each pair of answers counts once, and chance is what the answers' shares give.
    With as many answers to each, this is the original.

    Source: Fleiss (1971), Measuring nominal scale agreement among many raters.

    Args:
        counts: how many people gave each answer, int [questions, answers].
    """
    several = np.asarray(counts, dtype=np.float64)
    several = several[several.sum(axis=1) >= 2]
    if not len(several):
        return None
    totals = several.sum(axis=1)
    same = (several * (several - 1)).sum(axis=1)
    pairwise = float(same.sum() / (totals * (totals - 1)).sum())
    chance = float(((several.sum(axis=0) / totals.sum()) ** 2).sum())
    return Agreement(pairwise, None if chance >= 1 else (pairwise - chance) / (1 - chance), len(several))


def correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, seed: int = 0) -> Correlation | None:
    """How two lists go together; None where there are fewer than four entries, or one list does not vary."""
    one, two = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if len(one) < MIN_CORRELATED or np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    generator = np.random.default_rng(seed)
    draws = []
    for chosen in generator.integers(0, len(one), (NUM_RESAMPLES // 2, len(one))):
        if np.ptp(one[chosen]) > 0 and np.ptp(two[chosen]) > 0:
            draws.append(_pearson(ranks(one[chosen]), ranks(two[chosen])))
    low, high = map(float, np.percentile(draws, _TAILS))
    return Correlation(_pearson(one, two), _pearson(ranks(one), ranks(two)), low, high, len(one))


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    one, two = first - first.mean(), second - second.mean()
    return float((one @ two) / math.sqrt((one @ one) * (two @ two)))


def ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value in their order, from 1; equal ones share the mean of their places."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    places: np.ndarray = (last - (counts - 1) / 2)[which]
    return places


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths [M], which sum to 1, such that i beats j with probability s_i / (s_i + s_j); the most likely ones.

    Half a win is added to each side that met, so that whoever won or lost always has a strength, too.

    Source: Bradley and Terry (1952); the iteration of Hunter (2004), MM algorithms for generalized Bradley-Terry models.

    Args:
        wins: how often each beat each other, [M,M].
    """
    met = (wins + wins.T) > 0
    counted = wins + 0.5 * met
    games = counted + counted.T
    strengths = np.full(len(wins), 1 / len(wins))
    for _ in range(_MAX_STEPS):
        expected = (games / (strengths[:, None] + strengths[None])).sum(axis=1)
        updated = counted.sum(axis=1) / np.maximum(expected, np.finfo(np.float64).tiny)
        updated /= updated.sum()
        if np.abs(updated - strengths).max() < _TOLERANCE:
            return updated
        strengths = updated
    return strengths
