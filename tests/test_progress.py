"""The progress line fits the terminal, and a job's log gets one every ten seconds."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions as redis_errors

from tt_migrate.engine.calls.retry import PassingError, two_words
from tt_migrate.engine.passes.changes import Changes
from tt_migrate.engine.passes.tallies import MigrationTally
from tt_migrate.plan import RENAME
from tt_migrate.results import Effort, Migration, Progress
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.progress import ProgressBar, ProgressLines, Watch, fitting


def migration(total: int) -> Migration:
    tally = MigrationTally(RENAME, "town", Changes(None, RENAME, "town"))
    return Migration(
        plan=RENAME,
        town="town",
        keys={**tally.keys, "agent": total},
        merged=tally.merged,
        converted={},
        conflicts={},
        failed={},
        ambiguous=(),
        unconverted={},
        towns=(),
        left=None,
        effort=Effort(1, 1.0, 5.0, 0),
    )


HALF = Progress("migrating", 500_000, 1_000_000, migration(400_000), "connection lost")


def test_a_wide_terminal_shows_all_and_a_narrow_one_what_matters() -> None:
    assert fitting(HALF, 20, 120) == (
        "[####----]  50%  migrating  400000 migrated  20000/s  500000/1000000"
        "  20 s left  connection lost"
    )
    assert fitting(HALF, 20, 79) == (
        "[####----]  50%  migrating  400000 migrated  20 s left  connection lost"
    )
    assert fitting(HALF, 20, 39) == "50%  20 s left  connection lost"
    assert fitting(replace(HALF, waiting="nice pause"), 20, 39) == (
        "[####----]  50%  20 s left  nice pause"
    )


@given(
    scanned=st.integers(0, 10**12),
    dbsize=st.integers(0, 10**12),
    seconds=st.floats(0, 10**7),
    width=st.integers(1, 200),
    waiting=st.sampled_from(["", "nice pause", "server unavailable"]),
)
def test_a_line_is_never_longer_than_the_terminal(
    scanned: int, dbsize: int, seconds: float, width: int, waiting: str
) -> None:
    now = replace(HALF, scanned=scanned, dbsize=dbsize, waiting=waiting)
    text = fitting(now, seconds, width)
    assert len(text) <= width
    assert text.isprintable()
    if waiting and width >= 39:
        assert waiting in text
        assert len(waiting.split()) == 2


@pytest.mark.parametrize(
    ("seconds", "left"), [(10, "10 s left"), (1200, "20 min left"), (100_000, "28 h left")]
)
def test_an_estimate_is_in_a_unit_that_one_reads(seconds: float, left: str) -> None:
    assert f"  {left}  " in fitting(HALF, seconds, 120)


def test_nothing_is_estimated_before_the_first_key_and_after_the_last() -> None:
    for scanned in (0, 1_000_000):
        assert " left" not in fitting(replace(HALF, scanned=scanned), 20, 120)


def test_every_reason_to_wait_has_two_words() -> None:
    states = [PassingError(f"{code} x") for code in ("BUSY", "MASTERDOWN", "TRYAGAIN", "ELSE")]
    others = (
        redis_errors.ConnectionError("x"),
        redis_errors.TimeoutError("x"),
        redis_errors.ReadOnlyError("x"),
        redis_errors.BusyLoadingError("x"),
    )
    reasons = [two_words(error) for error in (*states, *others)]
    assert [len(re.split("[ -]", reason)) for reason in reasons if "-" not in reason] == [2] * 7
    assert reasons[0] == "server busy"
    assert reasons[-1] == "server loading"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that time.monotonic() tells, to be set."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_bar_stays_in_its_line(clock: list[float]) -> None:
    stream = StringIO()
    bar = ProgressBar(Output(stream))
    watch = Watch(bar)
    for n in range(10):
        clock[0] = n
        watch(replace(HALF, scanned=n * 100_000, waiting=""))
    bar.close()
    first, *lines = stream.getvalue().split("\r")
    assert first == ""
    assert len(lines) == 9
    assert {len(line.rstrip("\n")) for line in lines} == {79}
    assert stream.getvalue().count("\n") == 1


def test_the_bar_is_drawn_about_ten_times_a_second(clock: list[float]) -> None:
    stream = StringIO()
    bar = ProgressBar(Output(stream))
    watch = Watch(bar)
    for n in range(300):
        clock[0] = n / 100
        watch(replace(HALF, waiting=""))
    assert 20 <= stream.getvalue().count("\r") <= 26


def test_a_log_gets_a_dated_line_every_ten_seconds(clock: list[float]) -> None:
    stream = StringIO()
    watch = Watch(ProgressLines(Output(stream)))
    for n in range(36):
        clock[0] = n
        watch(HALF)
    written = stream.getvalue().splitlines()
    assert len(written) == 3
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 50%, migrating, 400000 migrated, 20000/s,"
        " 500000/1000000, 20 s left, connection lost",
        written[1],
    )
