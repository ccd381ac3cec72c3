"""A server that sends a valid greeting and then nonsense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.command import assert_harmless, tt_in_process
from tests.hostile import bulk, hello, hostile_server, inspection
from tt_migrate import HASH, RENAME, REVERSE, UPGRADE, Migrator, Plan
from tt_migrate.engine.calls.retry import RETRY
from tt_migrate.engine.calls.scripts import GUARDS, headed, script_for
from tt_migrate.settings.config import Endpoint
from tt_migrate.settings.connection import open_client

IMPATIENCE = Retry(NoBackoff(), 0, RETRY._supported_errors)

scalars = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(lambda n: b":%d\r\n" % n),
    st.binary(max_size=8).map(bulk),
    st.sampled_from(
        [b"+OK\r\n", b"_\r\n", b"#t\r\n", b",nan\r\n", b",1.5\r\n", b"$-1\r\n", b"*-1\r\n"]
    ),
    st.sampled_from([b"-ERR no\r\n", b"-\r\n", b"-NOSCRIPT x\r\n", b"(99999999999999999999\r\n"]),
)
replies = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=11).map(lambda items: b"*%d\r\n" % len(items) + b"".join(items)),
        st.lists(inner, max_size=3).map(lambda items: b"~%d\r\n" % len(items) + b"".join(items)),
        st.lists(st.tuples(scalars, inner), max_size=2).map(
            lambda items: b"%%%d\r\n" % len(items) + b"".join(b"".join(item) for item in items)
        ),
    ),
    max_leaves=14,
)
garbage = st.one_of(
    st.binary(min_size=1, max_size=20).map(lambda text: text + b"\r\n"),
    st.sampled_from([b":x\r\n", b"*x\r\n", b"$x\r\n", b"%1\r\n*0\r\n:1\r\n", b"#x\r\n", b",x\r\n"]),
)
scans = st.lists(replies, max_size=9).map(
    lambda fields: (
        b"*%d\r\n" % (4 + len(fields)) + b"$1\r\n0\r\n:1\r\n:10\r\n:3\r\n" + b"".join(fields)
    )
)


@settings(max_examples=50)
@given(
    first=st.one_of(st.just(inspection()), replies, garbage),
    then=st.lists(st.one_of(replies, garbage, scans), min_size=1, max_size=5),
    plan=st.sampled_from([RENAME, HASH, REVERSE, replace(UPGRADE, merge=True)]),
    act=st.sampled_from(["count", "preview", "migrate"]),
)
def test_every_malformed_reply_is_an_error_of_redis_py(
    first: bytes, then: list[bytes], plan: Plan, act: str
) -> None:
    calls: list[bytes] = []

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return hello()
        if command[0] == b"SCRIPT":
            return bulk(b"0" * 40)
        calls.append(command[0])
        if len(calls) == 1:
            return first
        # A cursor that never ends is not a malformed reply.
        return then[len(calls) - 2] if len(calls) < len(then) + 2 else b"-ERR enough\r\n"

    with hostile_server(answer) as address:
        endpoint = Endpoint("--redis-url", url=f"redis://{address}?socket_timeout=0.3")
        # A reply that happens to be well-formed succeeds. Every other reply raises RedisError.
        with open_client(endpoint) as client, suppress(RedisError):
            getattr(Migrator(client, "town", plan, retry=IMPATIENCE), act)()


def encoded(value: Any) -> bytes:
    """Return a value in RESP. Raw values are sent unchanged."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return bulk(value)
    return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))


class Raw(bytes):
    """A reply that is sent unchanged."""


