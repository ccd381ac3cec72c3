"""Breaks runs on a cluster in every way at hand, and counts each message before and after.

    python -m tests.faults [--seed 1] [--kind valkey-9.1] [--only kills] [--short]

Prints a line for each round, with the seed that repeats it. It sleeps until something is to break,
for a time that is drawn by chance; producers and consumers sleep to leave the processor to others.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from tests import command
from tests.clusters import NODE_TIMEOUT_MS, Cluster, fill
from tests.processes import Process
from tests.servers import Kind, Server, kinds
from tests.waiting import wait_until

TOWN = "town"
LISTS = ("inbox", "urgent")
MOVED = b":moved:"


class BrokenError(AssertionError):
    """Messages were lost or doubled, or keys were left behind."""


class Messages:
    """Unique messages, and what became of each.

    Producers and consumers work on the old and on the new names at once.
    """

    def __init__(self, cluster: Cluster, seed: int, names: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._names = names
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.pushed: set[bytes] = set()
        self.unsure: set[bytes] = set()
        self.popped: Counter[bytes] = Counter()

    def fill(self, *, with_conflicts: bool = True) -> None:
        """Put messages under the old names, and under a few of the new ones."""
        commands = []
        for n in range(self._names):
            for family in LISTS:
                for start in ("tt:", f"tt:{TOWN}:") if with_conflicts and n % 5 == 0 else ("tt:",):
                    words = [f"{family}-{n}-{start}-{i}".encode() for i in range(3)]
                    self.pushed.update(words)
                    push = "RPUSH" if family == "inbox" else "LPUSH"
                    commands.append((push, f"{start}{family}:{n}", *map(bytes.decode, words)))
        fill(self._cluster, commands)

    @contextmanager
    def live(self, producers: int = 2, consumers: int = 2) -> Iterator[None]:
        """Let producers and consumers work meanwhile."""
        works = [self._produce] * producers + [self._consume] * consumers
        for n, work in enumerate(works):
            seed = self._random.random()
            self._threads.append(threading.Thread(target=work, args=(n, seed), daemon=True))
            self._threads[-1].start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def drain(self) -> None:
        """Take everything that is under the new names."""
        for client in clients_of_masters(self._cluster):
            for family in LISTS:
                for key in client.scan_iter(match=f"tt:{TOWN}:{family}:*", count=1000):
                    taken: Any = client.lpop(key, 10**6)
                    with self._lock:
                        self.popped.update(taken or ())

    def check(self) -> str:
        """Return how many messages there are. Raises BrokenError."""
        found: Counter[Any] = Counter(self.popped)
        left: Counter[str] = Counter()
        for client in clients_of_masters(self._cluster):
            for key in client.scan_iter(match="tt:*", count=1000):
                kind = client.type(key)
                if kind == b"list":
                    found.update(client.lrange(key, 0, -1))
                    left["hidden" if b":moving:" in key else _format(key)] += 1
                elif MOVED in key:
                    left["marks" if client.pttl(key) > 0 else "marks without TTL"] += 1
        lost = [one for one in self.pushed if not found[one]]
        doubled = [one for one, number in found.items() if number > 1]
        strange = found.keys() - self.pushed - self.unsure
        said = f"{len(self.pushed)} messages, {sum(self.popped.values())} taken, keys {dict(left)}"
        if lost or doubled or strange or left["hidden"] or left["marks without TTL"]:
            raise BrokenError(f"{said}: lost {lost[:5]}, doubled {doubled[:5]}, strange {strange}")
        return said

    def _produce(self, number: int, seed: float) -> None:
        chance, client = random.Random(seed), self._cluster.client()
        for n in range(10**9):
            if self._stop.is_set():
                return
            family, name = chance.choice(LISTS), chance.randrange(self._names)
            key = f"{chance.choice(('tt:', f'tt:{TOWN}:'))}{family}:{name}"
            message = f"live-{number}-{n}".encode()
            try:
                (client.rpush if family == "inbox" else client.lpush)(key, message)
                self.pushed.add(message)
            except RedisError:
                self.unsure.add(message)
            time.sleep(0.001)

    def _consume(self, number: int, seed: float) -> None:
        chance, client = random.Random(seed), self._cluster.client()
        while not self._stop.is_set():
            family, name = chance.choice(LISTS), chance.randrange(self._names)
            key = f"{chance.choice(('tt:', f'tt:{TOWN}:'))}{family}:{name}"
            with suppress(RedisError):
                message = client.lpop(key)
                if isinstance(message, bytes):
                    with self._lock:
                        self.popped[message] += 1
            time.sleep(0.001)


def masters(cluster: Cluster) -> list[Server]:
    """The servers that are masters now, whatever failovers there have been."""
    return [server for server in cluster.servers if is_master(server)]


def clients_of_masters(cluster: Cluster) -> list[Redis]:
    return [server.tcp_client() for server in masters(cluster)]


def start_run(cluster: Cluster, *options: str) -> Process:
    """Start a migration in a process of its own."""
    url = next(server for server in cluster.servers if server.is_running).url
    where = ("--town-name", TOWN, "--redis-url", url)
    folder = cluster.masters[0].directory
    return command.start("--force", "--on-conflict", "merge", *where, *options, cwd=folder)


def wait_for(run: Process, cluster: Cluster) -> None:
    """Wait until a run hides keys, or has ended."""
    clients = clients_of_masters(cluster)

    def hides() -> bool:
        found = (client.scan(match="tt:{*", count=10**6)[1] for client in clients)
        return run.poll() is not None or any(found)

    wait_until(hides, 60)


def finish_run(cluster: Cluster, *, statuses: tuple[int, ...] = (0,)) -> None:
    """Migrate until nothing is left."""
    for _ in range(5):
        run = start_run(cluster)
        said = "".join(run.communicate(timeout=180))
        if run.returncode in statuses:
            return
    raise BrokenError(f"the last run ended with {run.returncode}: {said[-2000:]}")


def kills(cluster: Cluster, chance: random.Random, rounds: int, names: int) -> str:
    """Kill the client again and again, with producers and consumers."""
    messages = Messages(cluster, chance.randrange(10**6), names)
    messages.fill()
    with messages.live():
        for _ in range(rounds):
            run = start_run(cluster)
            wait_for(run, cluster)
            # The fault can come at any moment of the run.
            time.sleep(chance.uniform(0, 0.5))
            run.kill()
            run.communicate()
    finish_run(cluster)
    return messages.check()


def stops(cluster: Cluster, chance: random.Random, rounds: int, names: int) -> str:
    """Stop a run for so long that another finishes and everything is consumed, then go on."""
    messages = Messages(cluster, chance.randrange(10**6), names)
    messages.fill()
    with messages.live():
        for _ in range(rounds):
            run = start_run(cluster)
            wait_for(run, cluster)
            time.sleep(chance.uniform(0, 0.5))
            run.send_signal(signal.SIGSTOP)
            time.sleep(3.5)  # longer than the time after which others take its keys over
            finish_run(cluster, statuses=(0, 1))
            messages.drain()
            run.send_signal(signal.SIGCONT)
            run.communicate(timeout=120)
    finish_run(cluster)
    return messages.check()


def two_at_once(cluster: Cluster, chance: random.Random, rounds: int, names: int) -> str:
    """Run twice at once, and kill one of them."""
    messages = Messages(cluster, chance.randrange(10**6), names)
    messages.fill()
    with messages.live():
        for _ in range(rounds):
            runs = [start_run(cluster), start_run(cluster)]
            wait_for(runs[0], cluster)
            time.sleep(chance.uniform(0, 0.5))
            runs[0].kill()
            for run in runs:
                run.communicate(timeout=120)
    finish_run(cluster)
    return messages.check()


def reshards(cluster: Cluster, chance: random.Random, rounds: int, names: int) -> str:
    """Move slots to another master, key by key, while runs are made and killed."""
    return _with_moving_slots(cluster, chance, rounds, names, move_slot)


def migrated_slots(cluster: Cluster, chance: random.Random, rounds: int, names: int) -> str:
    """The same with Valkey's CLUSTER MIGRATESLOTS, which moves slots at once."""
    if cluster.masters[0].kind.name < "valkey-9":
        return "not known to this server"
    return _with_moving_slots(cluster, chance, rounds, names, move_slot_at_once)


