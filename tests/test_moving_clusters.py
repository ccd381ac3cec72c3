"""Clusters whose masters and slots change their places meanwhile, and nodes that hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

import pytest
from redis import Redis
from redis._parsers.base import BaseParser
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tests.clusters import Cluster, fill
from tests.command import tt_in_process
from tests.faults import is_master, masters, replica_of
from tests.midway import quick_retry
from tests.servers import Server, StartServer, cluster_state, newest_kind
from tests.tables import each
from tests.test_one_shard import in_cluster, joined
from tests.users import refusals, user_without
from tests.waiting import wait_until
from tt_migrate import Migrator, Progress
from tt_migrate.engine.calls.announced import server_of_error
from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.retry import RETRY, PassingError, as_passing, retried, two_words
from tt_migrate.engine.calls.server import check_data
from tt_migrate.engine.calls.session import Session
from tt_migrate.engine.calls.slots import ALL_SLOTS, Look, check_still, look_at
from tt_migrate.engine.cluster.pipeline import Failure, Pipeline
from tt_migrate.engine.cluster.router import Operation, Router
from tt_migrate.engine.passes.driver import Driver
from tt_migrate.results import Server as ServerState
from tt_migrate.terminal.errors import explain

KEYS = 40
FEW = Retry(NoBackoff(), 2, RETRY._supported_errors)


@pytest.fixture
def cluster(replicated: Cluster) -> Cluster:
    """A cluster with a replica for each master, whatever the test before has done to it."""
    return replicated


def owner(cluster: Cluster, slot: int) -> Server:
    port = cluster.client().nodes_manager.slots_cache[slot][0].port
    return next(server for server in cluster.servers if server.port == port)


def take_over(cluster: Cluster, port: int) -> None:
    """Let the replica of a master take its place, with all data. Returns when both know.

    WAIT would return at once: it waits for what its own connection has written.
    """
    old = next(server for server in cluster.servers if server.port == port)
    _, written, replicas = old.client().role()
    new = next(server for server in cluster.servers if server.port == int(replicas[0][1]))

    def has_all() -> bool:
        *_, link, read = new.client().role()
        return bool(link == b"connected" and read >= written)

    wait_until(has_all)
    new.client().execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    wait_until(lambda: is_master(new) and not is_master(old))


@pytest.mark.parametrize("step", ["freeze", "apply", "finish"])
def test_a_failover_under_any_step_is_survived(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """WAIT fails too on a server that has become a replica. Its error says less than the call's."""
    fill(cluster, [("RPUSH", f"tt:inbox:{n}", "a", f"{n}") for n in range(KEYS)])
    send = Router._send
    taken: list[str] = []

    def failing_over(
        router: Router, name: str, operation: Operation, *args: Any, **kwargs: Any
    ) -> Any:
        if operation.script.operation == step and not taken:
            taken.append(name)
            router._server(name)
            take_over(cluster, int(name.rpartition(":")[2]))
        return send(router, name, operation, *args, **kwargs)

    monkeypatch.setattr(Router, "_send", failing_over)
    monkeypatch.setattr("tt_migrate.engine.cluster.round.TAKE_OVER_MILLISECONDS", 300)
    monkeypatch.setattr("tt_migrate.engine.cluster.relocation.YOUNG_MILLISECONDS", 200)
    done = Migrator(cluster.client(), "town").migrate()
    assert taken
    assert done.complete
    client = cluster.client()
    for n in range(KEYS):
        assert client.lrange(f"tt:town:inbox:{n}", 0, -1) == [b"a", b"%d" % n]
        assert not client.exists(f"tt:inbox:{n}")


def test_a_server_that_was_down_takes_over_with_all_data(cluster: Cluster) -> None:
    """Otherwise the tests above lose keys that no run has touched."""
    old = masters(cluster)[0]
    new = replica_of(cluster, old)
    take_over(cluster, old.port)
    old.kill()
    cluster.reset()
    fill(cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(KEYS)])
    take_over(cluster, new.port)
    assert sum(server.client().dbsize() for server in masters(cluster)) == KEYS


