"""The words that the text report uses for each plan."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from tt_migrate.escape import shown_text
from tt_migrate.plan import Plan
from tt_migrate.results import Server

_NAMED = "all keys already use town isolation format"


@dataclass(frozen=True)
class Words:
    """Words and sentences for one plan. The defaults are those for RENAME.

    text_report.py shows where each is used.
    """

    noun: str = "Migration"
    verb: str = "migrate"
    task: str = "migration"
    done: str = "migrated"
    key: str = "old key"
    needs: str = "needs migration"
    need: str = "need migration"
    found: str = "Old keys"
    question: str = "Old keys get the town's name"
    touched: str = "touched"
    nothing_to_do: str = f"No migration needed - {_NAMED}"
    none_left: str = "No old keys are left."
    culprit: str = "an old Tinytown"
    absent: str = (
        "The town has no keys here: no old keys that begin with tt:, and none with its name"
    )
    former: str = "JSON string"
    form: str = "hash"
    forms: str = "hashes"

    def keys(self, number: int) -> str:
        """Return a number of keys that the plan moves: `1 old key`, `2 keys of the town`."""
        return counted(number, self.key, self.key.replace("key", "keys"))


_REVERSE = Words(
    noun="Reversal",
    verb="rename back",
    task="reversal",
    done="renamed back",
    key="key of the town",
    needs="has a new-format name",
    need="have a new-format name",
    found="Keys of the town",
    question="The town's keys get their old names back",
    touched="created",
    nothing_to_do="Nothing to rename back - no key of the town has an old form",
    none_left="No keys to rename back are left.",
    culprit="Tinytown",
    absent="No key here has the town's name",
)

_WORDS = {
    "rename": Words(),
    "hash": Words(
        task="conversion",
        done="converted",
        question="JSON strings become hashes",
        nothing_to_do="No migration needed - all agents and tasks are hashes already",
        none_left="No JSON strings are left.",
    ),
    "upgrade": Words(
        question="Old keys get the town's name, JSON strings become hashes",
        nothing_to_do=f"No migration needed - {_NAMED}, all agents and tasks are hashes",
        none_left="No old keys and no JSON strings are left.",
        absent="The town has no keys here: no old keys, and none with its name",
    ),
    "reverse": _REVERSE,
    "downgrade": replace(
        _REVERSE,
        noun="Downgrade",
        task="downgrade",
        question="Hashes become the JSON strings that 0.6 reads, the keys get their old names back",
        nothing_to_do="Nothing to downgrade - no key of the town has an old form",
        none_left="No keys of the town with an old form are left.",
        former="hash",
        form="JSON string",
        forms="JSON strings",
    ),
    "from-town": Words(
        noun="Renaming",
        verb="rename",
        task="renaming",
        done="renamed",
        key="key",
        needs="has the town's former name",
        need="have the town's former name",
        found="Keys with the former name",
        question="The town's keys get its new name",
        nothing_to_do="Nothing to rename - no key that is surely the town's has its former name",
        none_left="No key that is surely the town's has its former name.",
        culprit="a Tinytown with the former name",
        absent="The town has no keys here, under either name",
    ),
}


def quoted(text: str) -> str:
    """Return a text as a word for the shell. The hint that it stands in is in single quotes."""
    if (escaped := shown_text(text)) != text:
        # bash and zsh read the same escapes in this form.
        return "$'" + escaped.replace("'", "\\'") + "'"
    is_plain = shlex.quote(text) == text
    has_special = any(character in text for character in '"$`!')
    return text if is_plain else shlex.quote(text) if has_special else f'"{text}"'


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its words: `1 key`, `2 keys`. `many`: if it is not `one` and an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def server_words(server: Server) -> str:
    """Return what a server is: `redis 8.2.1, master`, or `redis 8.2.1, cluster of 3 shards`."""
    if server.shards > 1:
        return f"{server.name} {server.version}, cluster of {server.shards} shards"
    mode = " in cluster mode" if server.in_cluster else ""
    return f"{server.name} {server.version}{mode}, {server.role}"


def command_for(plan: Plan, options: str = "") -> str:
    """Return the command that carries out a plan. `options`: what it has besides."""
    operation = "" if plan.name == "rename" else f" --{plan.name}"
    operation += "" if plan.from_town is None else f" {quoted(plan.from_town)}"
    oldest = " --legacy-prefix mt" if plan.oldest and plan.name == "rename" else ""
    return f"tt migrate{options}{operation}{oldest}{' --on-conflict merge' if plan.merge else ''}"


def words_for(plan: Plan) -> Words:
    """Return the words for a plan."""
    return _WORDS[plan.name]
