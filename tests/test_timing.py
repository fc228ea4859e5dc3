"""How long a step is taken to last: what a busy machine needs, not what an idle one would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from vidgen.training import timing


@pytest.fixture
def clock_over(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, float]]:
    def run(lengths: list[float], deadline: float = 1e9) -> tuple[int, float]:
        """Number of steps done and seconds found, where steps last so long."""
        now = 0.0
        monkeypatch.setattr(timing.time, "monotonic", lambda: now)
        clock = timing._Clock(deadline)
        for number, length in enumerate(lengths, start=1):
            now += length
            if clock.step_done(cast(Any, None), cast(Any, None)):
                return number, clock.seconds
        return len(lengths), clock.seconds

    return run


def test_a_step_lasts_as_long_as_the_median_after_the_first(clock_over: Callable[..., tuple[int, float]]) -> None:
    assert clock_over([50.0, 1.0, 9.0, 2.0, 99.0]) == (4, 2.0)


def test_after_the_deadline_one_step_is_enough(clock_over: Callable[..., tuple[int, float]]) -> None:
    assert clock_over([50.0, 3.0, 9.0], deadline=10.0) == (2, 3.0)


def test_a_schedule_of_one_step_is_measured_by_it(clock_over: Callable[..., tuple[int, float]]) -> None:
    assert clock_over([7.0]) == (1, 7.0)