def test_servers_that_a_failover_replaced_between_two_operations_are_looked_up(
    cluster: Cluster,
) -> None:
    fill(cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(KEYS)])
    client = cluster.client()
    assert Migrator(client, "town").count().total == KEYS
    old = masters(cluster)[1]
    take_over(cluster, old.port)
    old.kill()
    assert Migrator(client, "town").count().total == KEYS


def test_what_a_demoted_master_has_done_is_not_confirmed(cluster: Cluster) -> None:
    refused = ResponseError("WAIT cannot be used with replica instances. Please also note ...")
    pipeline = Pipeline(cluster.masters[0].client())
    replica = [b"slave", b"127.0.0.1", 1, b"connected", 0]
    for replicated, role in ((refused, replica), (1, replica), (1, refused)):
        found = pipeline._unconfirmed(replicated, role)
        assert isinstance(found, PassingError)
        assert "become a replica" in str(found)
    unblocked = ResponseError("UNBLOCKED force unblock from blocking operation")
    assert isinstance(as_passing(unblocked), PassingError)
    assert Failure(as_passing(refused), is_unsure=True).is_unsure


def test_a_replica_that_has_just_become_a_master_is_no_foreign_server(cluster: Cluster) -> None:
    """It said that it is a replica, and answers ROLE as a master does, with three parts."""
    check_data(
        ServerState("redis", "8.2.0", "replica", "cluster"),
        masters(cluster)[0].client(),
        Refusals(),
    )


