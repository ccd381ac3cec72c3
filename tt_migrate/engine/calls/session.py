"""A connection to a server: which server it is, what the user may do, and script calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import CacheProxyConnection
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from tt_migrate.engine.calls.caller import ScriptCaller
from tt_migrate.engine.calls.idle import heard, wake, watch
from tt_migrate.engine.calls.inspection import Inspection, Process
from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.scripts import (
    CLUSTER_GUARDS,
    GUARDS,
    NO_HEADS,
    Call,
    Layout,
    Script,
    script_for,
)
from tt_migrate.engine.calls.server import (
    UnansweredError,
    check_data,
    check_supported,
    check_writable,
    handshake_of,
    is_restricted,
    may_know_script_flags,
    server_of,
    undeclared_keys_named,
)
from tt_migrate.engine.calls.slots import ALL_SLOTS, Look, look_at
from tt_migrate.keyspace import town_bytes
from tt_migrate.plan import COPYING_COMMANDS, OPTIONAL_COMMANDS, Plan
from tt_migrate.results import Server

_KEEPING = ("DEL", "GET", "SET")
"""Commands with which a script keeps its cursor. A migration can do without."""


class Session:
    """A connection to a server on which a plan is carried out.

    `declares`: whether each call of a script names its keys in KEYS (see declared.py).

    `client`: holds one connection and must not retry by itself. If it repeated a batch without the
    session, perhaps on a restarted server, the cursor would not be valid there. `refusals`: the
    commands known to be refused; the session adds to them. `writes`: whether the run changes
    anything, now or later. `trip`: about how many seconds a round trip takes.

    Raises redis.exceptions.RedisError if the server cannot be reached or used.
    """

    declares = False

    def __init__(
        self,
        client: Redis,
        plan: Plan,
        town: str,
        refusals: Refusals,
        *,
        writes: bool = False,
    ) -> None:
        self.client = client
        self.plan = plan
        self.town = town
        self._refusals = refusals
        self._writes = writes
        self._is_shard = bool(refusals.probe)
        self._token = _new_token()
        self.trip = 0.0
        self.server = self._usable_server()
        guards = may_know_script_flags(self.server)
        heads = CLUSTER_GUARDS if self.server.in_cluster else GUARDS
        heads = heads if guards else NO_HEADS
        self._caller = ScriptCaller(client, refusals, heads=heads, loads=guards)
        self._inspection = Inspection(
            *(self._caller, refusals, self.script, town),
            has_slots=self._is_shard or self.server.in_cluster,
            declares=self.declares,
        )
        began = time.monotonic()
        self.process = self._first_look()
        self.trip = min(self.trip, time.monotonic() - began)
        self._inspection.check_proxy(self.server)
        self._mark()
        self._check_commands()

    def _first_look(self) -> Process:
        self._inspection.tries = self._must_try()
        return self._inspection.first_look(
            self.server, self._commands, self._needed, writes=self._writes
        )

    def look_again(self) -> None:
        """Ask again for the process and what the user may do: both can have changed meanwhile."""
        self.process = self._first_look()
        self._check_commands()

    def prepare(self, operations: Sequence[str]) -> None:
        """Get ready to write: send the scripts of some operations.

        They are sent with the next call, so that a refusal comes before the first write.
        """
        if self._caller.begin_loading():
            # What is refused shows now, and once, and not for each script.
            self.inspect()
        self._caller.send_ahead([*map(self.script, operations)])

    @property
    def layout(self) -> Layout:
        """Where the town's keys are."""
        return "shards" if self._is_shard else "shard" if self.server.in_cluster else "server"

    @property
    def least_size(self) -> int | None:
        """The size to report for a reply of 0: None, unknown, if DBSIZE is refused."""
        return None if "DBSIZE" in self._refusals.refused else 0

    @property
    def denied(self) -> bytes:
        """The commands that the user may not run in a script, separated by spaces.

        `nothing` if the user may run all, and a script cannot ask for that.
        """
        is_unasked = self._writes and not may_know_script_flags(self.server)
        words = ("nothing",) if is_unasked and not self._inspection.tries else self._refusals.denied
        return " ".join(words).encode()

    @property
    def refused(self) -> tuple[str, ...]:
        """The commands that the plan can need and that the user may not run or the server lacks."""
        refused = self._refusals.refused
        return tuple(command for command in self._needed if command in refused)

    def script(self, operation: str) -> Script:
        """An operation's script."""
        return script_for(operation, self.plan, self.layout)

    def kept_in(self) -> bytes:
        """What the name of the key begins with that keeps a cursor for this connection."""
        return b"tt:%b:flight:%b:" % (town_bytes(self.town), self._token)

    def why_alone(self, *, keeps_cursor: bool) -> str:
        """Why calls must be sent one at a time; empty if they need not.

        `keeps_cursor`: whether the server is to keep the cursor for the calls that follow.
        """
        connection = self.client.connection
        if isinstance(connection, CacheProxyConnection):
            return "the client has a cache"
        if connection and connection.encoder.decode_responses:
            # hiredis decodes a reply as soon as redis-py looks whether there is one.
            return "the client decodes replies"
        if not keeps_cursor:
            return ""
        if self._is_shard:
            return "the cluster has several shards"
        if self.server.name not in ("redis", "valkey"):
            return "the server is neither Redis nor Valkey"
        refused = self._refusals.refused
        lacking = [command for command in (*_KEEPING, "TIME", "EXISTS") if command in refused]
        return f"the user may not run {', '.join(lacking)}" if lacking else ""

    def send(self, call: Call) -> None:
        """Send a call ahead of the replies to earlier ones."""
        self._caller.send(call.script, *call.args)

    def receive(self) -> Any:
        """Read the reply to the oldest call of send()."""
        with _said_of_known_server():
            return self._caller.receive()

    def is_readable(self, seconds: float) -> bool:
        """Wait for a reply for at most so many seconds. Returns whether there is one."""
        return self._caller.is_readable(seconds)

    def call(self, call: Call) -> Any:
        """Run a script and return its reply. Raises redis.exceptions.RedisError."""
        with undeclared_keys_named(declares=self.declares), _said_of_known_server():
            return self._caller.call(call.script, *call.args)

    def look(self) -> Look:
        """What the only master of a cluster says of its slots now.

        A replica does not know that its master is about to move one. A user who may not run CLUSTER
        NODES learns of a move only if the cluster has got another shard by the end.
        """
        if not self.server.in_cluster or self.server.role == "replica" or self._is_shard:
            return Look({}, is_still=True)
        nodes = self._refusals.ask_nodes(self.client)
        if nodes is None:
            check_supported(self.server, self.client, self._refusals)
            return Look({}, is_still=True)
        return look_at({"": nodes}, {"": ALL_SLOTS})

    def has_moved(self) -> bool:
        """Whether this is no longer the server to migrate.

        The Sentinels can name another master while the old one still takes writes, which it will
        lose. Raises UnsupportedServerError if a cluster has got more than one shard.
        """
        check_supported(self.server, self.client, self._refusals)
        return self._is_old_master()

    def _is_old_master(self) -> bool:
        pool, connection = self.client.connection_pool, self.client.connection
        if not isinstance(pool, SentinelConnectionPool) or not pool.is_master or not connection:
            return False
        return bool(pool.get_master_address() != (connection.host, connection.port))

    def inspect(self) -> Process:
        """What the server process says of itself now."""
        return self._inspection.inspect()

    def connect(self) -> None:
        """Connect if the connection was dropped. A Sentinel connection asks for the master here."""
        if self.client.connection:
            with _said_of_known_server():
                self.client.connection.connect()

    def heard(self) -> None:
        """Note that the connection works."""
        heard(self.client.connection)

    def wake(self) -> bool:
        """Drop the connection if it may have died in silence. Returns whether it was dropped.

        No call must be in flight.
        """
        return wake(self.client.connection)

    def drop(self) -> None:
        """Drop the connection. Calls that are in flight there must not move a later cursor."""
        self._token = _new_token()
        if self.client.connection:
            self.client.connection.disconnect()

    def is_same_process(self) -> bool:
        """Whether the same server process answers as before, so that the cursor is valid.

        Raises what the constructor raises: the server may now be another one, or a replica.
        """
        self.server = self._usable_server()
        now = self.inspect()
        same_id = now.run_id == self.process.run_id
        is_same = same_id if now.run_id else self._caller.is_marked()
        if not is_same:
            self._refusals.forget()
            self._inspection.tries = self._must_try()
            self.process = self._inspection.inspect(self._commands)
            self._mark()
            self._check_commands()
        return is_same

    def _usable_server(self) -> Server:
        if self._is_old_master():
            self.drop()
            self.connect()
        handshake = handshake_of(self.client)
        self.trip, server = handshake.seconds, server_of(handshake)
        if not self._is_shard:
            check_supported(server, self.client, self._refusals)
        check_data(server, self.client, self._refusals)
        if self._writes:
            check_writable(server)
        return server

    def _must_try(self) -> bool:
        """Whether commands that write must be tried, since the server cannot be asked."""
        cannot_ask = not may_know_script_flags(self.server)
        return self._writes and cannot_ask and is_restricted(self.client, self._refusals)

    def _mark(self) -> None:
        if not self.process.run_id:
            self._caller.mark()

    @property
    def _needed(self) -> tuple[str, ...]:
        """The commands that the plan can need here."""
        moving: Mapping[Layout, tuple[str, ...]] = {
            "shard": COPYING_COMMANDS,
            "shards": self.plan.hiding_commands,
        }
        return tuple(dict.fromkeys((*self.plan.commands, *moving.get(self.layout, ()))))

    @property
    def _commands(self) -> tuple[str, ...]:
        keeping = _KEEPING if self._writes else ()
        return tuple(dict.fromkeys((*self._needed, *OPTIONAL_COMMANDS, *keeping)))

    def _check_commands(self) -> None:
        """Raise an error before the first write if a command that the plan can need is refused."""
        if not self._writes:
            return
        denied = [command for command in self.refused if command in self._refusals.denied]
        if denied:
            raise redis_errors.NoPermissionError(
                f"NOPERM the user has no permissions to run {', '.join(denied)}"
            )
        if self.refused:
            raise redis_errors.ResponseError(f"NOCOMMAND {', '.join(self.refused)}")