def _with_moving_slots(
    cluster: Cluster,
    chance: random.Random,
    rounds: int,
    names: int,
    move: Callable[[Cluster, int, Server, Server], None],
) -> str:
    messages = Messages(cluster, chance.randrange(10**6), names)
    messages.fill()
    end = threading.Event()

    def reshard() -> None:
        for slot in range(0, 16384, 37):
            if end.is_set():
                return
            client = cluster.client()
            owner = client.nodes_manager.slots_cache[slot][0].port
            here = next(server for server in cluster.masters if server.port == owner)
            there = chance.choice([server for server in cluster.masters if server is not here])
            move(cluster, slot, here, there)

    mover = threading.Thread(target=reshard, daemon=True)
    with messages.live():
        mover.start()
        for _ in range(rounds):
            run = start_run(cluster)
            wait_for(run, cluster)
            time.sleep(chance.uniform(0, 1))
            run.kill()
            run.communicate()
        end.set()
        mover.join()
    finish_run(cluster)
    return messages.check()


def move_slot(cluster: Cluster, slot: int, here: Server, there: Server) -> None:
    """Move a slot from one master to another as `redis-cli --cluster reshard` does."""
    one, other = here.tcp_client(), there.tcp_client()
    source, target = (client.execute_command("CLUSTER", "MYID") for client in (one, other))
    other.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
    one.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
    while keys := one.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
        one.execute_command(
            *("MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "REPLACE", "KEYS", *keys)
        )
    for client in (other, one, *(server.tcp_client() for server in cluster.masters)):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target)


