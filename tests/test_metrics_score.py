"""Scores: a value rests on something, or there is a reason why there is none."""

from __future__ import annotations

import math

import pytest

from vidgen.metrics.score import Score


@pytest.mark.parametrize(("value", "count"), [(0.5, 0), (math.nan, 3), (math.inf, 3), (-math.inf, 1), (math.nan, 0)])
def test_a_value_that_rests_on_nothing_or_is_no_number_is_none(value: float, count: int) -> None:
    score = Score.of(value, count, skipped=2, reason="no frame could be followed")
    assert (score.value, score.count, score.skipped, score.reason) == (None, 0, 2, "no frame could be followed")


def test_a_value_that_rests_on_one_sample_is_one() -> None:
    score = Score.of(0.5, 1, skipped=2)
    assert (score.value, score.count, score.skipped, score.reason) == (0.5, 1, 2, None)


def test_notes_add_up_and_speak_of_values_only() -> None:
    assert Score.of(0.5, 1).noted("few frames").noted("small").note == "few frames; small"
    assert Score.of(0.5, 1).noted(None).note is None
    assert Score.missing("no flow").noted("few frames").note is None
