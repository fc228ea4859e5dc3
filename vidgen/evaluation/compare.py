"""Two or more reports side by side: differences with intervals, and an order that no blurred or frozen video can win."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from vidgen.errors import InputError
from vidgen.evaluation.report import Difference, Ranking, Report
from vidgen.metrics.score import METRICS, Better, Score, base_of

if TYPE_CHECKING:
    from vidgen.metrics.temporal import Columns

NUM_RESAMPLES = 500
OF_REFERENCE = ("warp_error_source", "warp_error_target")
"""Scores of what is compared with, the same for every video."""


def compare_reports(
    first: Report, second: Report, summarize: Callable[[Columns], Mapping[str, Score]], *, seed: int = 0
) -> dict[str, Difference]:
    """By key: the value of `second`, `first` minus `second`, and a 95 % interval of that from resampled stretches of frames.

    Both are resampled at the same frames, so that what is hard for both does not widen the interval. Stretches, since
    neighboring frames are alike (moving-block bootstrap, Künsch 1989). Scores that do not come from frames have no interval.

    Args:
        summarize: scores from the values of frames.

    Raises:
        InputError: the videos differ in length.
    """
    length, other_length = (len(report.per_frame.get("sharpness", ())) for report in (first, second))
    if length != other_length:
        raise InputError(f"compared videos must be equally long: {length} and {other_length} frames")
    generator = np.random.default_rng(seed)
    block = math.ceil(math.sqrt(length))
    draws: dict[str, list[float]] = {}
    for _ in range(NUM_RESAMPLES if length else 0):
        starts = generator.integers(0, length - block + 1, size=math.ceil(length / block))
        chosen = (starts[:, None] + np.arange(block)).ravel()[:length]
        drawn = [
            _values(summarize({name: values[chosen] for name, values in report.per_frame.items()})) for report in (first, second)
        ]
        for key in drawn[0].keys() & drawn[1].keys():
            draws.setdefault(key, []).append(drawn[0][key] - drawn[1][key])
    result: dict[str, Difference] = {}
    for key in first.metrics:
        if key not in second.metrics or not is_contest(key, first.metrics[key].better):
            continue
        value, other = first[key], second[key]
        difference = None if value is None or other is None else value - other
        enough = difference is not None and length > block and len(draws.get(key, ())) >= NUM_RESAMPLES // 2
        low, high = (float(bound) for bound in np.percentile(draws[key], [2.5, 97.5])) if enough else (None, None)
        result[key] = Difference(value=other, difference=difference, low=low, high=high)
    return result


def is_contest(key: str, better: Better) -> bool:
    """Whether one video can be better than another by this score."""
    return better != "context" and base_of(key) not in OF_REFERENCE


def rank(reports: Mapping[str, Report]) -> Ranking:
    """Put the videos in order by each score that has a better and a worse.

    A video that the verdict refuses is ranked only where it is compared with a target, a reference set or label maps. Scores that
    are marked unreliable rank nobody.
    """
    left_out = {name: report.reasons for name, report in reports.items() if report.reasons}
    order: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for report in reports.values() for key in report.metrics):
        entries = {name: report.metrics[key] for name, report in reports.items() if key in report.metrics}
        better = next(iter(entries.values())).better
        if not is_contest(key, better):
            continue
        values = {
            name: entry.value
            for name, entry in entries.items()
            if entry.value is not None and entry.is_reliable and (_is_fidelity(key) or name not in left_out)
        }
        if len(values) > 1:
            order[key] = sorted(values, key=lambda name: distance_from_best(values[name], better))
    return Ranking(order=order, left_out=left_out)


def _is_fidelity(key: str) -> bool:
    """Whether a score compares with real frames or labels, which neither blur nor stillness can please."""
    metric = METRICS.get(base_of(key))
    return (
        metric is not None
        and bool(metric.needs & {"target", "real", "reference_set", "labels"})
        and "reference" not in metric.needs
    )


def distance_from_best(value: float, better: Better) -> float:
    """Smallest at the best value."""
    if better == "one":
        return abs(math.log(value)) if value > 0 else math.inf
    return -value if better == "high" else value


def _values(scores: Mapping[str, Score]) -> dict[str, float]:
    return {key: score.value for key, score in scores.items() if score.value is not None}
