"""What a person reads: text on stdout, errors on stderr."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tt_migrate.keyspace import in_order, new_key, shown, shown_text
from tt_migrate.output import Output
from tt_migrate.results import Count, Effort, Migration, Preview, Result

NO_MIGRATION_NEEDED = "No migration needed - all keys already use town isolation format"
CONFLICT = "destination exists"
FORCE_HINT = "Nothing was changed. --force skips this prompt."
RUN_AGAIN = "Run 'tt migrate' again: it does what is left."
_TOWNS_NAMED = 10


def ambiguous_reason(key: bytes) -> str:
    """Why a key like `tt:task:backlog` is never touched."""
    _, town, name = shown(key).split(":")
    return f"may be the {name} of a town named '{town}': never touched"


@dataclass(frozen=True)
class TextReport:
    """Says what was found and done. `quiet` leaves out everything but problems.

    `server` is the redacted URL; it and `town` are as the settings have them, so far as known.
    """

    out: Output
    err: Output
    quiet: bool
    town: str = ""
    server: str = ""

    def question(self, count: Count) -> Output:
        """Show what a migration would meet; the output on which the prompt belongs."""
        out = self.err if self.quiet else self.out
        out.lines(self._question(count, out))
        return out

    def checked(self, count: Count) -> None:
        """The one line of --check."""
        town = f"(town: {self._town()})"
        if count.total:
            sign = self.out.symbols.warning
            conflicts = f", {count.conflicts} in conflict" if count.conflicts else ""
            command = "tt migrate"
            if count.total == count.conflicts:
                command += " --dry-run"
            self.out.line(
                f"{sign} {count.total} old key(s) need migration{conflicts}: run '{command}' {town}"
            )
        elif not self.quiet:
            self.out.line(f"{self.out.symbols.done} {NO_MIGRATION_NEEDED} {town}")

    def previewed(self, preview: Preview) -> None:
        """The preview."""
        if self.quiet:
            self.out.lines(self._left(preview.conflicts, preview.failed))
        elif preview.total or preview.conflicts or preview.failed:
            self.out.lines(self._preview(preview))
        else:
            self.out.lines(self._nothing_to_do(preview.ambiguous))

    def migrated(self, migration: Migration) -> None:
        """The end of a migration."""
        if migration.left_behind:
            self.out.lines(self._incomplete(migration))
        elif self.quiet:
            return
        elif migration.total or migration.effort.reconnects:
            self.out.lines(self._complete(migration))
        else:
            self.out.lines(self._nothing_to_do(migration.ambiguous))

    def cancelled(self, count: Count) -> None:
        """The prompt was not answered with yes."""
        self.err.line(f"Cancelled. {FORCE_HINT}")

    def stopped(self, so_far: Result | None, error: str) -> None:
        """The run ended before its end, by a signal or an error; nothing was begun when None."""
        if isinstance(so_far, Migration):
            self.out.lines(self._stopped(so_far))
            self.err.line(f"Error: {_sentence(error)} {RUN_AGAIN}")
        elif so_far is not None:
            self.err.line(f"Error: {_sentence(error)} Nothing was changed; run it again.")
        else:
            self.err.line(f"Error: {error}")

    def _town(self) -> str:
        return shown_text(self.town)

    def _move(self, key: bytes) -> str:
        return f"   {shown(key)} {self.out.symbols.arrow} {shown(new_key(self.town, key))}"

    def _nothing_to_do(self, ambiguous: Collection[bytes]) -> Iterator[str]:
        yield f"{self.out.symbols.done} {NO_MIGRATION_NEEDED}"
        yield f"   Town: {self._town()}"
        yield from self._ambiguous(ambiguous)

    def _preview(self, preview: Preview) -> Iterator[str]:
        yield f"{self.out.symbols.preview} Migration Preview (dry run)"
        yield f"   Town: {self._town()}"
        yield ""
        if preview.total:
            yield "   Keys to migrate:"
            yield from map(self._move, in_order(preview.moves))
            yield ""
        yield f"   Total: {preview.total} key(s) would be migrated"
        if preview.conflicts or preview.failed:
            yield ""
            yield "   Keys that would be left alone; nothing is ever overwritten:"
            yield from self._left(preview.conflicts, preview.failed)
        yield from self._ambiguous(preview.ambiguous)
        if preview.total:
            yield ""
            yield "   Run 'tt migrate' (without --dry-run) to perform migration."

    def _question(self, count: Count, out: Output) -> Iterator[str]:
        yield f"{out.symbols.question} Old keys get the town's name"
        yield f"   Town: {self._town()}"
        yield f"   Server: {self.server}"
        yield ""
        yield from _families("Old keys", count.keys)
        yield f"   Conflicts: {count.conflicts}" + (
            f" ({CONFLICT}: they will be left alone)" if count.conflicts else ""
        )
        towns = sorted(shown(town) for town in count.towns)
        if towns:
            named = ", ".join(towns[:_TOWNS_NAMED])
            more = len(towns) - _TOWNS_NAMED
            yield f"   Other towns on this server: {named}" + (
                f" and {more} more" if more > 0 else ""
            )
            yield f"   An old key does not say whose it is: all of them go to {self._town()}."
        else:
            yield "   Other towns on this server: none"
        yield ""

    def _complete(self, migration: Migration) -> Iterator[str]:
        yield f"{self.out.symbols.done} Migration complete!"
        yield from self._done(migration)
        yield "   No old keys are left."
        yield from self._ambiguous(migration.ambiguous)

    def _incomplete(self, migration: Migration) -> Iterator[str]:
        sign = self.out.symbols.warning
        yield f"{sign} Migration incomplete: {migration.left_behind} old key(s) are left"
        yield from self._done(migration)
        if migration.conflicts or migration.failed:
            yield "   Nothing was overwritten. Keys that were not migrated:"
            yield from self._left(migration.conflicts, migration.failed)
        if migration.appeared > 0:
            yield (
                f"   {migration.appeared} old key(s) appeared while the migration ran: an old"
                " Tinytown is still running. Stop it, then run 'tt migrate' again."
            )
        yield from self._ambiguous(migration.ambiguous)

    def _stopped(self, migration: Migration) -> Iterator[str]:
        yield f"{self.out.symbols.warning} Migration stopped before its end"
        yield from self._done(migration)
        if migration.conflicts or migration.failed:
            yield "   Nothing was overwritten. Keys that were not migrated:"
            yield from self._left(migration.conflicts, migration.failed)

    def _done(self, migration: Migration) -> Iterator[str]:
        yield f"   Town: {self._town()}"
        yield ""
        yield from _families("Migrated", migration.keys)
        yield f"   Total: {migration.total} key(s) migrated in {_seconds(migration.effort)}"
        if migration.effort.reconnects:
            yield (
                f"   The connection was lost {migration.effort.reconnects} time(s): keys renamed"
                " by a batch whose reply was lost are not in these numbers."
            )
        yield ""

    def _left(self, conflicts: Collection[bytes], failed: Mapping[bytes, str]) -> Iterator[str]:
        for key in in_order(conflicts):
            yield f"{self._move(key)} ({CONFLICT})"
        for key in in_order(failed):
            yield f"{self._move(key)} ({failed[key]})"

    def _ambiguous(self, keys: Collection[bytes]) -> Iterator[str]:
        if keys and not self.quiet:
            yield ""
            yield "   Ambiguous keys, left alone:"
            for key in in_order(keys):
                yield f"   {shown(key)} ({ambiguous_reason(key)})"


def _families(title: str, keys: Mapping[str, int]) -> Iterable[str]:
    found = {family: number for family, number in keys.items() if number}
    yield f"   {title}:" if found else f"   {title}: none"
    width = len(str(max(found.values(), default=0)))
    for family, number in found.items():
        yield f"   {family:<8} {number:>{width}}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _seconds(effort: Effort) -> str:
    return f"{effort.seconds:.2f} s"