SEVEN = [1, 0, 2, 0, 0, 0, 1]
KEY, NAME = b"tt:agent:1", b"tt:town:agent:1"
BATCH: list[Any] = [b"0", 1, 10, 3]
REPLIES: dict[str, list[Any]] = {
    "inspect": [b"0" * 40, 0, 0, [b"TIME"], [], b""],
    "count": [*BATCH, SEVEN, 1, 1, [b"other"], [1, 0, 1, 0, 1, 1, 0, 1, 0], b"0", 0],
    "left": [*BATCH, SEVEN, [1, 0], 0],
    "preview": [
        *BATCH,
        KEY,
        [b"tt:inbox:\n"],
        [b"tt:stop:1", b"how"],
        [b"tt:task:1", b"why"],
        [b"tt:urgent:1", b"ERR no"],
        [b"tt:task:backlog"],
        [],
        [b"other"],
        NAME,
        [b"tt:town:task:\n"],
        [b"tt:town:task:2", b"is a list"],
        [b"a missing cli became empty", b"1"],
        SEVEN,
        [1, 0, 1, 0, 1, 1, 0, 1, 0],
        b"0",
        0,
    ],
    "migrate": [
        *BATCH,
        SEVEN,
        SEVEN,
        [KEY, b"why"],
        [b"tt:task:1", b"ERR no"],
        [b"tt:task:backlog"],
        [],
        [KEY],
        [b"tt:stop:1", b"how"],
        [b"other"],
        [1, 0],
        [NAME],
        [b"tt:town:task:2", b"is a list"],
        [b"a missing cli became empty", b"1"],
        [1, 0, 1, 0, 1, 1, 0, 1, 0],
        0,
        b"",
    ],
}


MODES = dict.fromkeys(REPLIES, "--force") | {"count": "--check", "preview": "--dry-run"}


def places(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Yield the paths to the parts of a reply; in nested lists, only to the first two."""
    yield path
    if isinstance(value, list):
        for n, part in enumerate(value[:2] if path else value):
            yield from places(part, (*path, n))


def changed(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """Return a reply with one part replaced."""
    if not path:
        return new
    return [changed(part, path[1:], new) if n == path[0] else part for n, part in enumerate(value)]


ODD = [
    *(Raw(text) for text in (b"_\r\n", b"#t\r\n", b",nan\r\n", b",1.5\r\n", b"*-1\r\n")),
    *(Raw(text) for text in (b"~1\r\n:1\r\n", b"%1\r\n:1\r\n:2\r\n", b"(99999999999999999999\r\n")),
    *(b"", b"nonsense", b"tt:ag\xff:1", b"\xff\x1b[31m", -7, 2**62, [], [b"x"], [1, [2]]),
]


@pytest.mark.parametrize("operation", REPLIES)
def test_a_part_of_another_type_is_no_internal_error(operation: str) -> None:
    """Tries each place of each script's reply in turn, with every fifth of the odd values.

    Their number is no multiple of five, so that each value has its turn.
    """
    options = ["--upgrade", "--on-conflict=merge", MODES[operation]]
    plan = replace(UPGRADE, merge=True)
    if operation == "left":
        options, plan = ["--force"], RENAME
    scripts = [(name, script_for(name, plan)) for name in REPLIES]
    scripts.append(("count", script_for("check", plan)))
    shas = {headed(script, GUARDS).sha.encode(): name for name, script in scripts}
    shas |= {script.sha.encode(): name for name, script in scripts}
    said: dict[str, bytes] = {}
    calls: Counter[str] = Counter()
    reached: set[str] = set()

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return hello()
        if command[0] == b"SCRIPT":
            return bulk(b"0" * 40)
        name = shas.get(command[1], "")
        calls[name] += 1
        reached.add(name)
        if not name or calls[name] > 3:
            return b"-ERR enough\r\n"
        return said.get(name, encoded(REPLIES[name]))

    with hostile_server(answer) as address:
        url = f"redis://{address}?socket_timeout=3"
        for path, odd in islice(product(places(REPLIES[operation]), ODD), 0, None, 5):
            said = {operation: encoded(changed(REPLIES[operation], path, odd))}
            calls.clear()
            done = tt_in_process(*options, "--town-name=town", f"--redis-url={url}")
            assert "internal" not in done.stderr, (path, odd)
            assert done.returncode in (0, 1, 3)
            assert_harmless(done)
    assert operation in reached
