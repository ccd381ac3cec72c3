"""Adding up replies in which SCAN names a key twice."""

from __future__ import annotations

from tt_migrate.results import Effort
from tt_migrate.tally import MigrationTally, PreviewTally

EFFORT = Effort(batches=1, seconds=0.0, max_pause_ms=None, reconnects=0)
KEY = b"tt:agent:1"


def test_a_key_named_twice_is_previewed_once() -> None:
    tally = PreviewTally("town")
    tally.add([[KEY], [], [], [b"tt:task:events"]])
    tally.add([[KEY], [], [], [b"tt:task:events"]])
    preview = tally.result(EFFORT)
    assert (preview.total, len(preview.ambiguous)) == (1, 1)


def test_a_destination_made_between_two_mentions_is_a_conflict_and_no_move() -> None:
    tally = PreviewTally("town")
    tally.add([[KEY], [], [], []])
    tally.add([[], [KEY], [], []])
    preview = tally.result(EFFORT)
    assert (set(preview.moves), set(preview.conflicts)) == (set(), {KEY})


def test_a_key_left_alone_twice_is_listed_once_and_renames_add_up() -> None:
    tally = MigrationTally("town")
    for _ in range(2):
        tally.add([[1, 0, 0, 0, 0, 0, 0], [KEY], [b"tt:stop:1", b"ERR no"], []])
    migration = tally.result(EFFORT)
    assert (migration.total, list(migration.conflicts)) == (2, [KEY])
    assert migration.failed == {b"tt:stop:1": "ERR no"}
