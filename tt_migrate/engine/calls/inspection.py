"""Asks a server what a run must know: which process it is, and what the user may do there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import exceptions as redis_errors

from tt_migrate.engine.calls.caller import ScriptCaller
from tt_migrate.engine.calls.refusals import Refusals
from tt_migrate.engine.calls.replies import InspectReply, Word, malformed_as_invalid, names, whole
from tt_migrate.engine.calls.scripts import Script
from tt_migrate.engine.calls.server import (
    ObstacleError,
    UndeclaredKeysError,
    UnsupportedServerError,
    may_know_script_flags,
    undeclared_keys_named,
    wants_declared_keys,
)
from tt_migrate.keyspace import town_bytes
from tt_migrate.results import Server

_NAMES = 16


@dataclass(frozen=True)
class Process:
    """What inspect.lua says about the server process.

    `run_id`: empty if the user may not run INFO. `evicted`: keys evicted since the process started.
    `evicting`: whether it evicts keys when `maxmemory` is reached.
    """

    run_id: bytes
    evicted: int
    evicting: bool


class Inspection:
    """Asks one server, with inspect.lua, and with locate.lua behind a proxy.

    `refusals`: what is known of the server; the inspection adds to it. `script`: returns an
    operation's script. `has_slots`: whether the server is known to be a node of a cluster.
    `declares`: as in Session. `tries`: whether commands that write must be tried: each failed try
    is counted in errorstats.

    Raises redis.exceptions.RedisError if the server cannot be used.
    """

    def __init__(
        self,
        caller: ScriptCaller,
        refusals: Refusals,
        script: Callable[[str], Script],
        town: str,
        *,
        has_slots: bool,
        declares: bool,
    ) -> None:
        self._caller = caller
        self._refusals = refusals
        self._script = script
        self._town = town
        self._has_slots = has_slots
        self._declares = declares
        self._probe = refusals.probe or probe_key(town)
        self.tries = False

    def first_look(
        self, server: Server, commands: Sequence[str], needed: Sequence[str], *, writes: bool
    ) -> Process:
        """Inspect the server process and, unless an earlier operation has told, the commands.

        Since Redis 7.0 asking leaves no entry in ACL LOG, so each session asks. Before, a refused
        command is not tried again, except for what the plan needs when the run is to write: an
        administrator may have changed the permissions meanwhile. `needed`: those of `commands`
        that the plan can need. `writes`: as in Session.
        """
        known = self._refusals
        if may_know_script_flags(server):
            return self.inspect(commands)
        if writes:
            known.forget_commands(needed)
        asked = known.asked and (known.tried or not self.tries) and not writes
        refused = known.refused
        unknown = [command for command in commands if command not in refused]
        process = self.inspect(() if asked else unknown, refused)
        if known.run_id and process.run_id != known.run_id:
            known.forget()
            process = self.inspect(commands)
        known.run_id = process.run_id
        return process

    def inspect(self, commands: Sequence[str] = (), refused: Sequence[str] = ()) -> Process:
        """Inspect the server process, and test some commands.

        `refused`: commands that are known to be refused and are not tried again.
        """
        known = self._refusals
        if not commands:
            refused = known.refused
        if "INFO" in known:
            refused = (*refused, "INFO")
        args: tuple[Word, ...] = (
            self._probe,
            int(self.tries),
            " ".join(dict.fromkeys(refused)),
            *sorted(set(commands).difference(refused)),
        )
        reply = self._ask_inspect(args)
        with malformed_as_invalid():
            said = InspectReply(*reply)
            process = Process(
                names([said.run_id])[0], whole(said.evicted), bool(whole(said.evicting))
            )
            denied = [name.decode() for name in names(said.denied)]
            missing = [name.decode() for name in names(said.missing)]
            obstacle = names([said.obstacle])[0].decode("utf-8", "surrogateescape")
        if "undeclared key" in obstacle and self._caller.allow_undeclared_keys():
            return self.inspect(commands, refused)
        if wants_declared_keys(obstacle):
            raise UndeclaredKeysError(obstacle)
        if obstacle:
            raise ObstacleError(obstacle)
        if commands:
            kept = [command for command in known.denied if command in refused]
            known.denied = tuple(dict.fromkeys((*kept, *denied)))
            known.missing = (*(name for name in known.missing if name in refused), *missing)
            known.asked, known.tried = True, known.tried or self.tries
        return process

    def check_proxy(self, server: Server) -> None:
        """Raise UnsupportedServerError for a proxy that spreads keys over several servers.

        Most proxies refuse keys in different slots. Envoy does not, but it says who it is.
        """
        script, names = self._script("locate"), self._names("locate")
        is_known = self._refusals.probe or self._refusals.located
        is_proxy = server.name not in ("redis", "valkey") and not is_known
        # SCRIPT FLUSH gives a process another address, so ask again.
        if is_proxy and all(len(self._caller.locate(script, names)) > 1 for _ in range(2)):
            raise UnsupportedServerError(
                "a proxy spreads the keys over several servers, of which a script sees one: use the"
                " URL of a single server"
            )
        self._refusals.located = True

    def _ask_inspect(self, args: Sequence[Word]) -> Any:
        """Call inspect.lua, with keys in different slots where these should not matter."""
        script = self._script("inspect")
        is_known = self._has_slots or self._refusals.located
        keys = [] if is_known else self._names("inspect")
        with undeclared_keys_named(declares=self._declares):
            try:
                return self._caller.call(
                    script, *args, keys=[self._probe] if self._declares else keys
                )
            except redis_errors.NoPermissionError:
                if not keys:
                    raise
                # The server refuses a call if the user may not write one of the keys.
                return self._caller.call(script, *args)

    def _names(self, purpose: str) -> list[bytes]:
        """Names of no key, in different slots."""
        start = b"tt:%b:agent:tt-migrate-%b-" % (town_bytes(self._town), purpose.encode())
        return [b"%b%d" % (start, n) for n in range(_NAMES)]


def probe_key(town: str, number: int | str = "") -> bytes:
    """A key of the town that Tinytown does not use."""
    return b"tt:%b:agent:tt-migrate%b" % (town_bytes(town), str(number).encode())
