"""Properties of every keyspace and town, tested with random ones."""

from __future__ import annotations

from collections import Counter
from io import BytesIO, TextIOWrapper

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.keyspaces import EXPIRY_STEP_MS, contents
from tests.servers import Server
from tt_migrate import Migrator
from tt_migrate.escape import shown
from tt_migrate.keyspace import FAMILIES, in_order, old_key_start, town_bytes
from tt_migrate.plan import RENAME, REVERSE, Plan
from tt_migrate.results import Effort, Preview
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.text_report import TextReport

TOWN_WIDE = (b"backlog", b"events", b"broadcast")

ids = st.one_of(
    st.uuids().map(lambda uuid: str(uuid).encode()),
    st.binary(min_size=1, max_size=12).map(lambda b: b.replace(b":", b"_")),
    st.sampled_from([*TOWN_WIDE, b"agent", b"*", b"[a]", b"\\", b"\xff\xfe", b"\n", b"tt"]),
)
towns = st.one_of(
    st.sampled_from(["task", "agent", "backlog", "a:b", "x[1]*?\\", "日本", "tt", "%1", " ", ":"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)
old_keys = st.one_of(
    st.just(b"tt:backlog"),
    st.builds(
        lambda family, key_id: b"tt:" + family.encode() + b":" + key_id,
        st.sampled_from(FAMILIES[:-1]),
        ids,
    ),
)
foreign_keys = st.one_of(
    st.binary(max_size=12),
    st.builds(lambda parts: b":".join(parts), st.lists(ids, max_size=5)),
    st.builds(lambda parts: b"tt:" + b":".join(parts), st.lists(ids, max_size=4)),
    st.builds(lambda family: b"tt:" + family.encode() + b":", st.sampled_from(FAMILIES)),
)
values = st.tuples(
    st.sampled_from(["string", "list", "set", "zset", "hash", "stream"]),
    st.lists(st.binary(max_size=6), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(1, 1000)),
)


def write(redis: Redis, key: bytes, kind: str, items: list[bytes], ttl: int | None) -> None:
    numbered = {b"%d" % n: item for n, item in enumerate(items)}
    if kind == "string":
        redis.set(key, items[0])
    elif kind == "list":
        redis.rpush(key, *items)
    elif kind == "set":
        redis.sadd(key, *items)
    elif kind == "zset":
        redis.zadd(key, dict.fromkeys(items, 1.5))
    elif kind == "hash":
        redis.hset(key, mapping=numbered)  # type: ignore[arg-type]
    else:
        redis.xadd(key, numbered, id="1-1")  # type: ignore[arg-type]
        redis.xgroup_create(key, "group", id="0")
    if ttl:
        redis.pexpireat(key, EXPIRY_STEP_MS * (40_000_000 + ttl))


def is_old(key: bytes) -> bool:
    """The rule for old keys, written independently of the Lua script."""
    parts = key.split(b":")
    if parts == [b"tt", b"backlog"]:
        return True
    return (
        len(parts) == 3
        and parts[0] == b"tt"
        and parts[1].decode("latin-1") in FAMILIES[:-1]
        and parts[2] != b""
        and parts[2] not in TOWN_WIDE
    )


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    keyspace=st.dictionaries(st.one_of(old_keys, foreign_keys), values, max_size=25),
    town=towns,
    taken=st.sets(st.integers(0, 24)),
)
def test_exactly_the_right_keys_move_and_nothing_is_lost(
    either: Server,
    keyspace: dict[bytes, tuple[str, list[bytes], int | None]],
    town: str,
    taken: set[int],
) -> None:
    redis = either.client()
    redis.flushall()
    for key, value in keyspace.items():
        write(redis, key, *value)
    for n, key in enumerate(keyspace):
        if n in taken and is_old(key):
            redis.set(RENAME.destination(town, key), b"taken")
    before = contents(redis)
    old = {key for key in before if is_old(key)}
    blocked = {key for key in old if RENAME.destination(town, key) in before}

    preview = Migrator(redis, town).preview()
    assert contents(redis) == before
    assert set(preview.moves) == old - blocked
    assert set(preview.conflicts) == blocked

    result = Migrator(redis, town).migrate()
    after = contents(redis)
    expected = {
        (RENAME.destination(town, key) if key in old - blocked else key): content
        for key, content in before.items()
    }
    assert after == expected
    assert Counter(after.values()) == Counter(before.values())
    assert (result.total, result.remaining) == (len(old - blocked), len(blocked))
    assert set(result.conflicts) == blocked
    assert not result.failed

    again = Migrator(redis, town).migrate()
    assert again.total == 0
    assert contents(redis) == after


@given(st.lists(st.one_of(old_keys), unique=True))
def test_keys_are_listed_by_family_then_bytewise_by_id(keys: list[bytes]) -> None:
    listed = list(in_order(keys, old_key_start()))
    assert sorted(listed) == sorted(keys)
    ranks = [(FAMILIES.index(key.split(b":")[1].decode()), key) for key in listed]
    assert ranks == sorted(ranks)


@given(st.lists(st.one_of(old_keys), unique=True), towns, st.sampled_from([RENAME, REVERSE]))
def test_a_preview_shows_each_key_and_its_destination(
    keys: list[bytes], town: str, plan: Plan
) -> None:
    moves = keys if plan == RENAME else [RENAME.destination(town, key) for key in keys]
    written = BytesIO()
    out = Output(TextIOWrapper(written, "utf-8"))
    preview = Preview(
        plan=plan,
        town=town,
        moves=moves,
        merges={},
        conflicts={},
        failed={},
        ambiguous=(),
        conversions=(),
        unconverted={},
        towns=(),
        dbsize=0,
        count=None,
        effort=Effort(0, 0, None, 0),
    )
    TextReport(out, out, plan, town=town).tell(preview)
    lines = [line for line in written.getvalue().decode().splitlines() if " → " in line]
    shown_moves = [f"   {shown(key)} → {shown(plan.destination(town, key))}" for key in moves]
    assert sorted(lines) == sorted(shown_moves)


@given(st.binary())
def test_a_name_is_shown_on_one_line_without_control_characters(name: bytes) -> None:
    text = shown(name)
    assert text.isprintable() or text == ""
    assert text.encode("utf-8").decode() == text


@given(st.binary(), st.binary())
def test_two_names_that_need_escapes_are_never_shown_alike(one: bytes, other: bytes) -> None:
    if shown(one) == shown(other) and one != other:
        # Then one of the names is printable and only looks like an escape.
        assert shown(one) in (one.decode("utf-8", "replace"), other.decode("utf-8", "replace"))


@given(towns, old_keys)
def test_a_new_key_is_the_old_one_with_the_town_put_in(town: str, key: bytes) -> None:
    assert RENAME.destination(town, key) == b"tt:" + town_bytes(town) + b":" + key[3:]
    assert not is_old(RENAME.destination(town, key))