@each(
    ("reply", "words"),
    [
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is 'no'", "master down"),
        ("CLUSTERDOWN The cluster is down", "cluster down"),
        ("CLUSTERDOWN Hash slot not served", "cluster down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "slots moving"),
        ("ASK 93 127.0.0.1:7000", "slots moving"),
        ("MOVED 93 127.0.0.1:7000", "slots moving"),
        ("BUSY Redis is busy running a script", "server busy"),
        ("READONLY You can't write against a read only replica", "read-only server"),
        ("LOADING Redis is loading the dataset in memory", "server loading"),
    ],
)
def test_why_a_run_waits_is_said_whatever_redis_py_makes_of_the_reply(
    reply: str, words: str
) -> None:
    """redis-py has classes for some codes, and takes these from the texts."""
    error = BaseParser.parse_error(reply)
    assert isinstance(error, RedisError)
    assert two_words(as_passing(error)) == words
    code, _, _ = reply.partition(" ")
    if code not in ("ASK", "MOVED", "READONLY", "LOADING"):  # those of clusters and connections
        waits: list[Exception] = []
        with pytest.raises(PassingError):
            retried(Retry(NoBackoff(), 1, (PassingError,)), raiser(error), waits.append, begun=True)
        assert two_words(waits[0]) == words


def raiser(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail


class Slot:
    """A slot that a test moves by hand in steps, as `redis-cli --cluster reshard` does."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.cluster = cluster
        self.number = cluster.client().keyslot(key)
        self.here = owner(cluster, self.number)
        self.there = next(one for one in masters(cluster) if one is not self.here)
        self._ids = [
            one.client().execute_command("CLUSTER", "MYID") for one in (self.here, self.there)
        ]

    def _set(self, server: Server, *words: Any) -> None:
        server.client().execute_command("CLUSTER", "SETSLOT", self.number, *words)

    def begin(self) -> None:
        """Announce the move, and move the keys."""
        self._set(self.there, "IMPORTING", self._ids[0])
        self._set(self.here, "MIGRATING", self._ids[1])
        client: Redis = self.here.client()
        while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", self.number, 100):
            move = ("127.0.0.1", self.there.port, "", 0, 5000, "KEYS", *keys)
            client.execute_command("MIGRATE", *move)

    def end(self) -> None:
        """Give the slot to its new server."""
        for server in (self.there, self.here):
            self._set(server, "NODE", self._ids[1])
        wait_until(lambda: all(self._is_there(one) for one in self.cluster.servers))

    def _is_there(self, server: Server) -> bool:
        client = Redis(port=server.port)
        lines = client.execute_command("CLUSTER", "SLOTS")
        client.close()
        return any(
            first <= self.number <= last and node[1] == self.there.port
            for first, last, node, *_ in lines
        )


@pytest.fixture
def slot(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    """A slot that begins to move when its new server was scanned, but its old one was not."""
    fill(cluster, [("RPUSH", f"tt:inbox:{{one}}{n}", "a") for n in range(KEYS)])
    moved = Slot(cluster, "tt:inbox:{one}")
    drive = Driver.drive
    scanned, begun = Event(), Event()

    def in_turn(driver: Driver, *args: Any) -> None:
        connection = driver.session.client.connection
        port = connection.port if connection else 0
        if port == moved.here.port and not begun.is_set():
            assert scanned.wait(60)
            begun.set()
            moved.begin()
        drive(driver, *args)
        if port == moved.there.port:
            scanned.set()

    monkeypatch.setattr(Driver, "drive", in_turn)
    yield moved
    if begun.is_set():
        moved.end()


@pytest.mark.parametrize("operation", ["count", "preview", "migrate"])
def test_a_scan_that_missed_keys_because_their_slot_moved_is_made_again(
    cluster: Cluster, slot: Slot, operation: str
) -> None:
    seen: list[str] = []

    def progress(now: Progress) -> None:
        if now.waiting == "slots moving" and not seen:
            slot.end()
        seen.extend([now.waiting] if now.waiting else [])

    done = getattr(Migrator(cluster.client(), "town", progress=progress), operation)()
    assert "slots moving" in seen
    assert done.total == KEYS
    if operation == "migrate":
        assert done.complete


def test_slots_that_do_not_come_to_rest_are_no_all_clear(cluster: Cluster, slot: Slot) -> None:
    for operation in ("count", "preview"):
        with pytest.raises(PassingError, match="TRYAGAIN"):
            getattr(Migrator(cluster.client(), "town", retry=FEW), operation)()
    with pytest.raises(PassingError) as raised:
        Migrator(cluster.client(), "town", retry=FEW).migrate()
    said = explain(raised.value, cluster.url)
    assert "slots are moving: run it again" in said
    assert "one shard" not in said
    slot.end()
    done = Migrator(cluster.client(), "town").migrate()
    left = Migrator(cluster.client(), "town").count()
    assert (done.complete, left.total) == (True, 0)


def test_slots_are_still_only_if_all_servers_agree() -> None:
    line = b"%s 127.0.0.1:1@2 myself,master - 0 0 %d connected %s\n"
    other = b"x 127.0.0.1:9@9 master - 0 0 9 connected 0-9\n"

    def look(first: bytes, second: bytes, epoch: int = 1) -> Any:
        replies = {"a": line % (b"a", epoch, first) + other, "b": line % (b"b", 2, second)}
        return look_at(replies, {"a": {0, 1}, "b": {2}})

    still = look(b"0-1", b"2")
    check_still(still, look(b"0 1", b"2"))
    for other_look in (
        look(b"0-1", b"2 [2->-a]"),
        look(b"0-1 [2-<-b]", b"2"),
        look(b"0", b"1-2"),
        look(b"0", b"2"),
        look(b"0-1", b"2", epoch=5),
    ):
        with pytest.raises(PassingError):
            check_still(still, other_look)
    with pytest.raises(PassingError):
        check_still(look(b"0", b"1-2"))


@pytest.mark.parametrize("operation", ["count", "migrate"])
def test_a_master_that_hangs_is_given_up_and_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr("tt_migrate.engine.calls.retry.LONGEST_STANDSTILL_SECONDS", 1)
    fill(cluster, [("RPUSH", f"tt:inbox:{n}", "a") for n in range(3000)])
    hanging = masters(cluster)[1]
    times: list[float] = []

    def progress(now: Progress) -> None:
        if not times:
            os.kill(hanging.pid, signal.SIGSTOP)
        times.append(time.monotonic())

    client = cluster.client(socket_timeout=0.3, retry=Retry(NoBackoff(), 0))
    try:
        with pytest.raises((RedisTimeoutError, RedisConnectionError)) as raised:
            getattr(Migrator(client, "town", max_pause_ms=1, progress=progress), operation)()
    finally:
        os.kill(hanging.pid, signal.SIGCONT)
    assert time.monotonic() - times[0] < 15
    named = server_of_error(raised.value)
    assert named
    assert named.address == f"127.0.0.1:{hanging.port}"
    assert explain(raised.value, cluster.url).startswith(f"Redis at {named.address}, which")


def test_an_announced_address_that_cannot_be_reached_is_named(cluster: Cluster) -> None:
    first, second, *_ = masters(cluster)
    second.client().config_set("cluster-announce-ip", "127.0.0.2")
    try:
        # The run can ask any of them where the masters are.
        nodes = [server.client() for server in cluster.servers]
        wait_until(
            lambda: all(
                "127.0.0.2" in str(node.execute_command("CLUSTER", "SLOTS")) for node in nodes
            )
        )
        done = tt_in_process("--check", "--redis-url", first.url, "--town-name", "town")
    finally:
        second.client().config_set("cluster-announce-ip", "")
        for server in cluster.servers:
            other = server.client()
            wait_until(lambda other=other: "127.0.0.2" not in str(other.cluster("NODES")))  # type: ignore[misc]
    assert done.returncode == 3
    assert f"its cluster announces a master at 127.0.0.2:{second.port}" in done.stderr
    assert "cluster-announce-ip" in done.stderr


class Leaving:
    """A cluster with one shard. A slot of it is about to move away, and its only key has moved."""

    def __init__(self, here: Server, there: Server) -> None:
        self.here = here
        self._client, other = here.client(), there.client()
        self._client.rpush("tt:inbox:1", "a")
        self._slot = self._client.execute_command("CLUSTER", "KEYSLOT", "tt:inbox:1")
        for one, word, peer in (
            (other, "IMPORTING", self._client),
            (self._client, "MIGRATING", other),
        ):
            peer_id = peer.execute_command("CLUSTER", "MYID")
            one.execute_command("CLUSTER", "SETSLOT", self._slot, word, peer_id)
        self._client.execute_command(
            "MIGRATE", "127.0.0.1", there.port, "tt:inbox:1", 0, 5000, "REPLACE"
        )

    def come_back(self) -> None:
        self._client.execute_command("CLUSTER", "SETSLOT", self._slot, "STABLE")
        self._client.rpush("tt:inbox:1", "a")


def test_a_look_at_one_shard_whose_slots_move_is_no_all_clear(
    own_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = in_cluster(own_server, newest_kind()), in_cluster(own_server, newest_kind())
    here.own_all_slots()
    joined(here, there)
    nodes = [here.client(), there.client()]
    wait_until(lambda: all("handshake" not in str(one.cluster("NODES")) for one in nodes))
    wait_until(lambda: cluster_state(there.client())["cluster_state"] == "ok")
    leaving = Leaving(here, there)
    for operation in ("check", "dry-run", "force"):
        with monkeypatch.context() as few:
            few.setattr("tt_migrate.terminal.run.Migrator", partial(Migrator, retry=FEW))
            done = tt_in_process(f"--{operation}", "--redis-url", here.url, "--town-name", "town")
        assert (done.returncode, "No migration needed" in done.stdout) == (3, False)
        assert "slots are moving: run it again" in done.stderr
        assert "redis-cli --cluster fix" in done.stderr
    for look in (Migrator.count, Migrator.preview):
        with pytest.raises(PassingError):
            look(Migrator(here.client(), "town", retry=FEW))
    waits: list[str] = []

    def progress(now: Progress) -> None:
        waits.extend([now.waiting] if now.waiting else [])

    retry = quick_retry(at=2, act=leaving.come_back)
    run = Migrator(here.client(), "town", retry=retry, progress=progress)
    assert run.count().total == 1
    assert run.migrate().total == 1


def test_a_look_under_which_a_slot_begins_to_move_is_made_again(
    newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slots are compared before and after."""
    still = Look({"": (b"1", ALL_SLOTS)}, is_still=True)
    looks = [still, replace(still, is_still=False), still, replace(still, own={}), still, still]
    newest.client().rpush("tt:inbox:1", "a")
    monkeypatch.setattr(Session, "look", lambda _: looks.pop(0))
    assert Migrator(newest.client(), "town", retry=quick_retry()).count().total == 1
    assert looks == []


def test_without_the_permission_for_cluster_nodes_it_is_refused_once(shard: Server) -> None:
    if shard.kind.version < (7, 0):
        pytest.skip(f"{shard.kind.name}: no subcommand can be forbidden")
    run = Migrator(user_without(shard, "cluster|nodes"), "town")
    for operation in (run.count, run.preview, run.count):
        operation()
    assert refusals(shard) == {"cluster|nodes": 1}
