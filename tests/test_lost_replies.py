"""Replies that are lost after a write, and connections that die while nobody speaks."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from bench.machinery.process import delayed
from tests.clusters import Cluster, fill
from tests.command import TT, tt, tt_in_process
from tests.servers import Server, StartServer
from tests.services import service
from tests.test_connection import listener
from tests.test_recovery import at_batch
from tests.users import user_without
from tt_migrate import DOWNGRADE, HASH, RENAME, UPGRADE, Change, Migrator, Plan
from tt_migrate.engine.calls.retry import RETRY
from tt_migrate.engine.calls.scripts import Script, source
from tt_migrate.engine.cluster.hidden import Transfer
from tt_migrate.engine.cluster.side_by_side import Worker
from tt_migrate.engine.cluster.workers import WorkerPool
from tt_migrate.engine.one_server import OneServer
from tt_migrate.terminal.errors import explain

PATIENT = Retry(NoBackoff(), 16, RETRY._supported_errors)
KEYS = 300
LIMIT = "normal 40000 0 0"
"""The smallest reply that Redis counts is one of more than 16 kB."""

MIGRATE = Script(source("migrate", RENAME), reads=False).sha.encode()

Loses = Callable[[int, Sequence[bytes]], bool]
"""Whether the reply to a call is lost: takes its number from 1, and the command."""


@contextmanager
def losing(server: Server, loses: Loses) -> Iterator[str]:
    """A service that carries out each EVALSHA, and closes the connection in place of some replies.

    Yields its `host:port`.
    """
    calls: list[Sequence[bytes]] = []

    def rule(command: list[bytes], forward: Callable[..., bytes]) -> bytes | None:
        if command[0] != b"EVALSHA":
            return None
        calls.append(command)
        reply = forward(command)
        if loses(len(calls), command):
            raise ConnectionResetError
        return reply

    with service(rule, server) as address:
        yield address


@contextmanager
def client_of(address: str, **options: Any) -> Iterator[Redis]:
    host, port = address.split(":")
    with Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0), **options) as client:
        yield client


class Forgetful:
    """A firewall in front of a server. It forgets connections, and says so only if `resets`."""

    def __init__(self, port: int, *, resets: bool = False) -> None:
        self._port = port
        self._resets = resets
        self._age = 0
        self.connections = 0

    def forget(self) -> None:
        """Drop what comes on the connections that there are."""
        self._age += 1

    def serve(self, peer: socket.socket) -> None:
        age = self._age
        self.connections += 1

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while piece := source.recv(65_536):
                    if age == self._age:
                        sink.sendall(piece)
                    elif self._resets:
                        break
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
                source.shutdown(socket.SHUT_RDWR)

        with socket.create_connection(("127.0.0.1", self._port)) as upstream:
            back = threading.Thread(target=pump, args=(upstream, peer), daemon=True)
            back.start()
            pump(peer, upstream)
            back.join()


@pytest.fixture(params=["drops", "resets"])
def firewall(request: pytest.FixtureRequest, newest: Server) -> Iterator[tuple[Forgetful, Redis]]:
    """A firewall in front of a server, and a client behind it."""
    wall = Forgetful(newest.port, resets=request.param == "resets")
    # A client that decodes replies has no more than one call in flight.
    options: dict[str, Any] = {"socket_timeout": 5, "decode_responses": True}
    with listener(wall.serve) as port, client_of(f"127.0.0.1:{port}", **options) as client:
        yield wall, client
        wall.forget()
        client.connection_pool.disconnect()


@pytest.fixture
def always_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any time without a word is a long one."""
    monkeypatch.setattr("tt_migrate.engine.calls.idle.SILENT_SECONDS", 0)


@pytest.fixture
def cluster(newest_cluster: Cluster) -> Cluster:
    return newest_cluster


def record(number: int, size: int = 0) -> bytes:
    """An agent as Tinytown 0.6 keeps it, about so large."""
    agent = {
        "id": str(UUID(int=number)),
        "name": "worker",
        "agent_type": "worker",
        "cli": "claude",
        "state": "idle",
        "created_at": "2026-03-09T16:29:58Z",
        "current_task": None,
        "last_heartbeat": "2026-03-09T16:29:58Z",
        "tasks_completed": 3,
        "x": "x" * size,
    }
    return json.dumps(agent).encode()


