"""Random records, whole and damaged, and what Lua and Python make of them.

`python -m tests.records redis://localhost:6379 200000` compares so many, both ways.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from redis import Redis

from tests.hash_to_json import json_of
from tests.json_to_hash import RecordError, fields_of
from tt_migrate import DOWNGRADE, UPGRADE
from tt_migrate.engine.calls.scripts import source

ID = "12345678-9abc-def0-1234-56789abcdef0"
_NAMES = (
    *("id", "name", "agent_type", "state", "cli", "model", "current_task", "created_at"),
    *("last_heartbeat", "tasks_completed", "rounds_completed", "description", "assigned_to"),
    *("updated_at", "completed_at", "result", "parent_id", "tags", "other", "é", 'a"b', "", "a\\b"),
)
_PIECES = (
    *("a", "B", " ", "/", '"', "\\", "\n", "\t", "\0", "\x1f", "\x7f", "ä", "—", "漢", "😀"),
    *("\ud800", "\udc00", "\ue000", "\ufffd", "[", "]", "{", "}", ",", ":", "0", "null"),
)
_NUMBERS = (
    *("0", "-0", "7", "-1", "12345678901234567890123", "9007199254740993", "1.0", "1.50", "0.1"),
    *("1e3", "1E+2", "15e-1", "100e-2", "1e400", "1e-7", "0e99", "1e19", "1e20", "01", "1.", ".5"),
    *("+1", "1e", "--1", "99999999999999999999", "18446744073709551615", "18446744073709551616"),
)
_TIMES = (
    *("2025-01-31T01:02:03Z", "2024-02-29T23:59:60.123456789+02:00", "2025-02-29T00:00:00Z"),
    *("2025-1-1T00:00:00Z", "2025-01-01 00:00:00z", "2025-01-01T00:00:00", "2025-01-01T24:00:00Z"),
    *("2025-13-01T00:00:00Z", "2025-01-01T00:00:00.Z", "2025-01-01T00:00:00-24:00", "0000-02-29t0"),
)
_STATES = ("idle", "working", "cold", "draining", "pending", "in_flight", "done", "failed", "")
_DAMAGES = (b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\xff", b"\xc3", b"0")
_SCRIPT = """
local replies = {}
for n = 1, #ARGV, 2 do
  local made, changes = json.unless_refused(%s, ARGV[n], %r, %s)
  replies[#replies + 1] = made or false
  replies[#replies + 1] = changes or {}
end
return replies
"""


class Maker:
    """Makes random records. `rng`: what decides."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def text(self) -> str:
        """A text, often a usual one."""
        if self._rng.random() < 0.4:
            return self._rng.choice((ID, *_TIMES, *_STATES, *_NUMBERS, "worker", "true"))
        return "".join(self._rng.choices(_PIECES, k=self._rng.randrange(8)))

    def value(self, depth: int = 0) -> str:
        """A value, as JSON."""
        kind = self._rng.randrange(8 if depth < 4 else 5)
        if kind < 3:
            return self._quoted(self.text())
        if kind == 3:
            return self._rng.choice(_NUMBERS)
        if kind == 4:
            return self._rng.choice(("null", "true", "false", "null", "NaN", "-Infinity", "nul"))
        items = [self.value(depth + 1) for _ in range(self._rng.randrange(4))]
        if kind == 5:
            return f"[{self._joined(items)}]"
        if kind == 6:
            return f"[{','.join(self._quoted(self.text()) for _ in items)}]"
        names = [self._quoted(self._rng.choice(_NAMES)) for _ in items]
        return f"{{{self._joined(self._member(*pair) for pair in zip(names, items, strict=True))}}}"

    def record(self) -> bytes:
        """A JSON record, perhaps a damaged one."""
        names = self._rng.sample(_NAMES, self._rng.randrange(10))
        names += self._rng.choices(names, k=1) if names and self._rng.random() < 0.05 else []
        members = [self._member(self._quoted(name), self.value()) for name in names if name != "id"]
        if self._rng.random() < 0.9:
            members.insert(self._rng.randrange(len(members) + 1), f'"id":"{ID}"')
        text = f"{{{self._joined(members)}}}" if self._rng.random() < 0.98 else self.value()
        stored = self._blank() + text.encode("utf-8", "surrogatepass") + self._blank()
        return self._damaged(stored)

    def alike(self, number: int) -> Iterator[bytes]:
        """Records of one shape, as 0.6 writes them, but with odd values, some of them damaged."""
        names = self._rng.sample([*_NAMES[1:18], "other", "more"], self._rng.randrange(8))
        names.insert(self._rng.randrange(len(names) + 1), "id")
        kinds = {name: self._rng.randrange(6) for name in names}
        for n in range(number):
            usual = {name: self._usual(kind, odd=n > 0) for name, kind in kinds.items()}
            members = [f'"{name}":{value}' for name, value in (usual | {"id": f'"{ID}"'}).items()]
            stored = f"{{{','.join(members)}}}".encode("utf-8", "surrogatepass")
            yield self._damaged(stored) if n and self._rng.random() < 0.3 else stored

    def _usual(self, kind: int, *, odd: bool) -> str:
        if odd and self._rng.random() < 0.1:
            return self.value()
        if kind < 2:
            return self._quoted(self.text() if odd else "ab"[:kind])
        if kind == 2:
            return self._rng.choice(_NUMBERS if odd else ("7", "12"))
        if kind == 3:
            items = [self._quoted(self.text()) for _ in range(self._rng.randrange(3))]
            return f"[{','.join(items if odd else [])}]"
        return ("null", "true")[kind - 4]

    def _damaged(self, stored: bytes) -> bytes:
        while self._rng.random() < 0.25:
            at = self._rng.randrange(len(stored) + 1)
            some = self._rng.choice((b"", *_DAMAGES))
            stored = stored[:at] + some + stored[at + self._rng.randrange(3) :]
        return stored

    def fields(self, family: str) -> dict[bytes, bytes]:
        """A hash, often one that 0.6 could read."""
        fields = {"id": ID, "state": self._rng.choice(_STATES)}
        if family == "agent":
            fields |= {"tasks_completed": self._rng.choice(_NUMBERS), "agent_type": "worker"}
            fields |= dict.fromkeys(("created_at", "last_heartbeat"), _TIMES[0])
        else:
            fields |= dict.fromkeys(("created_at", "updated_at"), _TIMES[0])
            fields["tags"] = self.value()
        for name in self._rng.sample(_NAMES, self._rng.randrange(5)):
            fields[name] = self._rng.choice((self.text, self.value))()
        if self._rng.random() < 0.2:
            fields.pop(self._rng.choice([*fields]))
        made = {
            name.encode("utf-8", "surrogatepass"): value.encode("utf-8", "surrogatepass")
            for name, value in fields.items()
        }
        if self._rng.random() < 0.05:
            made[self._rng.choice([*made])] += b"\xff"
        return made

    def _quoted(self, text: str) -> str:
        whole = json.dumps(text, ensure_ascii=self._rng.random() < 0.3)
        return whole.replace("/", "\\/") if self._rng.random() < 0.2 else whole

    def _member(self, name: str, value: str) -> str:
        return f"{name}:{value}" if self._rng.random() < 0.8 else f"{name} : {value}"

    def _joined(self, parts: Any) -> str:
        return ("," if self._rng.random() < 0.8 else " ,\r\n\t").join(parts)

    def _blank(self) -> bytes:
        return (
            b"" if self._rng.random() < 0.9 else self._rng.choice((b" ", b"\n\t ", b"\xef\xbb\xbf"))
        )


def read_by_lua(
    redis: Redis,
    family: str,
    records: list[bytes],
    *,
    reader: str = "fields_of",
    record_id: str = ID,
) -> list[Any]:
    """What lua/parts/fields.lua makes of each record: the fields in order, or the reason.

    `reader`: `quick_fields_of` for lua/parts/shapes.lua.
    """
    script = source("migrate", UPGRADE).partition("local problem = cursor")[0]
    script += _SCRIPT % (reader, record_id, "ARGV[n + 1]")
    return _run(redis, script, family, records)


def written_by_lua(redis: Redis, family: str, records: list[dict[bytes, bytes]]) -> list[Any]:
    """What lua/conversions/to_json.lua makes of each hash: the JSON and the changes, or why not."""
    script = source("migrate", DOWNGRADE).partition("local problem = cursor")[0]
    script += _SCRIPT % ("json_of", ID, "cmsgpack.unpack(ARGV[n + 1])")
    packed = [redis.eval("return cmsgpack.pack(ARGV)", 0, *_flat(one)) for one in records]
    return _run(redis, script, family, packed)


def read_by_python(family: str, record: bytes, record_id: str = ID) -> Any:
    """What the oracle makes of a record."""
    try:
        return [*_flat(fields_of(family, record_id.encode(), record))]
    except RecordError as error:
        return str(error)


def written_by_python(family: str, fields: dict[bytes, bytes]) -> Any:
    """What the oracle makes of a hash."""
    try:
        return json_of(family, ID.encode(), fields)
    except RecordError as error:
        return str(error)


def differences(redis: Redis, rng: random.Random, number: int) -> Iterator[Any]:
    """Records of which Lua and Python make different things, and these things."""
    maker = Maker(rng)
    for family in ("agent", "task"):
        records = [maker.record() for _ in range(number)]
        for record, found in zip(records, read_by_lua(redis, family, records), strict=True):
            if found != (wanted := read_by_python(family, record)):
                yield record, found, wanted
        records = [one for _ in range(number // 20) for one in maker.alike(20)]
        quick = read_by_lua(redis, family, records, reader="quick_fields_of")
        for record, found in zip(records, quick, strict=True):
            if found != (wanted := read_by_python(family, record)):
                yield record, found, wanted
        hashes = [maker.fields(family) for _ in range(number)]
        for fields, found in zip(hashes, written_by_lua(redis, family, hashes), strict=True):
            if found != (wanted := written_by_python(family, fields)):
                yield fields, found, wanted


def _flat(fields: dict[bytes, bytes]) -> Iterator[bytes]:
    for pair in fields.items():
        yield from pair


def _run(redis: Redis, script: str, family: str, records: list[bytes]) -> list[Any]:
    args = [word for record in records for word in (family, record)]
    # The files before the operation's own code look at the arguments of a call.
    replies: Any = redis.eval(script, 0, *args)
    found: list[Any] = []
    for made, more in zip(replies[::2], replies[1::2], strict=True):
        if made is None:
            found.append(more.decode("utf-8", "surrogateescape"))
        else:
            is_json = isinstance(made, bytes)
            found.append((made, [text.decode() for text in more]) if is_json else made)
    return found


def main() -> None:
    """Compare as many records as the command line says."""
    redis, number = Redis.from_url(sys.argv[1]), int(sys.argv[2])
    UUID(ID)
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else None)
    shown = 0
    for _ in range(number // 2000 + 1):
        for difference in differences(redis, rng, 500):
            print(*difference, sep="\n  ")
            shown += 1
            if shown == 10:
                sys.exit(1)
    print(f"{number} records: Lua and Python agree")


if __name__ == "__main__":
    main()