@contextmanager
def _said_of_known_server() -> Iterator[None]:
    """Raise UnansweredError where the server, which has answered before, does not in time."""
    try:
        yield
    except UnansweredError:
        raise
    except redis_errors.TimeoutError as error:
        raise UnansweredError(str(error)) from error


def _new_token() -> bytes:
    return token_hex(8).encode()


@contextmanager
def held_connection(client: Redis) -> Iterator[Redis]:
    """A client that holds one connection of another client's pool and does not retry.

    If that client holds a connection itself (`single_connection_client`), this connection is used.
    It is not watched then, and if it is lost it comes back to the database that it has selected.
    A pooled connection is reopened if it was silent for a while. The connection's settings are
    restored. Raises redis.exceptions.RedisError if the connection cannot be opened.
    """
    pool = client.connection_pool
    held = (
        client if client.connection else Redis(connection_pool=pool, single_connection_client=True)
    )
    connection = held.connection
    if connection is None:
        raise redis_errors.ConnectionError("the pool gave no connection")
    retry, database = connection.retry, connection.db
    connection.retry = Retry(NoBackoff(), 0)
    try:
        if held is client:
            # A user without +client|info, and a server that does not know it, has the client's own.
            with suppress(redis_errors.ResponseError):
                connection.db = int(client.client_info()["db"])
        else:
            wake(connection)
            watch(connection)
        yield held
    finally:
        connection.retry, connection.db = retry, database
        if held is not client:
            held.close()
