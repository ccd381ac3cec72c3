"""What a run learns about the server and the user before the first write."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from tests.command import tt
from tests.keyspaces import contents
from tests.midway import cut_connections, fill, follow, quick_retry
from tests.servers import Kind, Server, StartServer
from tests.tables import each
from tests.users import refusals, user_with, user_without
from tests.waiting import wait_until
from tt_migrate import HASH, RENAME, REVERSE, UPGRADE, Migrator, Plan, Progress, from_town
from tt_migrate.engine.calls.scripts import script_for
from tt_migrate.engine.calls.server import UnsyncedReplicaError
from tt_migrate.plan import COPYING_COMMANDS, OPTIONAL_COMMANDS
from tt_migrate.results import Server as SaidServer
from tt_migrate.terminal.words import command_for

MERGE = replace(UPGRADE, merge=True)
FROM_TOWN = from_town("old", merge=True)
PLANS = (RENAME, HASH, UPGRADE, REVERSE, MERGE, FROM_TOWN)
ALL = sorted(
    {command for plan in PLANS for command in plan.commands}
    | {*OPTIONAL_COMMANDS, *COPYING_COMMANDS}
)
MASTER = ("--repl-ping-replica-period", "3600")
"""Settings of a master that sends only writes to its replicas."""
NEVER_TRIED = ("RPUSH", "LPUSH", "SADD", "XSETID")
"""Commands whose permission Redis 6.2 reveals only by changing something."""


def inspect(redis: Redis, *commands: str, town: str = "town", writes: int = 1) -> list[Any]:
    script = script_for("inspect", MERGE).text
    reply: list[Any] = redis.eval(script, 0, town, writes, "", *commands)
    return reply


def tells_of(kind: Kind, command: str) -> bool:
    return kind.version >= (7, 0) or command not in NEVER_TRIED


def town_of_old(redis: Redis) -> None:
    redis.mset({"tt:agent:1": '{"id":"1"}', "tt:town:task:2": '{"id":"2"}'})
    redis.rpush("tt:inbox:1", "old")
    redis.rpush("tt:town:inbox:1", "new")


@pytest.mark.every_kind
def test_nothing_is_denied_to_a_user_who_may_do_everything(server: Server) -> None:
    run_id, evicted, evicting, denied, missing, obstacle = inspect(server.client(), *ALL)
    assert run_id == server.client().info("server")["run_id"].encode()
    assert (evicted, evicting, denied, missing, obstacle) == (0, 0, [], [], b"")


def test_each_command_that_is_denied_is_named_and_nothing_changes(server: Server) -> None:
    redis = server.client()
    town_of_old(redis)
    before = contents(redis)
    for command in ALL:
        less = user_without(server, command)
        _, _, _, denied, missing, obstacle = inspect(less, *ALL)
        assert denied == ([command.encode()] if tells_of(server.kind, command) else [])
        assert (missing, obstacle) == ([], b"")
        denied = inspect(user_with(server, "eval", "exists", command), command)[3]
        assert denied in ([], [b"COMMAND"])
    assert contents(redis) == before


def test_each_command_that_is_renamed_is_named(kind: Kind, own_server: StartServer) -> None:
    # On Redis 6.2 the others are tried only if EXISTS shows that there is nothing to change.
    renamed = [name for name in ALL if tells_of(kind, name) and name != "EXISTS"]
    options = [text for name in renamed for text in ("--rename-command", name, f"other-{name}")]
    redis = own_server(*options, kind=kind).client()
    _, _, _, denied, missing, _ = inspect(redis, *ALL)
    assert (denied, missing) == ([], [name.encode() for name in renamed])


@pytest.mark.every_kind
def test_since_redis_7_asking_leaves_no_entry_in_acl_log(server: Server) -> None:
    inspect(user_without(server, *ALL), *ALL)
    refused = refusals(server)
    assert max(refused.values(), default=0) <= 1
    if server.kind.version >= (7, 0):
        assert refused == {}


@pytest.mark.every_kind
def test_keys_that_an_acl_protects_are_no_denied_command(server: Server) -> None:
    for keys in (("~tt:agent:7",), ("~tt:town:*",), ("~tt:inbox:*", "~tt:town:inbox:*")):
        *_, denied, _, obstacle = inspect(user_without(server, keys=keys), *ALL)
        assert (denied, obstacle) == ([], b"")


@pytest.mark.every_kind
def test_names_in_several_slots_are_refused_once_in_all_that_a_run_does(server: Server) -> None:
    server.client().rpush("tt:inbox:1", "message")
    some = user_without(server, keys=("~tt:inbox:*", "~tt:town:inbox:*"))
    migrator = Migrator(some, "town")
    migrator.check()
    assert migrator.count().total == migrator.migrate().total == 1
    refused = refusals(server)
    assert sum(count for name, count in refused.items() if "tt-migrate-inspect" in name) == 1


@pytest.mark.every_kind
def test_a_key_of_the_name_that_is_tried_is_not_touched(server: Server) -> None:
    redis = server.client()
    redis.set("tt:town:agent:tt-migrate", "somebody's")
    redis.set("tt:agent:tt-migrate", "somebody's", ex=1000)
    before = contents(redis)
    assert inspect(redis, *ALL)[3] == []
    assert contents(redis) == before


@each(
    "args",
    [
        (),
        ("town",),
        ("town", "0"),
        ("", "0", ""),
        ("town", "2", ""),
        ("town", "", ""),
        ("town", "0", "", "FLUSHALL"),
        ("t", "1", "", "get"),
    ],
)
def test_inspect_names_a_malformed_argument(newest: Server, args: tuple[str, ...]) -> None:
    script = script_for("inspect", RENAME).text
    with pytest.raises(ResponseError, match=r"^BADARG"):
        newest.client().eval(script, 0, *args)


@pytest.mark.parametrize("plan", PLANS, ids=command_for)
def test_a_command_that_a_plan_can_need_is_missed_before_the_first_write(
    server: Server, plan: Plan
) -> None:
    redis = server.client()
    town_of_old(redis)
    before = contents(redis)
    for command in plan.commands:
        if not tells_of(server.kind, command):
            continue
        less = user_without(server, command)
        with pytest.raises(NoPermissionError, match=rf"\b{command}\b|'{command.lower()}'"):
            Migrator(less, "town", plan).migrate()
        with pytest.raises(NoPermissionError):
            Migrator(less, "town", plan).check()
        assert contents(redis) == before


@each("plan", PLANS)
@pytest.mark.every_kind
def test_a_preview_names_the_commands_that_a_migration_would_miss(
    server: Server, plan: Plan
) -> None:
    redis = server.client()
    town_of_old(redis)
    writing = {"RENAMENX", "HSET", "PEXPIRE", "RENAME", "SETRANGE", "DEL", "SET", "RPUSH", "LTRIM"}
    asked = [command for command in plan.commands if command in writing]
    preview = Migrator(user_without(server, *asked), "town", plan).preview()
    assert list(preview.refused) == (asked if server.kind.version >= (7, 0) else [])
    assert Migrator(redis, "town", plan).preview().refused == ()


@pytest.mark.every_kind
def test_a_renamed_command_is_named_before_the_first_write(
    kind: Kind, own_server: StartServer
) -> None:
    redis = own_server("--rename-command", "HSET", "", kind=kind).client()
    town_of_old(redis)
    before = contents(redis)
    with pytest.raises(ResponseError, match="NOCOMMAND HSET"):
        Migrator(redis, "town", UPGRADE).migrate()
    assert contents(redis) == before


def test_a_probe_that_is_not_permitted_is_refused_once_a_run_at_most(server: Server) -> None:
    redis = server.client()
    fill(redis, 1000)
    few = user_with(
        server, "script|load", "evalsha", "eval", "scan", "exists", "renamenx", keys=("~tt:*",)
    )
    for act in ("count", "preview", "migrate"):
        redis.execute_command("ACL", "LOG", "RESET")
        getattr(Migrator(few, "town", max_pause_ms=0.2), act)()
        refused = refusals(server)
        assert max(refused.values(), default=0) <= 1, act
        if server.kind.version >= (7, 0):
            assert refused == {}
    assert len(redis.keys("tt:town:agent:*")) == 1000


@each(
    "denied",
    [
        ("eval",),
        ("script",),
        ("info",),
        ("acl",),
        ("dbsize", "time", "type"),
        ("command", "scan"),
        ("exists", "hlen"),
        ("get", "lrange"),
    ],
)
@each("plan", [RENAME, MERGE])
@pytest.mark.every_kind
def test_what_is_refused_is_refused_once_in_all_that_a_run_does(
    server: Server, plan: Plan, denied: tuple[str, ...]
) -> None:
    redis = server.client()
    town_of_old(redis)
    less = user_without(server, *denied)
    redis.execute_command("ACL", "LOG", "RESET")
    migrator = Migrator(less, "town", plan, max_pause_ms=1)
    # A run ends where it is refused.
    with suppress(NoPermissionError):
        for operation in (migrator.check, migrator.count, migrator.preview, migrator.migrate):
            operation()
    refused = refusals(server)
    assert max(refused.values(), default=0) <= 1
    if server.kind.version >= (7, 0) and denied != ("script",):
        assert refused == {}


@pytest.mark.every_kind
def test_what_is_refused_is_refused_once_however_often_the_connection_breaks(
    server: Server,
) -> None:
    redis = server.client()
    fill(redis, 400)
    # On Redis 6.2, only INFO tells whether it is the same process.
    less = user_without(server, "dbsize", "time", *["info"][: server.kind.version >= (7, 0)])

    def cut(now: Progress) -> None:
        if not now.waiting:
            cut_connections(redis)

    # Without TIME, Redis 6.2 and 7.0 have no clock: a batch is one step, and each costs a retry.
    retry = quick_retry()
    migrator = Migrator(less, "town", max_pause_ms=0.2, progress=cut, retry=retry)
    result = migrator.migrate()
    assert (result.total, result.remaining) == (400, 0)
    assert result.effort.reconnects >= 3
    assert max(refusals(server).values(), default=0) <= 1


@pytest.mark.every_kind
def test_the_permissions_of_the_readme_are_enough_without_eval(server: Server) -> None:
    redis = server.client()
    redis.mset({"tt:agent:1": 1, "tt:inbox:2": 2})
    few = user_with(server, "script|load", "evalsha", "scan", "exists", "renamenx", keys=("~tt:*",))
    assert Migrator(few, "town").preview().total == 2
    assert Migrator(few, "town").migrate().total == 2


@each("plan", PLANS)
def test_a_run_leaves_no_error_behind(server: Server, plan: Plan) -> None:
    redis = server.client()
    town_of_old(redis)
    redis.mset({"mt:task:8": '{"id":"8"}', "tt:task:9": '{"id":"9"}', "mt:task:9": '{"id":"9"}'})
    redis.config_resetstat()
    for act in ("count", "preview", "check", "migrate", "migrate"):
        getattr(Migrator(redis, "town", plan), act)()
    assert redis.info("errorstats") == {}


@pytest.mark.every_kind
def test_a_run_that_only_looks_writes_nothing_to_the_log_and_the_replicas(
    server: Server, own_server: StartServer
) -> None:
    master = own_server(*MASTER, "--appendonly", "yes", kind=server.kind)
    redis = master.client()
    follow(server.client(), master)
    town_of_old(redis)
    few = user_with(master, "@read", "eval", "evalsha", "script|load", keys=("~tt:*",))
    less = user_without(master, "info")

    def sent() -> tuple[int, int]:
        return (
            int(redis.info("replication")["master_repl_offset"]),
            int(redis.info("persistence")["aof_current_size"]),
        )

    wait_until(lambda: redis.info("replication")["slave0"]["offset"] == sent()[0])
    before = sent()
    for act in ("count", "preview", "check"):
        for client in (redis, less if act == "check" else few):
            for plan in PLANS:
                getattr(Migrator(client, "town", plan), act)()
        assert sent() == before, act


@pytest.mark.parametrize("version", ["255.255.255", "", "x", "7.0.0"])
def test_a_script_flag_that_the_server_does_not_know_is_done_without(
    kind: Kind, own_server: StartServer, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """As on KeyDB built from source: it is like Redis 6, but reports version 255.255.255."""
    redis = own_server(kind=kind).client()
    town_of_old(redis)
    said = SaidServer("redis", version, "master")
    monkeypatch.setattr("tt_migrate.engine.calls.session.server_of", lambda handshake: said)
    assert Migrator(redis, "town").count().total == 2
    assert Migrator(redis, "town").preview().total == 1
    assert Migrator(redis, "town", MERGE).migrate().complete


def test_a_replica_that_never_had_data_is_no_all_clear(kind: Kind, own_server: StartServer) -> None:
    # A server that became a replica later has had data.
    replica = own_server("--replicaof", "127.0.0.1", "1", kind=kind)
    redis = replica.client()
    users = (
        redis,
        user_without(replica, "role"),
        user_without(replica, "role", "dbsize"),
        user_without(replica, "info", "dbsize"),
    )
    for client in users:
        for act in ("count", "preview"):
            with pytest.raises(UnsyncedReplicaError, match="without a link to its master"):
                getattr(Migrator(client, "town"), act)()
    with pytest.raises(RedisError):
        Migrator(redis, "town").migrate()


def test_a_replica_that_has_data_can_be_looked_at_without_its_master(
    server: Server, own_server: StartServer
) -> None:
    master = own_server(*MASTER, kind=server.kind)
    redis = server.client()
    follow(redis, master)
    assert Migrator(redis, "town").count().total == 0
    town_of_old(master.client())
    wait_until(lambda: redis.dbsize() == 4)
    master.stop()
    wait_until(lambda: redis.info("replication")["master_link_status"] == "down")
    assert Migrator(redis, "town").count().total == 2
    with pytest.raises(ReadOnlyError):
        Migrator(redis, "town").check()


def make_evict(redis: Redis) -> None:
    """Fill a server with records that do not fit into its memory as hashes."""
    # They are made in the server: a client's buffers would count as used memory for a while, and
    # so would what is being freed, and scripts that are not there yet.
    redis.eval(
        "for n = 1, 5000 do redis.call('SET', 'tt:town:task:' .. n,"
        """ '{"id":"' .. n .. '","text":"' .. string.rep('x', 200) .. '"}') end""",
        0,
    )
    Migrator(redis, "town", HASH).preview()
    wait_until(lambda: redis.info("memory")["lazyfree_pending_objects"] == 0)
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"]) + 300_000)


def test_keys_that_the_server_evicts_meanwhile_are_counted(server: Server) -> None:
    redis = server.client()
    make_evict(redis)
    assert Migrator(redis, "town", HASH).preview().effort.evicted == 0
    before = redis.info("stats")["evicted_keys"]
    result = Migrator(redis, "town", HASH).migrate()
    evicted = redis.info("stats")["evicted_keys"] - before
    # The server may continue to evict after the run has ended.
    assert 0 < result.effort.evicted <= evicted


def test_nothing_is_asked_about_evictions_where_there_are_none(server: Server) -> None:
    redis = server.client()
    redis.set("tt:agent:1", 1)
    redis.config_set("maxmemory", "1gb")
    redis.config_set("maxmemory-policy", "noeviction")
    result = Migrator(redis, "town").migrate()
    # inspect.lua is called once and each pass makes one call; only the passes count as batches.
    assert (result.effort.batches, result.effort.evicted) == (2, 0)


@pytest.mark.every_kind
def test_a_reason_begins_with_one_code(server: Server) -> None:
    redis = server.client()
    redis.mset({"tt:agent:yes": '{"id":"yes"}', "tt:agent:no": '{"id":"no"}'})
    few = user_without(server, keys=("~tt:agent:yes", "~tt:town:*"))
    result = Migrator(few, "town").migrate()
    assert list(result.failed) == [b"tt:agent:no"]
    redis.set("tt:town:task:no", '{"id":"no"}')
    redis.set("tt:town:agent:no", '{"id":"no"}')
    some = user_without(server, keys=("~tt:town:agent:yes*",))
    unconverted = Migrator(some, "town", HASH).migrate().unconverted
    assert set(unconverted) == {b"tt:town:task:no", b"tt:town:agent:no"}
    for reason in (*result.failed.values(), *unconverted.values()):
        assert re.match(r"(ERR|NOPERM) (?!ERR|NOPERM)", reason), reason


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_preview_says_that_a_migration_would_be_refused(
    newest: Server, quiet: tuple[str, ...]
) -> None:
    town_of_old(newest.client())
    user_without(newest, "hset", "setrange")
    url = newest.url.replace("//", "//less:secret@")
    done = tt("--upgrade", "--dry-run", *quiet, url=url, town="town")
    assert done.returncode == 0
    assert "This user may not run HSET, SETRANGE: the migration would be refused" in done.stdout
    done = tt("--upgrade", "--dry-run", "--json", url=url, town="town")
    assert json.loads(done.stdout)["refused"] == ["HSET", "SETRANGE"]
    for options in ((), ("--force",)):
        done = tt("--upgrade", *options, url=url, town="town", answer="y\n")
        assert (done.returncode, done.stdout) == (3, "")
        assert "HSET, SETRANGE" in done.stderr


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--json",)])
def test_evicted_keys_are_reported_and_are_no_success(
    newest: Server, options: tuple[str, ...]
) -> None:
    redis = newest.client()
    make_evict(redis)
    done = tt("--hash", "--force", *options, url=newest.url, town="town")
    assert done.returncode == 1
    if options == ("--json",):
        assert json.loads(done.stdout)["evicted"] > 0
    else:
        assert done.stdout.startswith("⚠️ Migration complete, but keys were evicted\n")
        assert "for lack of memory (maxmemory-policy)" in done.stdout


@pytest.mark.parametrize("command", ["EVAL", "SCRIPT"])
def test_a_server_without_one_of_two_ways_to_send_a_script_is_upgraded_whole(
    kind: Kind, own_server: StartServer, command: str
) -> None:
    redis = own_server("--rename-command", command, "", kind=kind).client()
    town_of_old(redis)
    assert Migrator(redis, "town", MERGE).preview().total == 1
    assert Migrator(redis, "town", MERGE).migrate().complete


def test_what_an_upgrade_calls_is_known_to_the_server_before_it_writes(newest: Server) -> None:
    redis = newest.client()
    town_of_old(redis)
    few = user_with(newest, "script|load", "evalsha", *(name for name in ALL if name != "INFO"))
    redis.script_flush()
    redis.config_resetstat()
    assert Migrator(few, "town", MERGE).migrate().complete
    assert "cmdstat_eval" not in redis.info("commandstats")


@pytest.mark.parametrize("command", ["GET", "HLEN", "LLEN", "LRANGE", "DUMP", "TYPE"])
def test_a_command_that_the_server_lacks_is_named_by_a_preview_that_needs_it(
    kind: Kind, own_server: StartServer, command: str
) -> None:
    redis = own_server("--rename-command", command, "", kind=kind).client()
    town_of_old(redis)
    redis.mset({"tt:agent:7": "old", "tt:town:agent:7": "new"})
    for key in ("tt:task:7", "tt:town:task:7"):
        redis.hset(key, "id", "7")
    with pytest.raises(ResponseError, match=rf"^NOCOMMAND {command}$"):
        Migrator(redis, "town", MERGE).preview()


@pytest.mark.every_kind
def test_what_an_administrator_changes_between_two_operations_counts(server: Server) -> None:
    redis = server.client()
    town_of_old(redis)
    before = contents(redis)
    migrator = Migrator(user_without(server, "type"), "town", UPGRADE)
    with pytest.raises(NoPermissionError):
        migrator.migrate()
    redis.execute_command("ACL", "SETUSER", "less", "+type")
    migrator.check()
    redis.execute_command("ACL", "SETUSER", "less", "-hset")
    with pytest.raises(NoPermissionError, match="HSET"):
        migrator.migrate()
    assert contents(redis) == before
    redis.execute_command("ACL", "SETUSER", "less", "+hset", "-script")
    assert migrator.preview().total == 1
    redis.execute_command("ACL", "SETUSER", "less", "+script", "-eval")
    assert migrator.migrate().changed == 3


@pytest.mark.parametrize("denied", [("evalsha",), ("evalsha", "script")], ids=" ".join)
@pytest.mark.every_kind
def test_without_evalsha_nothing_is_written_however_often_it_is_tried(
    server: Server, denied: tuple[str, ...]
) -> None:
    redis = server.client()
    fill(redis, 500, "tt:inbox:")
    migrator = Migrator(user_without(server, *denied), "town", max_pause_ms=0.1)
    for _ in range(2):
        with pytest.raises(NoPermissionError, match=r"evalsha|EVALSHA"):
            migrator.migrate()
    assert redis.keys("tt:town:*") == []
    assert max(refusals(server).values(), default=0) <= 1
