"""The size of a SCAN step follows the server time of the last steps."""

from __future__ import annotations

import pytest

from tests.tables import each
from tt_migrate.engine.calls.pacing import Pace, pace_for


def settle(pace: Pace, microseconds_a_key: float, batches: int = 6) -> Pace:
    """Return the pace after some batches. Each batch makes steps until its budget is spent."""
    for _ in range(batches):
        step = pace.count * microseconds_a_key
        steps = max(1, int(pace.budget / step))
        pace = pace.after(steps, max(1, int(steps * step)))
    return pace


@each("microseconds_a_key", [0.3, 1, 4, 20])
def test_a_step_settles_at_a_twentieth_of_a_batch(microseconds_a_key: float) -> None:
    pace = settle(pace_for(5), microseconds_a_key)
    step = pace.count * microseconds_a_key
    assert 0.5 <= step / (pace.budget / 20) <= 1.5


def test_a_batch_leaves_a_margin_below_the_pause() -> None:
    assert 4500 <= pace_for(5).budget < 5000
    assert pace_for(0.0001).budget == 1


def test_a_step_that_took_too_long_brings_the_hint_down_at_once() -> None:
    fast = settle(pace_for(5), 1)
    assert fast.count > 200
    assert fast.after(1, 40_000).count == 10


def test_the_hint_grows_no_more_than_twofold_at_a_time() -> None:
    assert pace_for(1000).after(100, 1).count == 200


def test_the_hint_stays_within_bounds() -> None:
    assert settle(pace_for(1000), 0.001, 20).count == 2000
    assert settle(pace_for(1), 1_000_000, 20).count == 10


def test_without_a_clock_the_hint_stays() -> None:
    assert pace_for(5).after(1, 0) == pace_for(5)
    assert pace_for(5).after(0, 100) == pace_for(5)


def test_a_server_is_left_alone_for_a_moment_after_each_batch() -> None:
    assert pace_for(5).rest(0.005) == 0.0002
    assert pace_for(5, nice=0.001).rest(0.005) == 0.0002


def test_nice_leaves_a_server_alone_in_proportion_to_the_batch() -> None:
    assert pace_for(5, nice=3).rest(0.005) == pytest.approx(0.015)
