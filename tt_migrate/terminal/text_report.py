"""The report for people: text on stdout, errors on stderr."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tt_migrate.escape import shown, shown_text
from tt_migrate.plan import DOWNGRADE, HASH, RENAME, UPGRADE, Plan, from_town
from tt_migrate.results import Count, Migration, Preview, Progress, Result
from tt_migrate.terminal.lists import Lists
from tt_migrate.terminal.output import Output
from tt_migrate.terminal.redaction import NO_SECRETS, Redactor
from tt_migrate.terminal.words import Words, command_for, counted, server_words, words_for

FORCE_HINT = "Nothing was changed. --force skips this prompt."
_TOWNS_NAMED = 10
_FEW = 20
_NEAR = 10


class _Verdict(str):
    """A line of a report that says in short how the run ended."""


@dataclass(frozen=True)
class TextReport:
    """Writes what was found and done.

    `quiet`: only problems. `limit`: how many keys a list has of each family or kind of problem, 0:
    all, None: 20 on a terminal, else all.
    `has_log`: whether --record was given. The other fields have their values once the settings are
    loaded. `server`: the redacted URL. `database`: its number in the server. `repeated`: the
    options that hints repeat. `redactor`: hides passwords in the server's text, and escapes it.
    """

    out: Output
    err: Output
    plan: Plan
    quiet: bool = False
    limit: int | None = None
    has_log: bool = False
    town: str = ""
    server: str = ""
    database: int | None = None
    repeated: str = ""
    redactor: Redactor = NO_SECRETS

    def question(self, count: Count) -> Output:
        """Show what a migration would find. Returns the output for the prompt."""
        if self.quiet and self.out is not self.err:
            return replace(self, out=self.err).question(count)
        self.out.lines(self._question(count))
        return self.out

    def tell(self, result: Result) -> None:
        """Write the report of a run that ended: of a check, a preview or a migration."""
        if isinstance(result, Count):
            self._tell_check(result)
        elif isinstance(result, Preview):
            self._tell_preview(result)
        else:
            self._report(self._migrated(result))

    def tell_towns(self, migration: Migration) -> None:
        """Write on stderr that old keys, which name no town, went to this town of several."""
        moved = migration.total or sum(migration.merged.values())
        if migration.towns and moved and self.plan.rename == "forward":
            self.err.lines(self._other_towns(migration.towns, "went"))

    def cancelled(self, count: Count) -> None:
        """Write that the run was cancelled at the prompt."""
        self.err.line(f"Cancelled. {FORCE_HINT}")

    def stopped(self, last: Progress | None, error: str, seconds: float) -> None:
        """Write the report of a run that a signal or an error ended.

        `last`: its last progress; None if no batch has ended. `seconds`: how long the run took.
        """
        if last and isinstance(last.so_far, Migration):
            title = f"{self.out.symbols.warning} {self._words.noun} stopped before it finished"
            self._report([_Verdict(title), *self._done(last.so_far), *_looked_at(last)])
            again = f"Run '{self._command(self.plan)}' again to do the rest."
            self.err.line(f"Error: {_sentence(error)} {again}")
        elif last:
            again = "" if "again" in error else " Run it again."
            self.err.line(f"Error: {_sentence(error)} Nothing was changed.{again}")
        else:
            self.err.line(f"Error: {error}")

    def _report(self, lines: Iterable[str], more: Iterable[str] = ()) -> None:
        """Write a report, and its verdict again at the end where it would be out of sight."""
        self.out.lines(_ending_with_verdict(lines, more, self.out.height))

    def _tell_check(self, count: Count) -> None:
        town = f"(town: {self._town})"
        if count.undone:
            found = ", ".join(self._found(count))
            self.out.line(f"{self.out.symbols.warning} {found}: {self._advice(count)} {town}")
        elif not self.quiet:
            absent = "".join(f". {text}" for text in self._absent(count))
            self.out.line(f"{self.out.symbols.done} {self._words.nothing_to_do} {town}{absent}")

    def _tell_preview(self, preview: Preview) -> None:
        """Write where the preview looked on stderr, and what it found on stdout."""
        refusal = list(self._refusal(preview))
        if self.quiet:
            lists = self._lists
            self.out.lines([*lists.left(preview), *lists.hidden(preview.hidden), *refusal])
            return
        self.err.lines(self._where(preview))
        if preview.remaining or preview.conversions or preview.unconverted or preview.hidden:
            self._report(self._preview(preview, refusal), self._staying(preview))
        else:
            notes = (*self._notes(preview.count), *refusal, *self._absent(preview))
            self._report(self._nothing_to_do(preview.ambiguous, notes))

    def _migrated(self, migration: Migration) -> Iterator[str]:
        effort = migration.effort
        troubles = effort.reconnects or effort.lost_replies or effort.evicted
        if migration.complete and self.quiet and not effort.evicted:
            yield from self._unknown(migration)
            if migration.left and migration.changed:
                yield from self._lists.namesakes(migration.left.namesakes)
        elif migration.changed or migration.finished or troubles or not migration.complete:
            yield from self._ended(migration)
        else:
            notes = (*self._notes_after(migration), *self._absent(migration))
            yield from self._nothing_to_do(migration.ambiguous, notes)

    @property
    def _words(self) -> Words:
        return words_for(self.plan)

    @property
    def _lists(self) -> Lists:
        is_terminal = self.out.is_terminal
        return Lists(
            self.plan,
            self.town,
            self.repeated,
            self.redactor,
            self.out.symbols,
            limit=(_FEW if is_terminal else 0) if self.limit is None else self.limit,
            is_grouped=is_terminal,
        )

    @property
    def _town(self) -> str:
        return shown_text(self.town)

    def _command(self, plan: Plan) -> str:
        return command_for(plan, self.repeated)

    def _where(self, preview: Preview) -> Iterator[str]:
        server = preview.server
        said = server_words(server) if server and server.name else ""
        yield f"Server: {self.redactor.shown(said) or 'unknown'}, {self.server}"
        size = "size unknown" if preview.dbsize is None else "empty"
        size = counted(preview.dbsize, "key") if preview.dbsize else size
        yield f"Database: {self.database}, {size}"
        yield _other_towns(preview.towns)

    def _town_lines(self) -> Iterator[str]:
        yield f"   Town: {self._town}"
        if self.plan.from_town is not None:
            yield f"   Former name: {shown_text(self.plan.from_town) or 'empty'}"

    def _absent(self, result: Result) -> Iterator[str]:
        """Say that the town has no keys here, and where to look.

        The town may have had another name. Or the URL has the wrong number of a database, or leads
        to another server.
        """
        guess = result.former_guess
        if guess is not None:
            plan = from_town(_text(guess))
            yield (
                f"The town has no keys here, but {shown(guess)} has: if that is its former name,"
                f" run '{self._command(plan)}' (with --dry-run to see what moves)"
            )
        elif result.is_absent:
            yield self._words.absent
        elif result.is_unsure:
            found = result.ambiguous
            keys = counted(found if isinstance(found, int) else len(found), "key")
            yield f"No key here is known to be the town's: {keys} may be, or may be another town's"
        if result.databases is not None:
            yield _databases(result.databases)
        has_towns = bool(result.towns) and not isinstance(result, Count)
        if guess is None and self.plan.from_town is not None and has_towns:
            yield _other_towns(result.towns)

    def _found(self, count: Count) -> Iterator[str]:
        words = self._words
        if count.total:
            need = words.needs if count.total == 1 else words.need
            yield f"{words.keys(count.total)} {need}"
        records = sum(count.to_convert.values()) + count.others
        if self.plan.convert and records:
            need = counted(records, "record needs", "records need")
            yield f"{need} conversion to a {words.form}"
        if count.hidden:
            yield _hidden_keys(count.hidden)

    def _advice(self, count: Count) -> str:
        if self.plan.name == "hash" and count.total:
            return f"run '{self._command(RENAME)}' first, or '{self._command(UPGRADE)}' for both"
        return f"run '{self._command(self.plan)}{'' if count.promising else ' --dry-run'}'"

    def _nothing_to_do(self, ambiguous: Collection[bytes], notes: Iterable[str]) -> Iterator[str]:
        yield _Verdict(f"{self.out.symbols.done} {self._words.nothing_to_do}")
        yield from self._town_lines()
        yield from self._last_lines(ambiguous, notes)

    def _hashes(self, number: int, cure: str) -> Iterator[str]:
        """Warn that --reverse leaves hashes, which 0.6 cannot read."""
        if self.plan.warns_of_hashes and number:
            hashes = counted(number, "record is a hash", "records are hashes")
            yield _Verdict(
                f"{self.out.symbols.warning} Tinytown 0.6 must not be used on this town:"
                f" {hashes}, and it would lose ids from the backlog. {cure}"
            )

    def _hashes_before(self, count: Count | None) -> Iterator[str]:
        number = count.hashes_total if count else 0
        return self._hashes(number, f"Use '{self._command(DOWNGRADE)}' instead.")

    def _preview(self, preview: Preview, refusal: Iterable[str]) -> Iterator[str]:
        yield from self._hashes_before(preview.count)
        yield f"{self.out.symbols.preview} Migration Preview (dry run)"
        yield from self._town_lines()
        yield ""
        words, lists = self._words, self._lists
        yield from lists.moves(f"Keys to {words.verb}", preview.moves)
        yield from lists.merges("Keys to merge with their destination", preview.merges)
        title = f"Records to convert from {words.former} to {words.form}"
        yield from lists.records(title, preview.conversions)
        changes = preview.total + len(preview.merges) + len(preview.conversions)
        if changes > _FEW:
            yield from self._summary(preview)
        yield _Verdict(f"   Total: {', '.join(self._would_be(preview))}")
        yield from _adjusted("To be changed", preview.adjusted)
        if preview.conflicts or preview.failed or preview.unconverted:
            yield ""
            yield "   Keys that would be left alone; nothing is ever overwritten:"
            yield from lists.left(preview)
            yield from lists.hint(preview)
        yield from lists.hidden(preview.hidden)
        after = self._after_renaming(preview.namesakes)
        yield from self._last_lines(
            preview.ambiguous, (*self._notes(preview.count), *after, *refusal)
        )
        if changes or preview.hidden:
            yield ""
            command = self._command(self.plan)
            yield f"   Run '{command}' (without --dry-run) to perform {words.task}."

    def _summary(self, preview: Preview) -> Iterator[str]:
        yield f"   Summary: town {self._town}, server {self.server}"
        for title, keys in (
            (f"Keys to {self._words.verb}", preview.keys),
            ("Keys to merge", preview.keys_to_merge),
            ("Records to convert", preview.to_convert),
        ):
            if any(keys.values()):
                yield from _families(title, keys)

    def _would_be(self, preview: Preview) -> Iterator[str]:
        if self.plan.rename:
            yield f"{preview.total} key(s) would be {self._words.done}"
        if preview.merges:
            yield f"{len(preview.merges)} would be merged"
        if self.plan.convert:
            yield f"{counted(len(preview.conversions), 'record')} would be converted"

    def _staying(self, preview: Preview) -> Iterator[str]:
        staying = (
            (len(preview.conflicts) + len(preview.failed), "key"),
            (len(preview.unconverted), "record"),
            (len(preview.ambiguous), "ambiguous key"),
        )
        if found := [counted(number, what) for number, what in staying if number]:
            yield f"   Left alone: {', '.join(found)}"

    def _question(self, count: Count) -> Iterator[str]:
        yield from self._hashes_before(count)
        yield f"{self.out.symbols.question} {self._words.question}"
        yield from self._town_lines()
        yield f"   Server: {self.server}"
        yield ""
        if self.plan.rename:
            yield from _families(self._words.found, count.keys)
            fate = "merged where possible" if self.plan.merge else "left alone"
            yield f"   Conflicts: {count.conflicts}" + (
                f" (destination exists: they will be {fate})" if count.conflicts else ""
            )
        if self.plan.convert:
            is_back = self.plan.convert == "json"
            yield from _families("Hashes" if is_back else "JSON strings", count.to_convert)
        if self.plan.rename == "forward":
            yield from (f"   {text}" for text in self._other_towns(count.towns, "go"))
        if self.plan.from_town is not None and count.has_keys:
            yield "   The new name has keys too: the town will have both."
        yield from self._lists.hidden(count.hidden)
        yield from (f"   {text}" for text in self._notes(count))
        yield ""

    def _other_towns(self, towns: Collection[bytes], verb: str) -> Iterator[str]:
        yield _other_towns(towns)
        if towns:
            yield f"Old keys do not name their town: all of them {verb} to {self._town}."

    def _ended(self, migration: Migration) -> Iterator[str]:
        """Report a migration that changed something, or that left something to do."""
        cure = f"Run '{self._command(RENAME)}', then '{self._command(DOWNGRADE)}'."
        yield from self._hashes(migration.hashes_before, cure)
        noun, symbols = self._words.noun, self.out.symbols
        notes = self._notes_after(migration)
        if not migration.complete:
            undone = ", ".join(self._undone(migration))
            yield _Verdict(f"{symbols.warning} {noun} incomplete: {undone}")
        elif migration.effort.evicted:
            yield _Verdict(f"{symbols.warning} {noun} complete, but keys were evicted")
        else:
            unreadable = "".join(self._unreadable(migration))
            notes = self._counted(migration)
            yield _Verdict(
                f"{symbols.warning} {noun} complete, but {unreadable}"
                if unreadable
                else f"{symbols.done} {noun} complete!"
            )
        yield from self._done(migration)
        if migration.complete:
            yield f"   {self._words.none_left}"
        yield from self._lists.hidden(migration.hidden)
        if migration.appeared:
            yield (
                f"   {self._words.keys(migration.appeared)} appeared while the migration ran:"
                f" probably {self._words.culprit} is still running. Stop it, then run"
                f" '{self._command(self.plan)}' again."
            )
        yield from self._last_lines(migration.ambiguous, notes)

    def _undone(self, migration: Migration) -> Iterator[str]:
        if left := migration.left_behind:
            yield f"{self._words.keys(left)} {'is' if left == 1 else 'are'} left"
        if migration.records_left:
            one = f"record is not a {self._words.form} yet"
            many = f"records are not {self._words.forms} yet"
            yield counted(migration.records_left, one, many)
        if migration.hidden:
            yield _hidden_keys(migration.hidden)

    def _done(self, migration: Migration) -> Iterator[str]:
        """List what a migration did, and which keys it left as they were."""
        yield from self._town_lines()
        yield ""
        totals = []
        if self.plan.rename:
            yield from _families(self._words.done.capitalize(), migration.keys)
            totals.append(f"{counted(migration.total, 'key')} {self._words.done}")
        if merged := sum(migration.merged.values()):
            yield from _families("Merged", migration.merged)
            totals.append(f"{merged} merged")
        if self.plan.convert:
            yield from _families("Converted", migration.converted)
            totals.append(f"{counted(sum(migration.converted.values()), 'record')} converted")
        yield _Verdict(f"   Total: {', '.join(totals)} in {migration.effort.seconds:.2f} s")
        if migration.finished:
            keys = counted(migration.finished, "key")
            yield f"   This run finished {keys} that a run with another plan had hidden."
        if migration.effort.reconnects:
            yield f"   The connection was lost {_times(migration.effort.reconnects)}."
        yield from self._unknown(migration)
        if migration.effort.evicted:
            evicted = counted(migration.effort.evicted, "key")
            yield (
                f"   The server evicted {evicted} during the run, for lack of memory"
                " (maxmemory-policy). Their data is lost; the server does not say which keys."
            )
        yield from _adjusted("Changed", migration.adjusted)
        if self.plan.convert == "hash" and migration.already_hashes:
            one, many = "record was a hash already.", "records were hashes already."
            yield f"   {counted(migration.already_hashes, one, many)}"
        yield ""
        if migration.conflicts or migration.failed or migration.unconverted:
            yield f"   Nothing was overwritten. Keys that were not {self._words.done}:"
            yield from self._lists.left(migration)
            yield from self._lists.hint(migration)

    def _unknown(self, migration: Migration) -> Iterator[str]:
        """Say how many calls got no reply: it is not known what they did."""
        if lost := migration.effort.lost_replies:
            what = "it" if lost == 1 else "they"
            log = "neither in these numbers nor in the file of --record"
            where = log if self.has_log else "not in these numbers"
            yield (
                f"   No reply came to {counted(lost, 'call')}."
                f" What {what} changed is done, but is {where}."
            )

    def _last_lines(self, ambiguous: Collection[bytes], notes: Iterable[str]) -> Iterator[str]:
        if self.quiet:
            return
        yield from self._lists.ambiguous(ambiguous)
        lines = [f"   {note}" for note in notes]
        if lines:
            yield ""
            yield from lines

    def _counted(self, migration: Migration) -> Iterator[str]:
        if migration.left:
            yield from self._notes(migration.left.count)
            if migration.changed or not migration.complete:
                yield from self._after_renaming(migration.left.namesakes)

    def _after_renaming(self, namesakes: Mapping[bytes, Collection[bytes]]) -> Iterator[str]:
        """Say what else has to be changed where a town gets another name."""
        if self.plan.from_town is None:
            return
        yield from self._lists.namesakes(namesakes)
        yield (
            "The files tinytown.toml and ~/.tt/towns.toml hold the town's name too, and are left as"
            " they are: change it there if it is still the former one."
        )

    def _notes_after(self, migration: Migration) -> Iterator[str]:
        yield from self._counted(migration)
        yield from (f"{self.out.symbols.warning} {text}" for text in self._unreadable(migration))

    def _notes(self, count: Count | None) -> Iterator[str]:
        """Say which keys the plan leaves out."""
        if self.plan.name == "hash" and count and count.total:
            one = "old key does not have the town's name and is left out"
            many = "old keys do not have the town's name and are left out"
            yield f"{counted(count.total, one, many)}: {self._advice(count)}."
        if self.plan.rename == "reverse" and count and count.new_only:
            one = "key of events, dockets or missions has no old form: it stays."
            many = "keys of events, dockets and missions have no old form: they stay."
            yield counted(count.new_only, one, many)

    def _refusal(self, preview: Preview) -> Iterator[str]:
        if preview.refused:
            yield (
                f"This user may not run {', '.join(preview.refused)}: the {self._words.task} would"
                " be refused before it changes anything."
            )

    def _unreadable(self, migration: Migration) -> Iterator[str]:
        """Say which records a current Tinytown cannot read, and what to run."""
        found = [
            counted(number, family) for family, number in migration.unreadable.items() if number
        ]
        if found:
            yield (
                f"Tinytown 0.7 or later cannot read {' and '.join(found)} yet:"
                f" run '{self._command(HASH)}'"
            )


def _looked_at(last: Progress) -> Iterator[str]:
    """How far a pass that writes has got. The keys that it has not reached may be left to do."""
    if last.stage == "migrating" and last.dbsize:
        keys = counted(last.dbsize, "key")
        yield f"   It had looked at about {last.scanned} of {keys} in the database."


def _ending_with_verdict(lines: Iterable[str], more: Iterable[str], height: int) -> Iterator[str]:
    """Repeat the verdict of a report that is too high, and `more`, unless it is near its end."""
    verdict, number, last = [], 0, 0
    for number, line in enumerate(lines, start=1):
        if isinstance(line, _Verdict):
            verdict.append(line)
            last = number
        yield line
    if verdict and number > height and number - last > _NEAR:
        yield from ("", *verdict, *more)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _hidden_keys(hidden: Collection[bytes]) -> str:
    return counted(len(hidden), "key is hidden", "keys are hidden")


def _other_towns(found: Collection[bytes]) -> str:
    towns = sorted(map(shown, found))
    more = f" and {len(towns) - _TOWNS_NAMED} more" if len(towns) > _TOWNS_NAMED else ""
    return f"Other towns in this database: {', '.join(towns[:_TOWNS_NAMED]) or 'none'}{more}"


def _databases(found: Mapping[int, int]) -> str:
    """The databases of a server that have keys, with their sizes."""
    sizes = [f"{number} ({counted(found[number], 'key')})" for number in sorted(found)]
    more = f" and {len(sizes) - _FEW} more" if len(sizes) > _FEW else ""
    return f"Databases of this server that have keys: {', '.join(sizes[:_FEW]) or 'none'}{more}"


def _families(title: str, keys: Mapping[str, int]) -> Iterator[str]:
    found = {family: number for family, number in keys.items() if number}
    yield f"   {title}:" if found else f"   {title}: none"
    width = len(str(max(found.values(), default=0)))
    for family, number in found.items():
        yield f"   {family:<8} {number:>{width}}"


def _adjusted(verb: str, changes: Mapping[str, int]) -> Iterator[str]:
    for change, number in sorted(changes.items()):
        yield f"   {verb} so that 0.6 can read it: {change} ({_times(number)})"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."
