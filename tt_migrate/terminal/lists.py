"""The lists of keys in the report for people: whole, or their beginnings on a terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, islice

from tt_migrate.escape import shown
from tt_migrate.keyspace import RECORDS, family_and_id, in_order, town_key_start
from tt_migrate.plan import Plan
from tt_migrate.results import Migration, Preview
from tt_migrate.terminal.output import Symbols
from tt_migrate.terminal.reasons import TAKEN, Kind, ambiguous_reason, kind_of
from tt_migrate.terminal.redaction import Redactor
from tt_migrate.terminal.words import command_for, counted

# Where a whole list is.
_LIMIT = "--limit 0 shows all"
_JSON = "--limit 0 or --json shows all"
_RECORD = "--limit 0 or --json shows all, and so does --record in a run"


@dataclass(frozen=True)
class Lists:
    """Lists the keys of a report, a key a line.

    `limit`: how many keys of each family, or of each kind of problem, 0: all. `is_grouped`: whether
    problems are grouped by kind, with what to do about each; else each has its reason, and none is
    left out. The other fields are those of a TextReport.
    """

    plan: Plan
    town: str
    repeated: str
    redactor: Redactor
    symbols: Symbols
    limit: int
    is_grouped: bool

    def moves(self, title: str, keys: Collection[bytes]) -> Iterator[str]:
        """List keys that get another name."""
        return self._by_family(title, keys, self._start, self._move())

    def merges(self, title: str, keys: Mapping[bytes, str]) -> Iterator[str]:
        """List keys that are merged with their destination, and how."""
        line = _with_text(self._move(), keys, self.redactor.words)
        return self._by_family(title, keys, self._start, line)

    def records(self, title: str, keys: Collection[bytes]) -> Iterator[str]:
        """List records by their names in the town."""
        return self._by_family(title, keys, town_key_start(self.town), shown)

    def left(self, found: Preview | Migration) -> Iterator[str]:
        """List keys that stay, and why."""
        start, move = self._start, self._move()
        for reasons, first, name, show in (
            (found.conflicts, start, move, self.redactor.words),
            (found.failed, start, move, self.redactor.shown),
            (found.unconverted, town_key_start(self.town), shown, self.redactor.shown),
        ):
            if not self.is_grouped:
                line = _with_text(name, reasons, show)
                yield from (f"   {line(key)}" for key in in_order(reasons, first))
                continue
            is_record = reasons is found.unconverted
            for kind, keys in _by_kind(reasons).items():
                yield ""
                title = kind.name[0].upper() + kind.name[1:]
                yield self._titled(title, len(keys), "record" if is_record else "key")
                line = _with_text(name, reasons, show, known=kind.name)
                yield from self._problems(in_order(keys, first), line, _RECORD)
                yield from self._what_to_do(kind, keys, isinstance(found, Preview), is_record)

    def hint(self, found: Preview | Migration) -> Iterator[str]:
        """Name --on-conflict merge behind all keys that stay, unless it is said of a group."""
        if not self.is_grouped:
            yield from self._merge_hint(found.conflicts)

    def ambiguous(self, keys: Collection[bytes]) -> Iterator[str]:
        """List keys that stay because they may be another town's."""
        if not keys:
            return
        yield ""
        yield self._titled("Ambiguous keys, left alone", len(keys))
        yield from self._problems(
            in_order(keys, self._start),
            lambda key: f"{shown(key)} ({ambiguous_reason(self.plan, self.town, key)})",
            _RECORD,
        )
        if self.is_grouped:
            key = min(keys)
            yield (
                "   What to do: nothing, if they are another town's. If one is this town's, rename"
                f" it: RENAMENX {shown(key)} {shown(self.plan.destination(self.town, key))}"
            )

    def hidden(self, hidden: Mapping[bytes, bytes]) -> Iterator[str]:
        """List the keys in transit between shards, and say what to do."""
        if hidden:
            yield ""
            yield self._titled(
                "Keys in transit between shards, safe under hidden names", len(hidden)
            )
            yield from self._problems(
                sorted(hidden),
                lambda key: f"{shown(key)} (hidden as {shown(hidden[key])})",
                _JSON,
            )
            again = command_for(self.plan, self.repeated)
            yield f"   If no other run is at work on them, '{again}' finishes or returns them."

    def namesakes(self, namesakes: Mapping[bytes, Collection[bytes]]) -> Iterator[str]:
        """Say which agents have one name."""

        def line(name: bytes) -> str:
            ids = namesakes[name]
            cut = (self.limit if self.is_grouped else 0) or len(ids)
            listed = ", ".join(map(shown, islice(ids, cut)))
            more = f" and {len(ids) - cut:,} more" if len(ids) > cut else ""
            called = self.redactor.shown(name.decode("utf-8", "surrogateescape"))
            return (
                f"{len(ids)} agents are called {called}, and Tinytown sends to one of them only:"
                f" {listed}{more}."
            )

        yield from (text.strip() for text in self._problems(namesakes, line, _JSON))
        if namesakes and self.is_grouped:
            yield "What to do: end all agents of a name but one."

    @property
    def _start(self) -> int:
        return self.plan.name_start(self.town)

    @property
    def _may_merge(self) -> bool:
        """Whether --on-conflict merge is an option that was not given."""
        return self.plan.rename in ("forward", "town") and not self.plan.merge

    def _titled(self, title: str, number: int, one: str = "key") -> str:
        many = f" ({counted(number, one)})" if self.is_grouped else ""
        return f"   {title}{many}:"

    def _first(
        self, keys: Iterable[bytes], line: Callable[[bytes], str], limit: int, whole: str
    ) -> Iterator[str]:
        """The first keys, how many more there are, and where: every list is printed here."""
        rest = iter(keys)
        yield from (f"   {line(key)}" for key in islice(rest, limit or None))
        if more := sum(1 for _ in rest):
            yield f"   {self.symbols.more} and {more:,} more ({whole})"

    def _problems(
        self, keys: Iterable[bytes], line: Callable[[bytes], str], whole: str
    ) -> Iterator[str]:
        return self._first(keys, line, self.limit if self.is_grouped else 0, whole)

    def _by_family(
        self,
        title: str,
        keys: Collection[bytes],
        start: int,
        line: Callable[[bytes], str],
    ) -> Iterator[str]:
        """List keys in order, of each family as many as the limit allows."""
        if keys:
            yield f"   {title}:"
            ordered = in_order(keys, start)
            for _, family in groupby(ordered, key=lambda key: family_and_id(key, start)[0]):
                yield from self._first(family, line, self.limit, _LIMIT)
            yield ""

    def _what_to_do(
        self, kind: Kind, keys: Collection[bytes], is_preview: bool, is_record: bool
    ) -> Iterator[str]:
        command, cure = command_for(self.plan, self.repeated), kind.what_to_do(self.plan)
        if kind.name == TAKEN:
            yield from self._merge_hint(keys)
            if self._may_merge and all(map(self._is_mergeable, keys)):
                return
        if not is_preview:
            yield f"   What to do: {cure}. Then run '{command}' again."
        elif is_record and self.plan.rename == "forward":
            # The list has the names that records will have.
            yield f"   What to do: run '{command}'. Then {cure}, and run it again."
        else:
            yield f"   What to do: {cure}. Then run '{command}'."

    def _merge_hint(self, conflicts: Iterable[bytes]) -> Iterator[str]:
        """Name --on-conflict merge where it can resolve a conflict."""
        what = "Lists and stop flags"
        if self.plan.from_town is not None:
            what = "Lists, stop flags, active missions and events"
        if self._may_merge and any(map(self._is_mergeable, conflicts)):
            command = command_for(replace(self.plan, merge=True), self.repeated)
            yield (
                f"   {what} can be merged with their destinations: run"
                f" '{command}' (with --dry-run to see how)."
            )

    def _is_mergeable(self, key: bytes) -> bool:
        """Whether keys like this one can be merged, as far as the name tells."""
        family, rest = family_and_id(key, self._start)
        if family == "mission":
            return rest == b"active" or rest.endswith(b":events")
        return family not in (*RECORDS, "docket")

    def _move(self) -> Callable[[bytes], str]:
        """What shows a key and its destination."""
        # There may be a million keys. A destination differs from its key in the beginning, which
        # all keys share, so each key is escaped once.
        start, arrow = self._start, self.symbols.arrow
        beginning = shown(self.plan.destination_start(self.town))
        shared = 0

        def line(key: bytes) -> str:
            nonlocal shared
            shared = shared or len(shown(key[:start]))
            text = shown(key)
            return f"{text} {arrow} {beginning}{text[shared:]}"

        return line


def _by_kind(reasons: Mapping[bytes, str]) -> dict[Kind, list[bytes]]:
    """Keys by the kind of their reason, the kinds in order."""
    kinds: defaultdict[Kind, list[bytes]] = defaultdict(list)
    for key, reason in reasons.items():
        kinds[kind_of(reason)].append(key)
    return dict(sorted(kinds.items()))


def _with_text(
    name: Callable[[bytes], str],
    texts: Mapping[bytes, str],
    show: Callable[[str], str],
    known: str = "",
) -> Callable[[bytes], str]:
    """What shows a key with its text, unless the text is known already."""

    def line(key: bytes) -> str:
        return name(key) if texts[key] == known else f"{name(key)} ({show(texts[key])})"

    return line