def agents(sizes: Sequence[int], start: str = "tt:agent:") -> dict[str, bytes]:
    return {f"{start}{UUID(int=n)}": record(n, size) for n, size in enumerate(sizes)}


def moved(redis: Redis) -> int:
    return len(redis.keys("tt:my-project:[ai]*"))


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_run_resumes_after_a_reply_to_any_call_is_lost(newest: Server, number: int) -> None:
    newest.client().mset({f"tt:inbox:{n}": n for n in range(KEYS)})
    with (
        losing(newest, lambda call, _: call == number) as address,
        client_of(address) as client,
    ):
        # One SCAN step of 100 keys is a batch.
        result = Migrator(client, "my-project", max_pause_ms=0.001, retry=PATIENT).migrate()
    assert moved(newest.client()) == KEYS
    assert result.complete
    assert (result.effort.reconnects, result.effort.lost_replies) == (1, 1)
    assert 0 < result.total < KEYS


@pytest.mark.parametrize("with_record", [False, True])
def test_the_report_says_what_cannot_be_known(
    newest: Server, tmp_path: Path, *, with_record: bool
) -> None:
    newest.client().mset({f"tt:inbox:{n}": n for n in range(10)})
    record = ["--record", str(tmp_path / "record")] if with_record else []
    with losing(newest, lambda call, _: call == 2) as address:
        done = tt("--force", *record, url=f"redis://{address}")
    assert done.returncode == 0
    assert "The connection was lost once." in done.stdout
    where = "neither in these numbers nor in the file of --record"
    assert (
        "No reply came to 1 call. What it changed is done, but is"
        f" {where if with_record else 'not in these numbers'}." in done.stdout
    )


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_what_cannot_be_known_is_said_to_programs_and_jobs(newest: Server, option: str) -> None:
    newest.client().mset({f"tt:inbox:{n}": n for n in range(10)})
    with losing(newest, lambda call, _: call == 2) as address:
        done = tt("--force", option, url=f"redis://{address}")
    if option == "--quiet":
        assert done.stdout.strip().startswith("No reply came to 1 call.")
    else:
        said = json.loads(done.stdout)
        assert (said["reconnects"], said["lost_replies"], said["remaining"]) == (1, 1, 0)


@pytest.mark.parametrize("plan", [HASH, UPGRADE, DOWNGRADE], ids=lambda plan: plan.name)
def test_every_first_write_of_a_pass_may_lose_its_reply(newest: Server, plan: Plan) -> None:
    """Whichever script comes first after a pass begins: its reply is lost once."""
    start = "tt:" if plan is UPGRADE else "tt:my-project:"
    newest.client().mset(agents([0] * 30, f"{start}agent:"))
    if plan is DOWNGRADE:
        Migrator(newest.client(), "my-project", HASH).migrate()
    seen: set[bytes] = set()

    def first(call: int, command: Sequence[bytes]) -> bool:
        is_first = call > 1 and command[1] not in seen
        seen.add(command[1])
        return is_first

    with losing(newest, first) as address, client_of(address) as client:
        result = Migrator(client, "my-project", plan, retry=PATIENT).migrate()
    assert result.complete
    assert result.effort.lost_replies == 1
    assert result.effort.reconnects > result.effort.lost_replies
    kind = b"string" if plan is DOWNGRADE else b"hash"
    assert {newest.client().type(key) for key in newest.client().scan_iter("*agent:*")} == {kind}


@pytest.mark.parametrize("operation", ["count", "preview"])
def test_the_first_call_of_a_pass_that_reads_may_lose_its_reply(
    newest: Server, operation: str
) -> None:
    newest.client().mset(agents([0] * 30))
    with losing(newest, lambda call, _: call == 2) as address, client_of(address) as client:
        result = getattr(Migrator(client, "my-project", UPGRADE, retry=PATIENT), operation)()
    assert result.total == 30
    assert (result.effort.reconnects, result.effort.lost_replies) == (1, 0)