def move_slot_at_once(cluster: Cluster, slot: int, here: Server, there: Server) -> None:
    one, other = here.tcp_client(), there.tcp_client()
    target = other.execute_command("CLUSTER", "MYID")
    one.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target)
    wait_until(lambda: not one.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1))


def failovers(cluster: Cluster, chance: random.Random, rounds: int, names: int) -> str:
    """Kill a master while its replica stands still, so that acknowledged writes are lost."""
    for server in cluster.servers:
        server.client().config_set("cluster-node-timeout", 1500)
    messages = Messages(cluster, chance.randrange(10**6), names)
    messages.fill()
    for _ in range(rounds):
        run = start_run(cluster)
        wait_for(run, cluster)
        # The fault can come at any moment of the run.
        time.sleep(chance.uniform(0, 0.5))
        victim = chance.choice(masters(cluster))
        replica = replica_of(cluster, victim)
        os.kill(replica.pid, signal.SIGSTOP)
        time.sleep(chance.uniform(0.02, 0.3))
        victim.kill()
        os.kill(replica.pid, signal.SIGCONT)
        run.communicate(timeout=180)
        # A master that comes back before its replica takes over would be an empty one.
        wait_until(partial(is_master, replica))
        victim.restart()
        wait_until(cluster.has_replicas)
    for server in cluster.servers:
        server.client().config_set("cluster-node-timeout", NODE_TIMEOUT_MS)
    finish_run(cluster)
    return messages.check()


def is_master(server: Server) -> bool:
    return server.is_running and bool(server.tcp_client().role()[0] == b"master")


def replica_of(cluster: Cluster, master: Server) -> Server:
    ports = [int(port) for _, port, _ in master.tcp_client().role()[2]]
    return next(server for server in cluster.servers if server.port in ports)


class Fault(NamedTuple):
    """What breaks, how often and with how many names in full, and each master's replicas."""

    make: Callable[[Cluster, random.Random, int, int], str]
    rounds: int
    names: int
    replicas: int = 0


FAULTS = {
    "kills": Fault(kills, 50, 2000),
    "stops": Fault(stops, 3, 2000),
    "two-at-once": Fault(two_at_once, 4, 3000),
    "reshards": Fault(reshards, 6, 2000),
    "migrateslots": Fault(migrated_slots, 6, 2000),
    "failovers": Fault(failovers, 10, 8000, replicas=1),
}


def main() -> None:
    """Run all faults on all kinds of server: the newest of each product in full."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--kind", action="append")
    parser.add_argument("--only", action="append", choices=FAULTS)
    parser.add_argument("--short", action="store_true", help="one round of each")
    wanted = parser.parse_args()
    broken = False
    for kind in kinds():
        if kind.program and (not wanted.kind or kind.name in wanted.kind):
            is_full = kind.name in ("redis-8.2", "valkey-9.1") and not wanted.short
            for name in wanted.only or FAULTS:
                print(f"{kind.name} {name} seed {wanted.seed}:", end=" ", flush=True)
                try:
                    said = one_fault(kind, name, wanted.seed, is_full=is_full)
                except BrokenError as error:
                    broken, said = True, f"BROKEN: {error}"
                print(said, flush=True)
    sys.exit(broken)


def one_fault(kind: Kind, name: str, seed: int, *, is_full: bool) -> str:
    """Make one fault on a new cluster. Returns what was counted. Raises BrokenError."""
    fault = FAULTS[name]
    cluster = Cluster.start(kind, replicas=fault.replicas)
    try:
        return fault.make(cluster, random.Random(seed), fault.rounds if is_full else 1, fault.names)
    finally:
        cluster.stop()


def _format(key: bytes) -> str:
    return "new" if key.startswith(f"tt:{TOWN}:".encode()) else "old"


if __name__ == "__main__":
    main()
