"""Adds up replies in which SCAN returns a key twice."""

from __future__ import annotations

from typing import Any

from tt_migrate.engine.calls.replies import COUNTED, MigrateReply, PreviewReply
from tt_migrate.engine.passes.changes import Changes
from tt_migrate.engine.passes.tallies import MigrationTally, PreviewTally
from tt_migrate.plan import RENAME, REVERSE
from tt_migrate.results import Effort, Server

KEY = b"tt:agent:1"
NOTHING = PreviewReply(
    *(b"0", 1, 10, 3, b"", [], [], [], [], [], [], []),
    *(b"", [], [], [], [0] * 7, [0] * COUNTED, b"0", 0),
)


def previewed(**fields: Any) -> PreviewReply:
    return NOTHING._replace(**fields)


def test_a_key_named_twice_is_previewed_once() -> None:
    tally = PreviewTally(RENAME, "town")
    for _ in range(2):
        tally.add(previewed(moves=KEY, ambiguous=[b"tt:task:events"]))
    assert (len(tally.moves), len(tally.ambiguous)) == (1, 1)


def test_a_destination_made_between_two_mentions_is_a_conflict_and_no_move() -> None:
    tally = PreviewTally(RENAME, "town")
    tally.add(previewed(moves=KEY))
    tally.add(previewed(conflicts=[KEY, b"why"]))
    assert (tally.moves, tally.conflicts) == (set(), {KEY: "why"})
    tally.add(previewed(moves=KEY))
    assert (tally.moves, tally.conflicts) == (set(), {KEY: "why"})


def test_a_key_left_alone_twice_is_listed_once_and_renames_add_up() -> None:
    tally = MigrationTally(RENAME, "town", Changes(None, RENAME, "town"))
    for _ in range(2):
        left = ([KEY, b"why"], [b"tt:stop:1", b"ERR no"])
        tally.add(
            MigrateReply(
                *(b"0", 1, 10, 3, [1, *[0] * 6], [0] * 7, *left, [], [], [], [], []),
                *([0, 0], [], [], [], [0] * COUNTED, 0, b""),
            )
        )
    assert (tally.keys["agent"], tally.conflicts) == (2, {KEY: "why"})
    assert tally.failed == {b"tt:stop:1": "ERR no"}
    assert tally.has_changed


def test_what_a_pass_has_left_is_counted_anew_when_it_starts_over() -> None:
    tally = MigrationTally(REVERSE, "town", Changes(None, REVERSE, "town"))
    key = b"tt:town:agent:1"
    for _ in range(2):
        tally.restart()
        tally.add(
            MigrateReply(
                *(b"0", 1, 10, 3, [0] * 7, [0] * 7, [key, b"why"], [], [], [], [], [], []),
                *([0, 0], [], [], [], [*[0] * 4, 1, *[0] * 4], 0, b""),
            )
        )
    left = tally.left(Effort(1, 0, 0, 0), Server("redis", "8.2", "master"))
    assert (left.total, left.hashes, tally.has_changed) == (1, 1, False)
