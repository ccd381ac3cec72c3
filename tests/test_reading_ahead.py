"""Passes that only read have several calls in flight: each passes over what others read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import ResponseError

from tests.clusters import Cluster
from tests.midway import at_batches, cut_connections, quick_retry
from tests.midway import fill as fill_with
from tests.servers import Server
from tests.tables import each
from tests.test_flight import RTT_MS, Far, Line, far, line
from tests.users import user_without
from tt_migrate import HASH, RENAME, REVERSE, UPGRADE, Migrator, Plan, Preview, Progress, from_town
from tt_migrate.engine.calls.pacing import Pace
from tt_migrate.engine.calls.replies import CountReply
from tt_migrate.engine.calls.scripts import Call, Script, source
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.passes.places import ReadingPlace

pytestmark = pytest.mark.far

__all__ = ["far", "line"]

KEYS, PAUSE_MS = 3000, 0.5
LOOKS = ("count", "preview", "agents")
SCRIPT = Script("", reads=True)


def fill(redis: Redis, keys: int = KEYS) -> None:
    fill_with(redis, keys, "tt:inbox:")


def counted(redis: Redis, cursor: bytes, ahead: int, steps: int, budget: int = 10**6) -> CountReply:
    """Call count.lua with a COUNT hint of 10."""
    args: Any = ("town", cursor, 10, budget, "", "", ahead, steps)
    return CountReply(*redis.eval(source("count", RENAME), 0, *args))


@pytest.mark.every_kind
@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_a_call_begins_where_the_calls_before_it_end(redis: Redis, ahead: int) -> None:
    fill(redis, 1000)
    cursor, found, steps = b"0", 0, 3
    while cursor != b"0" or not found:
        first = counted(redis, cursor, 0, ahead)
        assert (first.begin, first.passing) == (cursor, 0)
        following = counted(redis, cursor, ahead, steps)
        if first.cursor == b"0":
            assert (following.begin, following.cursor, following.steps) == (b"", b"0", 0)
            assert sum(following.families) == 0
        else:
            assert following.begin == first.cursor
            assert following.elapsed >= following.passing >= 0
            assert following.steps == steps or following.cursor == b"0"
        found += sum(first.families) + sum(following.families)
        cursor = following.cursor
    assert found == 1000


@pytest.mark.every_kind
def test_a_call_whose_time_is_spent_before_it_begins_reads_nothing(redis: Redis) -> None:
    fill(redis, 10_000)
    said = counted(redis, b"0", 900, 3, budget=1)
    assert (said.begin, said.cursor, said.steps) == (b"", b"0", 0)
    assert sum(said.families) == 0


@each("operation", LOOKS)
def test_a_malformed_number_of_steps_is_named(newest: Server, operation: str) -> None:
    args = ("t", "0", "10", "1000", "", "")
    for ahead, steps, named in (
        *((wrong, "0", "ahead") for wrong in ("", "-1", "1.5", "x", "1000001", "1e3")),
        *(("0", wrong, "steps") for wrong in ("", "-1", "1.5", "x", "1000001", "1e3")),
    ):
        with pytest.raises(ResponseError, match=f"^BADARG {named}: "):
            newest.client().eval(source(operation, RENAME), 0, *args, ahead, steps)
    with pytest.raises(ResponseError, match=r"^BADARG takes .*: .*, from, ahead, steps"):
        newest.client().eval(source(operation, RENAME), 0, *args, "0")


@pytest.mark.every_kind
def test_passing_over_looks_at_the_same_slot_as_reading(shard: Server) -> None:
    """In cluster mode, a glob that begins with a hash tag looks at one slot only."""
    redis = shard.client()
    for n in range(300):
        redis.hset(f"tt:{{x}}:task:{n}", "id", n)
        redis.set(f"tt:inbox:{n}", n)
    script = source("hashes", RENAME, "shard")

    def hashes(cursor: bytes, ahead: int, steps: int) -> CountReply:
        args: Any = ("{x}", cursor, 10, 10**6, "", "", ahead, steps)
        return CountReply(*redis.eval(script, 0, *args))

    assert sum(hashes(b"0", 0, 0).counted) == 300
    first, following = hashes(b"0", 0, 4), hashes(b"0", 4, 0)
    assert first.cursor == following.begin != b"0"
    assert sum(first.counted) + sum(following.counted) == 300


@contextmanager
def ahead_of() -> Iterator[list[int]]:
    """How many steps each call passes over that is sent before a reply."""
    found: list[int] = []
    send = Session.send

    def note(self: Session, call: Call) -> None:
        if call.script.reads and not call.about:
            found.append(int(call.args[6]))
        send(self, call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "send", note)
        yield found


def put_everything(redis: Redis) -> None:
    """Keys of every kind that a look tells apart."""
    fill(redis)
    fill_with(redis, 300, "tt:task:", '{"id": "1"}')
    fill_with(redis, 300, "tt:town:agent:", '{"name": "a", "id": "1"}')
    fill_with(redis, 300, "tt:old:agent:", '{"name": "a"}')
    fill_with(redis, 300, "tt:town:urgent:")
    fill_with(redis, 1000, "foreign:")
    redis.mset({"tt:web:inbox:1": 1, "tt:task:backlog": 1, "tt:inbox:a\nb": 1})


def facts(preview: Preview) -> list[object]:
    """What a preview has found."""
    sets = (preview.moves, preview.ambiguous, preview.conversions, preview.towns)
    maps = (preview.conflicts, preview.merges, preview.unconverted, preview.namesakes)
    return [*map(set, sets), *map(dict, maps), preview.dbsize]


@pytest.mark.parametrize(
    "plan", [RENAME, HASH, UPGRADE, REVERSE, from_town("old", merge=True)], ids=lambda p: p.name
)
def test_a_look_says_the_same_far_away_as_near(server: Server, plan: Plan, far: Far) -> None:
    admin = server.client()
    put_everything(admin)
    near = Migrator(admin, "town", plan, max_pause_ms=PAUSE_MS)
    admin.config_resetstat()
    with far(server, jitter_ms=4) as redis, ahead_of() as ahead:
        there = Migrator(redis, "town", plan, max_pause_ms=PAUSE_MS)
        count, preview = there.count(), there.preview()
    assert max(ahead) > 0
    assert count.effort.one_at_a_time == preview.effort.one_at_a_time == ""
    assert facts(preview) == facts(near.preview())
    expected = near.count()
    assert (count.keys, count.conflicts, count.hashes) == (
        *(expected.keys, expected.conflicts),
        expected.hashes,
    )
    assert (count.strings, count.old_strings) == (expected.strings, expected.old_strings)
    assert "cmdstat_set" not in admin.info("commandstats")


def test_an_upgrade_far_away_ends_with_a_count_that_reads_ahead(newest: Server, far: Far) -> None:
    admin = newest.client()
    fill(admin)
    with far(newest) as redis, ahead_of() as ahead:
        result = Migrator(redis, "town", UPGRADE, max_pause_ms=PAUSE_MS).migrate()
    assert (result.total, result.remaining, result.complete) == (KEYS, 0, True)
    assert max(ahead) > 0


def test_nothing_reads_ahead_near(newest: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tt_migrate.engine.passes.in_flight._WORTH_SECONDS", 60)
    monkeypatch.setattr("tt_migrate.engine.passes.in_flight._SURELY_FAR_SECONDS", 60)
    fill(newest.client())
    with ahead_of() as ahead:
        assert Migrator(newest.client(), "town", max_pause_ms=PAUSE_MS).count().total == KEYS
    assert ahead == []


def test_a_user_who_may_only_read_reads_ahead(newest: Server, far: Far) -> None:
    fill(newest.client())
    user_without(newest, "@write")
    with far(newest, username="less", password="secret") as redis, ahead_of() as ahead:
        assert Migrator(redis, "town", max_pause_ms=PAUSE_MS).preview().total == KEYS
    assert max(ahead) > 0


def test_each_call_ends_within_the_pause(newest: Server, far: Far) -> None:
    fill(newest.client(), 20_000)
    with far(newest) as redis, ahead_of() as ahead:
        effort = Migrator(redis, "town", max_pause_ms=2).count().effort
    assert max(ahead) > 0
    # The last step can take longer than the one before.
    assert effort.max_pause_ms
    assert effort.max_pause_ms < 3


def write_here_and_there(admin: Redis) -> None:
    for n in range(0, 400, 7):
        admin.set(f"other:{n}", n)
    for n in range(0, 400, 11):
        admin.delete(f"other:{n}")


ACTS: dict[str, Callable[[Redis], object]] = {
    "keys come and go": write_here_and_there,
    "the table grows": lambda admin: fill_with(admin, 20_000, "more:"),
    "the table shrinks": lambda admin: admin.eval(
        "for n = 0, 19999 do redis.call('DEL', 'more:' .. n) end", 0
    ),
    "old keys come": lambda admin: fill_with(admin, 500, "tt:urgent:"),
    "old keys go": lambda admin: admin.eval(
        "for n = 0, 499 do redis.call('DEL', 'tt:urgent:' .. n) end", 0
    ),
    "the connection is lost": cut_connections,
    "the scripts are flushed": lambda admin: admin.script_flush(),
    "another client's script is running": lambda admin: admin.eval(
        "local n = 0 repeat n = n + 1 until n > 1e6", 0
    ),
}


@pytest.mark.every_kind
@settings(
    max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    acts=st.lists(st.tuples(st.integers(1, 40), st.sampled_from([*ACTS])), min_size=1, max_size=8),
    pause=st.sampled_from([0.3, 1, 3]),
    jitter=st.sampled_from([0, 5]),
)
def test_whatever_happens_each_key_that_was_there_is_found(
    server: Server, acts: list[tuple[int, str]], pause: float, jitter: float, far: Far
) -> None:
    admin = server.client()
    admin.flushall()
    fill(admin)

    def progress() -> Callable[[Progress], None]:
        return at_batches([(number, partial(ACTS[act], admin)) for number, act in acts])

    with far(server, jitter) as redis:
        migrator = Migrator(redis, "town", max_pause_ms=pause, retry=quick_retry())
        moves = replace(migrator, progress=progress()).preview().moves
        count = replace(migrator, progress=progress()).count()
    assert {b"tt:inbox:%d" % n for n in range(KEYS)} <= {*moves}
    assert {key for key in moves if not key.startswith(b"tt:urgent:")} == {
        b"tt:inbox:%d" % n for n in range(KEYS)
    }
    # SCAN itself may return a key twice while the table is resized.
    assert count.keys["inbox"] >= KEYS
    if not {act for _, act in acts} & {"the table grows", "the table shrinks"}:
        assert count.keys["inbox"] == KEYS


def test_under_steady_writes_each_key_is_counted_once(server: Server, far: Far) -> None:
    admin = server.client()
    fill(admin)
    # The table is not resized by the writes.
    fill_with(admin, 100, "other:")
    stop = threading.Event()

    def write() -> None:
        client, n = server.client(), 0
        while not stop.is_set():
            n += 1
            client.delete(f"other:{n % 100}")
            client.set(f"other:{(n + 50) % 100}", 1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with far(server) as redis:
            for _ in range(5):
                count = Migrator(redis, "town", max_pause_ms=PAUSE_MS).count()
                assert count.total == KEYS
    finally:
        stop.set()
        writer.join()


def test_all_shards_of_a_cluster_are_read_ahead(cluster: Cluster, line: Line) -> None:
    client = cluster.client()
    for n in range(900):
        client.rpush(f"tt:inbox:{n}", n)
    with (
        RedisCluster(
            *("127.0.0.1", line(cluster.masters[0].port, 0)),
            address_remap=lambda address: (address[0], line(address[1], 0)),
        ) as redis,
        ahead_of() as ahead,
    ):
        migrator = Migrator(redis, "town", max_pause_ms=0.2)
        count, preview = migrator.count(), migrator.preview()
        assert (count.total, preview.total) == (900, 900)
        assert preview.effort.one_at_a_time == ""
        assert max(ahead) > 0
        done = migrator.migrate()
    assert (done.total, done.remaining) == (900, 0)
    assert done.effort.one_at_a_time == "the cluster has several shards"


class Chain:
    """A place, and what a server would reply to the calls that begin there."""

    def __init__(self, dbsize: int = 10**6) -> None:
        self.place = ReadingPlace()
        self.pace = Pace(budget=4000, ahead=True)
        self.dbsize = dbsize
        first = self.send(alone=True)
        assert first
        self.reply(first, b"100", steps=10, elapsed=1000)

    def send(self, *, alone: bool = False) -> Call | None:
        start = self.place.start(self.pace, alone=alone)
        if not start:
            return None
        call = Call(SCRIPT, (b"town", start.cursor, start.keys, 0, b"", b"", *start.more))
        self.place.sent(call)
        return call

    def reply(
        self,
        call: Call,
        cursor: bytes,
        begin: bytes | None = None,
        steps: int | None = None,
        elapsed: int = 3000,
    ) -> bool:
        """Whether the reply counts."""
        steps = int(call.args[7]) if steps is None else steps
        begin = self.place.cursor if begin is None else begin
        assert begin is not None
        passing = int(int(call.args[6]) * 40 * 0.1)
        said = CountReply(cursor, steps, elapsed, self.dbsize, [], 0, 0, [], [], begin, passing)
        counts = self.place.goes_on(call, said)
        if counts:
            self.place.reached(call, said)
        return counts

    def filled(self) -> list[Call]:
        """All calls that can be sent before a reply."""
        calls = []
        while call := self.send():
            calls.append(call)
        return calls


def test_a_call_passes_over_the_steps_of_those_before_it_and_not_for_long() -> None:
    calls = Chain().filled()
    ahead = [int(call.args[6]) for call in calls]
    steps = [int(call.args[7]) for call in calls]
    assert ahead == [sum(steps[:n]) for n in range(len(steps))]
    assert {call.args[1] for call in calls} == {b"100"}
    assert 3 <= len(calls) <= 20
    assert ahead[-1] * 40 * 0.15 < 2000


def test_a_reply_that_does_not_go_on_is_dropped_with_those_after_it() -> None:
    chain = Chain()
    calls = chain.filled()
    assert chain.reply(calls[0], b"200")
    assert not chain.reply(calls[1], b"300", begin=b"199")
    # Even if its cursor happens to be the right one: its segment is sent again.
    assert not chain.reply(calls[2], b"400", begin=b"200")
    again = chain.filled()
    assert (again[0].args[1], again[0].args[6]) == (b"200", 0)
    assert len(again) < len(calls)
    assert chain.reply(again[0], b"250")
    assert chain.place.cursor == b"250"


def test_a_call_that_makes_fewer_steps_ends_its_chain() -> None:
    chain = Chain()
    calls = chain.filled()
    assert chain.reply(calls[0], b"200", steps=1)
    assert not chain.reply(calls[1], b"300")
    assert chain.place.cursor == b"200"


def test_the_end_is_only_believed_of_a_call_that_goes_on() -> None:
    chain = Chain()
    calls = chain.filled()
    assert not chain.reply(calls[0], b"0", begin=b"")
    assert chain.place.cursor == b"100"
    again = chain.filled()
    assert chain.reply(again[0], b"0")
    assert chain.place.cursor is None
    assert chain.send(alone=True) is None


def test_where_reading_costs_as_little_as_passing_each_call_is_alone() -> None:
    chain = Chain()
    for _ in range(40):
        call = chain.send(alone=True)
        assert call
        # A key takes 0.1 microseconds, as to pass it.
        keys = int(call.args[2]) * (int(call.args[7]) or 10)
        chain.reply(call, b"%d" % (200 + _), steps=int(call.args[7]) or 10, elapsed=keys // 10)
        chain.place._passing = 0.1
    call = chain.send(alone=True)
    assert call
    assert call.args[6:] == (0, 0)
    assert chain.send() is None


def test_no_call_is_sent_beyond_the_end_of_the_scan() -> None:
    few = Chain(dbsize=3000).filled()
    assert sum(int(call.args[7]) for call in few[:-1]) * 40 < 3000
    assert len(few) < len(Chain().filled())
    assert len(Chain(dbsize=0).filled()) == len(Chain().filled())


def test_after_a_lost_connection_a_chain_begins_at_the_last_good_cursor() -> None:
    chain = Chain()
    chain.filled()
    chain.place.lost()
    [first, *_] = chain.filled()
    assert (first.args[1], first.args[6]) == (b"100", 0)


assert RTT_MS >= 5, "a client sends ahead at once"