def test_a_reply_that_is_lost_after_the_prompt(newest: Server, monkeypatch: Any) -> None:
    """The prompt's check and count have connections of their own before."""
    newest.client().mset({f"tt:inbox:{n}": n for n in range(10)})
    lost: list[int] = []

    def first_write(call: int, command: Sequence[bytes]) -> bool:
        if command[1] == MIGRATE:
            lost.append(call)
        return len(lost) == 1 and command[1] == MIGRATE

    with losing(newest, first_write) as address:
        done = tt(url=f"redis://{address}", answer="y\n")
    assert done.returncode == 0
    assert "No reply came to 1 call." in done.stdout
    assert moved(newest.client()) == 10


def test_replies_get_smaller_where_the_server_closes_the_connection_for_large_ones(
    newest: Server,
) -> None:
    redis = newest.client()
    redis.mset({f"tt:inbox:{UUID(int=n)}": n for n in range(20_000)})
    redis.config_set("client-output-buffer-limit", LIMIT)
    told: list[Change] = []
    with client_of(f"127.0.0.1:{newest.port}") as client:
        # Without a limit of time, a batch is as large as can be.
        run = Migrator(client, "my-project", max_pause_ms=1000, record=told.extend, retry=PATIENT)
        result = run.migrate()
    redis.config_set("client-output-buffer-limit", "normal 0 0 0")
    assert (result.remaining, moved(redis)) == (0, 20_000)
    assert result.total == len(told) < 20_000
    assert result.effort.lost_replies >= 1


