"""What a run says is left: a final pass counts it, or a pass that has changed nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from uuid import UUID

import pytest
from redis import Redis

from tests.midway import fill
from tests.servers import Server
from tests.tables import each
from tests.test_lost_replies import PATIENT, client_of, losing, record
from tests.users import user_without
from tt_migrate import (
    DOWNGRADE,
    HASH,
    RENAME,
    REVERSE,
    UPGRADE,
    Migration,
    Migrator,
    Plan,
    Progress,
    from_town,
)
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.calls.slots import ALL_SLOTS, Look
from tt_migrate.engine.passes.tallies import MigrationTally

PLANS = (RENAME, HASH, UPGRADE, replace(UPGRADE, merge=True), REVERSE, DOWNGRADE, from_town("web"))


def put(redis: Redis) -> None:
    """Keys that a run moves, and what each plan leaves."""
    towns = ("tt:town:", "tt:web:", "tt:", "mt:")
    for n, start in enumerate(towns):
        redis.set(f"{start}agent:{UUID(int=n)}", record(n))
        # A record that cannot be converted, and one of another type.
        redis.set(f"{start}task:{n}", "no JSON")
        redis.sadd(f"{start}task:set{n}", n)
        redis.hset(f"{start}agent:hash{n}", mapping={"id": "other", "name": "x"})
        redis.rpush(f"{start}inbox:{n}", n)
        # Conflicts of each plan.
        redis.hset(f"{start}agent:both", mapping={"id": "both", "n": n})
        redis.set(f"{start}task:both", n)
        redis.set(f"{start}stop:both", n)
        redis.rpush(f"{start}urgent:both", n)
    for name in ("events", "mission:1", "docket:tasks", "task:backlog", "what:is:it"):
        redis.set(f"tt:town:{name}", 1)
        redis.set(f"tt:web:{name}", 1)
    redis.set("tt:task:backlog", 1)
    redis.set("tt:other:agent:1", 1)


def run(redis: Redis, plan: Plan) -> tuple[Migration, set[str]]:
    stages: set[str] = set()

    def progress(now: Progress) -> None:
        stages.add(now.stage)

    return Migrator(redis, "town", plan, progress=progress).migrate(), stages


@each("plan", PLANS)
def test_a_pass_that_changes_nothing_says_what_a_final_pass_would(
    redis: Redis, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(redis)
    first, stages = run(redis, plan)
    assert first.changed
    assert "verifying" in stages
    again, stages = run(redis, plan)
    # One more pass reads the names of agents.
    assert ("verifying" in stages) == (plan in (HASH, from_town("web")))
    with monkeypatch.context() as blind:
        blind.setattr(MigrationTally, "has_changed", property(lambda _: True))
        checked, _ = run(redis, plan)
    assert again.left
    assert checked.left
    assert again.changed == checked.changed == 0
    said, expected = asdict(again.left), asdict(checked.left)
    for count in (said["count"], expected["count"]):
        (count or {}).pop("effort", None)
    assert said == expected
    for name in (
        "remaining",
        "appeared",
        "records_left",
        "already_hashes",
        "unreadable",
        "complete",
    ):
        assert getattr(again, name) == getattr(checked, name), name
    assert (again.towns, again.has_keys) == (checked.towns, checked.has_keys)
    assert again.remaining or again.records_left


def test_a_lost_reply_may_have_been_about_a_change_so_the_pass_is_not_the_final_one(
    newest: Server,
) -> None:
    """The only old key is renamed unseen, perhaps to a place that the scan has passed already."""
    redis = newest.client()
    fill(redis, 1000, "tt:other:stop:")
    for n in range(8):
        old, new = f"tt:agent:{n}", f"tt:my-project:agent:{n}"
        redis.delete(f"tt:my-project:agent:{n - 1}")
        redis.set(old, "{}")
        lost: list[int] = []

        def renamed(call: int, _: Sequence[bytes], new: str = new, lost: list[int] = lost) -> bool:
            lost.extend([call] if not lost and redis.exists(new) else [])
            return lost == [call]

        with losing(newest, renamed) as address, client_of(address) as client:
            run_ = Migrator(client, "my-project", max_pause_ms=0.001, retry=PATIENT)
            result = run_.migrate()
        assert (result.total, result.effort.lost_replies) == (0, 1)
        assert result.unreadable == {"agent": 1, "task": 0}, n


def test_a_pass_under_which_a_slot_has_moved_is_not_the_final_one(
    newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = newest.client()
    redis.rpush("tt:town:inbox:1", "a")
    still = Look({"": (b"1", ALL_SLOTS)}, is_still=True)
    looks = [still, replace(still, own={"": (b"2", ALL_SLOTS)})]

    def look(_: Session) -> Look:
        if len(looks) == 1:
            # A key that has come with the slot, behind the cursor.
            redis.rpush("tt:inbox:2", "a")
        return looks.pop(0) if looks else still

    monkeypatch.setattr(Session, "look", look)
    result, stages = run(redis, RENAME)
    assert "verifying" in stages
    assert (result.total, result.remaining, result.complete) == (0, 1, False)


def test_strings_are_counted_for_a_user_who_may_not_run_type(newest: Server) -> None:
    newest.client().set("tt:town:agent:1", "{}")
    result, stages = run(user_without(newest, "type"), RENAME)
    assert (result.unreadable["agent"], "verifying" in stages) == (1, True)
