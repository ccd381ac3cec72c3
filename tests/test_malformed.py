"""A server that greets well and then replies with nonsense."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.hostile import bulk, hello, hostile_server, inspection
from tt_migrate import HASH, RENAME, REVERSE, UPGRADE, Migrator, Plan
from tt_migrate.config import Endpoint
from tt_migrate.connection import open_client
from tt_migrate.patience import PATIENCE

IMPATIENCE = Retry(NoBackoff(), 0, PATIENCE._supported_errors)

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


@settings(max_examples=150)
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
        # A cursor that never ends is no malformed reply.
        return then[len(calls) - 2] if len(calls) < len(then) + 2 else b"-ERR enough\r\n"

    with hostile_server(answer) as address:
        endpoint = Endpoint("--redis-url", url=f"redis://{address}?socket_timeout=0.3")
        # What happens to be well-formed is no error; nothing else is anything but a RedisError.
        with open_client(endpoint) as client, suppress(RedisError):
            getattr(Migrator(client, "town", plan, patience=IMPATIENCE), act)()