def test_replies_get_large_again_where_not_their_size_was_the_cause(
    newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tt_migrate.engine.passes.driver._SMALL_REPLIES", 3)
    newest.client().mset({f"tt:inbox:{n}": n for n in range(3000)})
    budgets: list[int] = []

    def loses(_: int, command: Sequence[bytes]) -> bool:
        if command[1] != MIGRATE:
            return False
        budgets.append(int(command[6]))
        return len(budgets) < 3

    with losing(newest, loses) as address, client_of(address) as client:
        result = Migrator(client, "my-project", max_pause_ms=0.05, retry=PATIENT).migrate()
    assert result.complete
    full = budgets[0]
    assert budgets[:6] == [full, full, *[full // 8] * 3, full]


@pytest.mark.parametrize("plan", [RENAME, UPGRADE], ids=lambda plan: plan.name)
def test_a_preview_works_where_large_replies_do_not_pass(newest: Server, plan: Plan) -> None:
    redis = newest.client()
    redis.mset(agents([1000] * 300))
    redis.config_set("client-output-buffer-limit", LIMIT)
    with client_of(f"127.0.0.1:{newest.port}") as client:
        run = Migrator(client, "my-project", plan, max_pause_ms=1000, retry=PATIENT)
        preview = run.preview()
        upgraded = run.migrate() if plan.convert else None
    redis.config_set("client-output-buffer-limit", "normal 0 0 0")
    assert preview.total == 300
    if upgraded:
        assert len(preview.conversions) == 300
        assert upgraded.complete
        assert upgraded.unconverted == {}


@pytest.mark.parametrize("plan", [HASH, UPGRADE, DOWNGRADE], ids=lambda plan: plan.name)
@pytest.mark.parametrize("large", [[5], [0, 1, 2], [*range(20)]])
def test_records_that_no_call_and_no_reply_can_carry_are_converted(
    newest: Server, large: list[int], plan: Plan
) -> None:
    redis = newest.client()
    start = "tt:" if plan is UPGRADE else "tt:my-project:"
    redis.mset(agents([1_100_000 if n in large else 0 for n in range(40)], f"{start}agent:"))
    if plan is DOWNGRADE:
        Migrator(newest.client(), "my-project", HASH).migrate()
    redis.config_set("client-output-buffer-limit", LIMIT)
    redis.config_set("proto-max-bulk-len", "1mb")
    with client_of(f"127.0.0.1:{newest.port}") as client:
        run = Migrator(client, "my-project", plan, retry=PATIENT)
        preview, result = run.preview(), run.migrate()
    redis.config_set("client-output-buffer-limit", "normal 0 0 0")
    redis.config_set("proto-max-bulk-len", "512mb")
    assert preview.unconverted == result.unconverted == {}
    assert len(preview.conversions) == sum(result.converted.values()) == 40
    assert result.effort.reconnects == 0


def test_a_conflict_whose_records_no_reply_can_carry_has_its_reason(newest: Server) -> None:
    redis = newest.client()
    redis.mset({**agents([100_000, 0]), **agents([0, 5], "tt:my-project:agent:")})
    redis.config_set("client-output-buffer-limit", LIMIT)
    with client_of(f"127.0.0.1:{newest.port}") as client:
        run = Migrator(client, "my-project", replace(UPGRADE, merge=True), retry=PATIENT)
        conflicts = run.migrate().conflicts
    redis.config_set("client-output-buffer-limit", "normal 0 0 0")
    reasons = [conflicts[f"tt:agent:{UUID(int=n)}".encode()] for n in (0, 1)]
    assert all("differs in x" in reason for reason in reasons)


def test_the_error_names_the_limit_where_nothing_passes(newest: Server) -> None:
    newest.client().set("tt:inbox:1", 1)
    hopeless = Retry(NoBackoff(), 3, RETRY._supported_errors)
    with (
        losing(newest, lambda _, call: call[1] == MIGRATE) as address,
        client_of(address) as client,
    ):
        run = Migrator(client, "my-project", retry=hopeless)
        with pytest.raises(RedisConnectionError) as caught:
            run.migrate()
    text = explain(caught.value, "URL")
    assert "client-output-buffer-limit" in text
    assert "--max-pause" in text
    assert text.isprintable()


@pytest.mark.far
def test_replies_that_are_lost_far_away(newest: Server) -> None:
    newest.client().mset({f"tt:inbox:{n}": n for n in range(3000)})
    with ExitStack() as held:
        address = held.enter_context(losing(newest, lambda call, _: call in (2, 9)))
        port = held.enter_context(delayed(int(address.split(":")[1]), 10))
        client = held.enter_context(client_of(f"127.0.0.1:{port}"))
        result = Migrator(client, "my-project", max_pause_ms=0.1, retry=PATIENT).migrate()
    assert result.complete
    assert moved(newest.client()) == 3000
    assert result.effort.lost_replies >= 2


@pytest.mark.usefixtures("always_silent")
def test_a_connection_that_died_between_two_operations_is_made_anew(
    firewall: tuple[Forgetful, Redis], newest: Server
) -> None:
    wall, client = firewall
    newest.client().mset({f"tt:inbox:{n}": n for n in range(10)})
    run = Migrator(client, "my-project")
    for operation in (run.check, run.count, run.preview):
        operation()
        wall.forget()
    result = run.migrate()
    assert (result.total, result.remaining) == (10, 0)
    assert (result.effort.reconnects, result.effort.lost_replies) == (0, 0)


def test_a_connection_that_lives_is_used_again(firewall: tuple[Forgetful, Redis]) -> None:
    wall, client = firewall
    run = Migrator(client, "my-project")
    run.check()
    run.count()
    run.migrate()
    assert wall.connections == 1


@pytest.fixture
def selected(newest: Server) -> Iterator[Redis]:
    """The caller's own connection, which has selected database 5. Databases 0 and 5 have keys."""
    for database in (0, 5):
        newest.client(db=database).mset({f"tt:inbox:{n}": n for n in range(KEYS)})
    with Redis(port=newest.port, single_connection_client=True) as own:
        own.execute_command("SELECT", 5)
        yield own


def test_a_connection_of_the_callers_own_that_is_dead_is_not_made_anew(
    selected: Redis, newest: Server
) -> None:
    """Nobody knows which database it had selected."""
    newest.client().client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(RedisConnectionError):
        Migrator(selected, "my-project").migrate()
    assert moved(newest.client()) == moved(newest.client(db=5)) == 0


def test_a_connection_of_the_callers_own_comes_back_to_its_database(
    selected: Redis, newest: Server
) -> None:
    admin = newest.client(single_connection_client=True)
    cut = at_batch(2, lambda: admin.client_kill_filter(_type="normal", skipme=True))
    result = Migrator(
        selected, "my-project", max_pause_ms=0.001, progress=cut, retry=PATIENT
    ).migrate()
    assert result.effort.reconnects == 1
    assert (result.total, result.remaining) == (KEYS, 0)
    assert (moved(admin), moved(newest.client(db=5))) == (0, KEYS)


@pytest.mark.usefixtures("always_silent")
def test_a_connection_that_dies_in_each_pause_of_nice_costs_no_reply(
    firewall: tuple[Forgetful, Redis], newest: Server
) -> None:
    wall, client = firewall
    newest.client().mset({f"tt:inbox:{n}": n for n in range(KEYS)})
    run = Migrator(
        client, "my-project", max_pause_ms=0.001, nice=1, progress=lambda _: wall.forget()
    )
    result = run.migrate()
    assert (result.total, result.remaining) == (KEYS, 0)
    assert (result.effort.reconnects, result.effort.lost_replies) == (0, 0)


@pytest.mark.usefixtures("always_silent")
def test_a_server_that_was_replaced_at_the_very_end_is_noticed(
    newest: Server, own_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is made anew before the last question, and leads to another server."""
    other = own_server()
    for server, keys in ((newest, 3), (other, 2)):
        server.client().mset({f"tt:inbox:{n}": n for n in range(keys)})
    ports = [newest.port]
    final = OneServer._left

    def then_replaced(*args: Any) -> Any:
        left = final(*args)
        ports[:] = [other.port]
        return left

    monkeypatch.setattr(OneServer, "_left", then_replaced)
    with (
        listener(lambda peer: Forgetful(ports[0]).serve(peer)) as port,
        client_of(f"127.0.0.1:{port}", decode_responses=True) as client,
    ):
        result = Migrator(client, "my-project", retry=PATIENT).migrate()
        client.connection_pool.disconnect()
    assert (result.total, result.remaining) == (5, 0)
    assert moved(other.client()) == 2


@contextmanager
def behind(cluster: Cluster, ports: Sequence[int], **options: Any) -> Iterator[RedisCluster]:
    """A client of a cluster that reaches its masters by other ports."""
    there = {server.port: port for server, port in zip(cluster.masters, ports, strict=True)}
    client = RedisCluster(
        host="127.0.0.1",
        port=ports[0],
        address_remap=lambda address: ("127.0.0.1", there.get(address[1], address[1])),
        **options,
    )
    with client:
        yield client


@pytest.mark.parametrize("plan", [RENAME, UPGRADE], ids=lambda plan: plan.name)
def test_each_shard_may_lose_the_reply_to_its_first_call_of_each_script(
    cluster: Cluster, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Keys that were hidden when the reply was lost get their names back, and are moved again.
    monkeypatch.setattr("tt_migrate.engine.cluster.relocation.YOUNG_MILLISECONDS", 600_000)
    fill(cluster, [("SET", key, value.decode()) for key, value in agents([0] * 60).items()])

    def first(seen: set[bytes]) -> Loses:
        def loses(call: int, command: Sequence[bytes]) -> bool:
            is_first = call > 1 and command[1] not in seen
            seen.add(command[1])
            return is_first

        return loses

    with ExitStack() as held:
        addresses = [held.enter_context(losing(server, first(set()))) for server in cluster.masters]
        ports = [int(address.split(":")[1]) for address in addresses]
        client = held.enter_context(behind(cluster, ports))
        result = Migrator(client, "my-project", plan, retry=PATIENT).migrate()
    assert result.complete
    assert len([*cluster.client().scan_iter("tt:my-project:agent:*", count=1000)]) == 60
    # Marks tell what became of keys. A lost reply to a conversion leaves that open.
    assert result.total == 60
    assert result.effort.reconnects > 0
    assert (result.effort.lost_replies > 0) == (plan is UPGRADE)


@pytest.mark.usefixtures("always_silent")
@pytest.mark.parametrize("resets", [False, True])
def test_the_idle_connections_of_a_cluster_are_made_anew(cluster: Cluster, *, resets: bool) -> None:
    fill(cluster, [("SET", f"tt:inbox:{n}", str(n)) for n in range(60)])
    walls = [Forgetful(server.port, resets=resets) for server in cluster.masters]
    with ExitStack() as held:
        ports = [held.enter_context(listener(wall.serve)) for wall in walls]
        client = held.enter_context(behind(cluster, ports, socket_timeout=5))
        run = Migrator(client, "my-project")
        for operation in (run.check, run.count, run.preview):
            operation()
            for wall in walls:
                wall.forget()
        result = run.migrate()
        for wall in walls:
            wall.forget()
    assert (result.total, result.remaining) == (60, 0)
    assert result.effort.reconnects == 0


def test_a_shard_that_is_idle_while_others_are_scanned_is_asked_on_a_new_connection(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tt_migrate.engine.calls.idle.SILENT_SECONDS", 0)
    fill(cluster, [("SET", f"tt:inbox:{n}", str(n)) for n in range(60)])
    walls = [Forgetful(server.port, resets=True) for server in cluster.masters]
    everywhere = WorkerPool.everywhere

    def then_forgotten(pool: WorkerPool, work: Callable[[Worker], object]) -> None:
        everywhere(pool, work)
        for wall in walls:
            wall.forget()

    monkeypatch.setattr(WorkerPool, "everywhere", then_forgotten)
    with ExitStack() as held:
        ports = [held.enter_context(listener(wall.serve)) for wall in walls]
        client = held.enter_context(behind(cluster, ports, socket_timeout=5))
        count = Migrator(client, "my-project").count()
    assert (count.total, count.effort.reconnects) == (60, 0)


def test_replies_get_smaller_on_shards_too(cluster: Cluster) -> None:
    fill(cluster, [("SET", key, value.decode()) for key, value in agents([500] * 600).items()])
    client = cluster.client()
    for server in cluster.masters:
        server.client().config_set("client-output-buffer-limit", LIMIT)
    run = Migrator(client, "my-project", UPGRADE, max_pause_ms=1000, retry=PATIENT)
    preview, result = run.preview(), run.migrate()
    for server in cluster.masters:
        server.client().config_set("client-output-buffer-limit", "normal 0 0 0")
    assert preview.total == 600
    assert result.complete
    assert result.total == 600


@contextmanager
def limited(cluster: Cluster, **settings: str) -> Iterator[None]:
    """Settings of all masters, for a while: their names have hyphens."""
    usual = {"client-output-buffer-limit": "normal 0 0 0", "proto-max-bulk-len": "512mb"}
    given = {name.replace("_", "-"): value for name, value in settings.items()}
    for some in (given, usual):
        for server in cluster.masters:
            for name, value in some.items():
                server.client().config_set(name, value)
        if some is given:
            yield


def noise(size: int) -> bytes:
    """A value that DUMP cannot make smaller."""
    return random.Random(size).randbytes(size)


def test_the_error_names_the_limit_where_a_cluster_cannot_be_opened(cluster: Cluster) -> None:
    """redis-py asks for the list of all commands, but in the tests' process only once."""
    with limited(cluster, client_output_buffer_limit=LIMIT):
        done = tt("--check", url=cluster.url, town="town", program=[*TT])
    assert done.returncode == 3
    assert "the reply to COMMAND" in done.stderr
    assert "raise client-output-buffer-limit" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_error_names_the_permission_where_a_cluster_cannot_be_opened(cluster: Cluster) -> None:
    user_without(cluster.masters[0], "cluster|slots").close()
    url = cluster.url.replace("://", "://less:secret@", 1)
    done = tt_in_process("--check", "--redis-url", url, "--town-name", "town")
    assert done.returncode == 3
    assert "the user lacks a permission (" in done.stderr
    assert "cluster|slots" in done.stderr
    assert "mode is not enabled" not in done.stderr


TOO_LARGE = {
    "reply": ({"client_output_buffer_limit": LIMIT}, 100_000),
    "call": ({"proto_max_bulk_len": "1mb"}, 1_100_000),
}


@pytest.mark.parametrize("large", [1, 8])
@pytest.mark.parametrize("what", TOO_LARGE)
def test_a_key_that_nothing_can_carry_to_its_shard_is_listed_and_the_rest_is_moved(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str, large: int
) -> None:
    monkeypatch.setattr("tt_migrate.engine.cluster.relocation._PAUSE_SECONDS", 0.01)
    settings, size = TOO_LARGE[what]
    values = {f"tt:inbox:{n}": noise(size) if n < large else b"%d" % n for n in range(200)}
    client = cluster.client()
    for key, value in values.items():
        client.set(key, value)
    with limited(cluster, **settings):
        result = Migrator(client, "my-project", retry=PATIENT).migrate()
    assert {*result.failed} == {f"tt:inbox:{n}".encode() for n in range(large)}
    for reason in result.failed.values():
        assert reason.startswith("the connection to 127.0.0.1:")
        assert "proto-max-bulk-len" in reason
        assert "client-output-buffer-limit" in reason
    assert (result.total, result.remaining, {*result.hidden}) == (200 - large, large, set())
    assert result.effort.lost_replies == 0
    for n, value in enumerate(values.values()):
        assert client.get(f"tt:inbox:{n}" if n < large else f"tt:my-project:inbox:{n}") == value


@pytest.mark.parametrize("what", TOO_LARGE)
def test_a_hidden_key_that_nothing_can_carry_gets_its_name_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("tt_migrate.engine.cluster.relocation._PAUSE_SECONDS", 0.01)
    # The second run waits for a young mark of the first, but not for its own.
    monkeypatch.setattr("tt_migrate.engine.cluster.round.TAKE_OVER_MILLISECONDS", 400)
    monkeypatch.setattr("tt_migrate.engine.cluster.sharded._STEADY_SECONDS", 0.05)
    settings, size = TOO_LARGE[what]
    client = cluster.client()
    hidden = Transfer(b"tt:inbox:1", b"tt:my-project:inbox:1", b"1-0123abcd-1").hidden
    client.set(hidden, noise(size))
    client.set("tt:inbox:2", "2")
    with limited(cluster, **settings):
        result = Migrator(client, "my-project", retry=PATIENT).migrate()
        second = Migrator(client, "my-project", retry=PATIENT).migrate()
    assert [*result.failed] == [*second.failed] == [b"tt:inbox:1"]
    assert (result.total, {*result.hidden}) == (1, set())
    assert client.get("tt:inbox:1") == noise(size)
    again = Migrator(client, "my-project").migrate()
    assert (again.total, again.complete) == (1, True)
    assert client.get("tt:my-project:inbox:1") == noise(size)


def test_a_key_whose_new_name_is_taken_is_a_conflict_whatever_its_size(cluster: Cluster) -> None:
    client = cluster.client()
    client.set("tt:inbox:1", noise(100_000))
    client.set("tt:my-project:inbox:1", "new")
    hidden = Transfer(b"tt:inbox:2", b"tt:my-project:inbox:2", b"1-0123abcd-1").hidden
    client.set(hidden, noise(100_000))
    client.set("tt:my-project:inbox:2", "new")
    with limited(cluster, client_output_buffer_limit=LIMIT):
        result = Migrator(client, "my-project", retry=PATIENT).migrate()
    assert {*result.failed, *result.conflicts} == {b"tt:inbox:1", b"tt:inbox:2"}
    assert client.get("tt:inbox:1") == client.get("tt:inbox:2") == noise(100_000)


def test_conflicts_whose_records_no_reply_can_carry_have_their_reasons_on_shards_too(
    cluster: Cluster,
) -> None:
    fill(
        cluster,
        [
            ("SET", key, value.decode())
            for key, value in [
                *agents([100_000, 0]).items(),
                *agents([0, 5], "tt:my-project:agent:").items(),
            ]
        ],
    )
    client = cluster.client()
    run = Migrator(client, "my-project", replace(UPGRADE, merge=True), retry=PATIENT)
    with limited(cluster, client_output_buffer_limit=LIMIT):
        conflicts = [operation().conflicts for operation in (run.preview, run.migrate)]
    for found in conflicts:
        reasons = [found[f"tt:agent:{UUID(int=n)}".encode()] for n in (0, 1)]
        assert all("differs in x" in reason for reason in reasons)


def test_two_connections_that_are_lost_hide_no_key_and_leave_nothing_unsaid(
    cluster: Cluster,
) -> None:
    """Not the size of a key is the cause: calls become as large again."""
    fill(cluster, [("SET", f"tt:inbox:{n}", str(n)) for n in range(3000)])
    with ExitStack() as held:
        calls = [
            held.enter_context(losing(server, lambda call, _: 6 < call < 9))
            for server in cluster.masters
        ]
        ports = [int(address.split(":")[1]) for address in calls]
        client = held.enter_context(behind(cluster, ports))
        result = Migrator(client, "my-project", retry=PATIENT).migrate()
    assert (result.total, result.complete, result.effort.lost_replies) == (3000, True, 0)
    assert result.effort.reconnects >= 3
