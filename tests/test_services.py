"""Compatible servers and services: what each lacks is said in one line, before anything is changed.

These are imitations: the services' rules, replies and errors in front of a real server.
docs/servers.md says which servers were run, and where the facts about the others are from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from redis import Redis
from redis.crc import key_slot

from tests.command import tt
from tests.hostile import bulk, error
from tests.keyspaces import contents
from tests.servers import Server, StartServer
from tests.services import Forward, Rule, Scripts, greeting, service
from tt_migrate import RENAME, UPGRADE, Migrator
from tt_migrate.engine.calls.scripts import source

NO_FUNCTIONS = ("set_repl", "replicate_commands", "acl_check_cmd")


def fill(redis: Redis) -> None:
    for n in range(20):
        redis.set(f"tt:agent:{n}", json.dumps({"id": str(n)}))
        redis.rpush(f"tt:inbox:{n}", "a", "b")
    redis.rpush("tt:backlog", "x")


def greeted(
    command: list[bytes], forward: Forward, name: bytes, version: bytes, mode: bytes = b"standalone"
) -> bytes | None:
    """Answer HELLO, after the real server has switched to its protocol."""
    if command[0] != b"HELLO":
        return None
    forward(command)
    return greeting(command, name, version, mode)


def without_shebang(scripts: Scripts, complaint: bytes, version: bytes) -> Rule:
    """A server whose Lua takes no line that begins with `#!`."""

    def rule(command: list[bytes], forward: Forward) -> bytes | None:
        if any(part.startswith(b"#!") for part in command):
            return error(complaint)
        said = greeted(command, forward, b"redis", version)
        return said or scripts.run(command, forward)

    return rule


def dragonfly() -> Rule:
    """Dragonfly: undeclared keys only with its own flag."""
    flag = b"--!df flags=allow-undeclared-keys\n"
    scripts = Scripts(NO_FUNCTIONS, strict=lambda text: not text.startswith(flag))
    return without_shebang(scripts, b"ERR user_script:2: unexpected symbol near '#'", b"7.4.0")


def garnet() -> Rule:
    """Garnet with --lua: set_repl raises an error."""
    scripts = Scripts(raising=("set_repl",), missing=("acl_check_cmd",))
    complaint = b"Compilation error: [string \"#!\"]:1: unexpected symbol near '#'"
    return without_shebang(scripts, complaint, b"7.4.3")


def upstash() -> Rule:
    """Upstash: replicate_commands raises an error."""
    return Scripts(raising=("replicate_commands",), missing=("set_repl", "acl_check_cmd")).run


def kvrocks() -> Rule:
    """Kvrocks 2.10: the reply to HELLO 3 is a flat list of RESP2."""
    scripts = Scripts(NO_FUNCTIONS)

    def rule(command: list[bytes], forward: Forward) -> bytes | None:
        if command[0] == b"HELLO":
            return greeting([b"HELLO"], b"redis", b"4.0.0")
        return scripts.run(command, forward)

    return rule


@pytest.mark.parametrize(
    ("make", "query"),
    [(dragonfly, ""), (garnet, ""), (upstash, ""), (kvrocks, "?protocol=2")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_server_that_differs_a_little_is_migrated(
    newest: Server, make: Callable[[], Rule], query: str
) -> None:
    redis = newest.client()
    fill(redis)
    with service(make(), newest) as address:
        url = f"redis://{address}{query}"
        before = contents(redis)
        previewed = tt("--upgrade", "--dry-run", url=url, town="town")
        assert (previewed.returncode, "41 key(s)" in previewed.stdout) == (0, True), previewed
        assert contents(redis) == before
        done = tt("--upgrade", "--force", "-v", url=url, town="town")
        assert (done.returncode, "41 keys migrated, 20 records" in done.stdout) == (0, True), done
        assert tt("--check", url=url, town="town").returncode == 0
    assert redis.dbsize() == 41
    assert redis.type("tt:town:agent:1") == b"hash"


def refusing(text: bytes, when: Callable[[list[bytes]], bool]) -> Rule:
    return lambda command, forward: error(text) if when(command) else None


def evaluates(command: list[bytes]) -> bool:
    return command[0] in (b"EVAL", b"EVALSHA")


def without_keys(command: list[bytes]) -> bool:
    return evaluates(command) and command[2] == b"0"


def with_keys_of_two_slots(command: list[bytes]) -> bool:
    keys = command[3 : 3 + int(command[2])] if evaluates(command) else []
    return len({key_slot(key) for key in keys}) > 1


def serverless() -> Rule:
    """ElastiCache Serverless: cluster mode with one endpoint, no scripts without keys."""
    info = b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_size:1\r\n"

    def rule(command: list[bytes], forward: Forward) -> bytes | None:
        if command[:2] == [b"CLUSTER", b"INFO"]:
            return bulk(info)
        if without_keys(command):
            return error(b"ERR Lua scripts without any input keys are not supported.")
        return greeted(command, forward, b"valkey", b"8.1.0", b"cluster")

    return rule


DECLARING: dict[str, Rule] = {
    "ElastiCache Serverless": serverless(),
    "Redis Enterprise with several shards": refusing(
        b"CROSSSLOT Keys in request don't hash to the same slot", with_keys_of_two_slots
    ),
    "Tair cluster": refusing(
        b"ERR eval/evalsha command keys must be in same slot", with_keys_of_two_slots
    ),
    "Tair proxy": refusing(
        b"ERR for redis cluster, eval/evalsha number of keys can't be negative or zero",
        without_keys,
    ),
    "Huawei DCS": refusing(
        b"ERR eval/evalsha numkeys must be bigger than zero in redis cluster mode", without_keys
    ),
    "strict Dragonfly": Scripts(NO_FUNCTIONS, strict=lambda text: True).run,
}


@pytest.mark.parametrize("name", DECLARING)
def test_a_service_that_wants_declared_keys_is_migrated(newest: Server, name: str) -> None:
    redis = newest.client()
    fill(redis)
    with service(DECLARING[name], newest) as address:
        url = f"redis://{address}"
        before = contents(redis)
        previewed = tt("--upgrade", "--dry-run", url=url, town="town")
        assert (previewed.returncode, "41 key(s)" in previewed.stdout) == (0, True), previewed
        assert contents(redis) == before
        done = tt("--upgrade", "--force", url=url, town="town")
        assert (done.returncode, "41 keys migrated, 20 records" in done.stdout) == (0, True), done
        assert tt("--check", url=url, town="town").returncode == 0
    assert redis.dbsize() == 41
    assert redis.type("tt:town:agent:1") == b"hash"


REFUSED: dict[str, tuple[Rule, str, str]] = {
    "Garnet without --lua": (
        refusing(
            b"ERR This instance has Lua scripting support disabled",
            lambda command: command[0] in (b"EVAL", b"EVALSHA", b"SCRIPT"),
        ),
        "its Lua scripts are switched off: Garnet needs the option --lua",
        "scripting support disabled",
    ),
    "Kvrocks and RESP3": (kvrocks(), "it does not speak RESP3: add ?protocol=2 to the URL", ""),
    "Envoy and RESP3": (
        refusing(b"NOPROTO unsupported protocol version.", lambda command: command[0] == b"HELLO"),
        "it does not speak RESP3: add ?protocol=2 to the URL",
        "NOPROTO",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_service_lacks_is_said_before_anything_is_changed(newest: Server, name: str) -> None:
    rule, says, words = REFUSED[name]
    redis = newest.client()
    fill(redis)
    before = contents(redis)
    with service(rule, newest) as address:
        for options in (("--dry-run",), ("--check",), ("--force",), ("--upgrade", "--force")):
            done = tt(*options, url=f"redis://{address}", town="town")
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done
            assert says in done.stderr
            assert words in done.stderr
    assert contents(redis) == before


def test_a_proxy_that_closes_the_connection_is_named(newest: Server) -> None:
    """twemproxy closes the connection at a command that it does not know."""

    def rule(command: list[bytes], forward: Forward) -> bytes:
        raise OSError

    with service(rule, newest) as address:
        for query in ("", "?protocol=2"):
            done = tt("--check", url=f"redis://{address}{query}", town="town")
            assert (done.returncode, done.stderr.count("\n")) == (3, 1)
            assert "twemproxy" in done.stderr


@pytest.mark.parametrize("name", [b"envoy-redis-proxy", b""])
def test_a_proxy_that_spreads_keys_over_servers_is_refused(
    newest: Server, own_server: StartServer, name: bytes
) -> None:
    """Envoy sends a script to the server of its first key, or of its first argument."""
    servers = [newest, own_server()]
    for server in servers:
        fill(server.client())
    before = [contents(server.client()) for server in servers]

    def rule(command: list[bytes], forward: Forward) -> bytes:
        if command[0] == b"HELLO":
            unknown = error(b"ERR unknown command 'HELLO'")
            return greeting(command, name, b"6.0.0") if name else unknown
        routed = command[3] if evaluates(command) and len(command) > 3 else b""
        replies = [forward(command, to) for to in range(2)]
        return replies[crc32(routed) % 2]

    with service(rule, *servers) as address:
        for options in (("--dry-run",), ("--force",)):
            done = tt(*options, url=f"redis://{address}?protocol=2", town="town")
            assert (done.returncode, done.stderr.count("\n")) == (3, 1), done
            assert "a proxy spreads the keys over several servers" in done.stderr
    assert [contents(server.client()) for server in servers] == before


def test_one_server_behind_such_a_proxy_is_migrated(newest: Server) -> None:
    redis = newest.client()
    fill(redis)

    def rule(command: list[bytes], forward: Forward) -> bytes | None:
        return greeted(command, forward, b"envoy-redis-proxy", b"6.0.0")

    with service(rule, newest) as address:
        done = tt("--upgrade", "--force", url=f"redis://{address}?protocol=2", town="town")
    assert (done.returncode, "41 keys migrated" in done.stdout) == (0, True)


def test_the_api_raises_the_services_own_words(newest: Server) -> None:
    rule, _, words = REFUSED["Garnet without --lua"]
    with (
        service(rule, newest) as address,
        Redis.from_url(f"redis://{address}", protocol=3) as client,
        pytest.raises(Exception, match=words),
    ):
        Migrator(client, "town", UPGRADE).preview()


WITHOUT_SET_REPL = """
    local real = redis
    local function find(_, name) return name ~= 'set_repl' and real[name] or nil end
    local redis = setmetatable({}, {__index = find})
"""


def test_a_server_that_can_have_several_interpreters_is_not_told_by_one(newest: Server) -> None:
    lua = source("locate", RENAME)
    assert newest.client().eval(lua, 1, "key")[:2] == b"0x"
    assert newest.client().eval(WITHOUT_SET_REPL + lua, 1, "key") == b""


def test_a_server_that_cannot_leave_a_key_out_of_replication_keeps_no_cursor(
    newest: Server,
) -> None:
    redis = newest.client()
    fill(redis)
    args = ("town", 0, 10, 1, "", "", "tt:town:flight:token:", 0, 0, 0)
    reply: list[Any] = redis.eval(WITHOUT_SET_REPL + source("migrate", RENAME), 0, *args)
    assert (reply[0] != b"0", reply[-2]) == (True, 0)
    assert redis.keys("*flight*") == []
