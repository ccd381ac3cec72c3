"""Keys that do not move: the server's CPU, beside a script that visits every key once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from redis import Redis

from bench.machinery import Run, data, running
from bench.machinery.measure import server_cpu
from bench.results import ROUNDS, Bar, Results
from tests.servers import Kind
from tt_migrate import DOWNGRADE, RENAME, REVERSE, UPGRADE, Migrator, Plan, from_town

VISIT = "a script that looks at each name once"
_FAMILIES = ("agent", "inbox", "task", "urgent")
_FORMER = "former"
_VISIT_LUA = f"""
local cursor, found = '0', 0
repeat
  local reply = redis.call('SCAN', cursor, 'MATCH', 'tt:*', 'COUNT', 1000)
  cursor = reply[1]
  for _, key in ipairs(reply[2]) do
    if string.find(key, 'tt:{data.TOWN}:', 1, true) == 1 then found = found + 1 end
  end
until cursor == '0'
return found
"""

Work = Callable[[Redis], object]


def _of_towns(n: int) -> str:
    return f"tt:town-{n % 60}:{_FAMILIES[n % 4]}:{UUID(int=n)}"


def _unknown(n: int) -> str:
    return f"tt:cache:page:{UUID(int=n)}:v{n % 7}"


def _old(n: int) -> str:
    return f"tt:{_FAMILIES[n % 4]}:{UUID(int=n)}"


def _new(n: int) -> str:
    return f"tt:{data.TOWN}:{_FAMILIES[n % 4]}:{UUID(int=n)}"


def _former(n: int) -> str:
    return f"tt:{_FORMER}:{_FAMILIES[n % 4]}:{UUID(int=n)}"


def _migrate(plan: Plan) -> Work:
    return lambda redis: Migrator(redis, data.TOWN, plan).migrate()


IDLE: dict[str, tuple[Callable[[int], str], Work, float]] = {
    "60 other towns, `tt migrate`": (_of_towns, _migrate(RENAME), 2.0),
    "60 other towns, `--check`": (
        _of_towns,
        lambda redis: Migrator(redis, data.TOWN, RENAME).count(),
        2.5,
    ),
    "60 other towns, a preview": (
        _of_towns,
        lambda redis: Migrator(redis, data.TOWN, RENAME).preview(),
        2.5,
    ),
    "names that no Tinytown has, `tt migrate`": (_unknown, _migrate(RENAME), 2.0),
    "`tt migrate` again": (_new, _migrate(RENAME), 2.0),
    "`--reverse` again": (_old, _migrate(REVERSE), 2.0),
    "`--upgrade` again": (_new, _migrate(UPGRADE), 3.0),
    "`--downgrade` again": (_old, _migrate(DOWNGRADE), 3.0),
}
"""What is run on which keys, and at most how many times that of VISIT it may cost."""

MOVING: dict[str, tuple[Callable[[int], str], Plan]] = {
    "the same keys, `tt migrate`": (_old, RENAME),
    "the same keys, `--reverse`": (_new, REVERSE),
    "the same keys, `--from-town`": (_former, from_town(_FORMER)),
    "the same records, `--upgrade`": (_old, UPGRADE),
    "the same records, `--downgrade`": (_new, DOWNGRADE),
}
_PAIRS = (("--reverse", 1, 0), ("--from-town", 2, 0), ("--downgrade", 4, 3))
"""Of MOVING, the places of two that are compared."""


def runs(kind: Kind, keys: int) -> Iterator[Run]:
    """In each round, the visiting script and the work, on the same keys."""
    with running(kind) as server:
        redis = server.client()

        def run(name: str, work: Work) -> Run:
            cpu = server_cpu(redis)
            work(redis)
            cpu = server_cpu(redis) - cpu
            return Run(kind.name, name, keys, server_seconds=cpu)

        for _ in range(ROUNDS):
            for name, (key, work, _limit) in IDLE.items():
                _fill(redis, map(key, range(keys)), as_hashes=name == "`--upgrade` again")
                yield run(f"{VISIT}: {name}", lambda redis: redis.eval(_VISIT_LUA, 0))
                yield run(name, work)
            for name, (key, plan) in MOVING.items():
                if plan.convert:
                    data.fill_records(redis, keys // 5)
                    if plan is DOWNGRADE:
                        Migrator(redis, data.TOWN, UPGRADE).migrate()
                else:
                    _fill(redis, map(key, range(keys)))
                yield run(name, _migrate(plan))


def bars(results: Results) -> Iterator[Bar]:
    """What is wanted of it."""

    def cpu(name: str) -> float:
        return results.median("server_seconds", experiment="idle", contestant=name)

    for name, (_, _, limit) in IDLE.items():
        what = f"{name}: server CPU of {VISIT}"
        yield Bar(what, limit, cpu(name) / cpu(f"{VISIT}: {name}"), unit="x")
    names = [*MOVING]
    for option, one, other in _PAIRS:
        what = f"`{option}`: server CPU of {names[other].partition(', ')[2]}"
        yield Bar(what, 1.4, cpu(names[one]) / cpu(names[other]), unit="x")


def _fill(redis: Redis, keys: Iterable[str], *, as_hashes: bool = False) -> None:
    redis.flushall()
    pipeline = redis.pipeline(transaction=False)
    for n, key in enumerate(keys):
        if as_hashes and n % 2 == 0:
            pipeline.hset(key, "id", key)
        else:
            pipeline.set(key, "x")
        if n % 10_000 == 0:
            pipeline.execute()
    pipeline.execute()
