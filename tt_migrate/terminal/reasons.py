"""Why keys stay: the kinds of reasons, and what to do about each."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from tt_migrate.escape import shown
from tt_migrate.plan import Plan
from tt_migrate.terminal.words import words_for

TAKEN = "destination exists"
_ONE = "compare the two, and delete or rename the one that is not needed"
_RECORD = "correct the record ({write}), or delete it"
KINDS = (
    (
        "destination exists, and may be another town's own",
        "",
        "rename the key, not its destination",
    ),
    ("destination exists and differs.*", "destination exists and differs", _ONE),
    ("destination exists with the same fields.*", "destination exists with the same fields", _ONE),
    ("destination exists and is a .*", "destination exists and is of another type", _ONE),
    ("destination exists, and .* cannot be merged", "destination exists, cannot be merged", _ONE),
    (TAKEN, "", _ONE),
    ("ERR (perhaps )?no id is free.*|ERR an event has .*", "the streams cannot be merged", _ONE),
    (
        "has another id than its key",
        "",
        "give the record the id of its key ({write}), or the key the id of its record (RENAMENX)",
    ),
    ("id is no UUID", "", "give record and key a UUID ({write}, RENAMENX)"),
    ("is a .*, neither string nor hash", "is neither string nor hash", "rename or delete the key"),
    ("is no JSON.*", "is no JSON", _RECORD),
    ("is JSON, but no object|is nested too deeply|has a field twice", "has a wrong form", _RECORD),
    (r"has no \S+", "lacks a field", _RECORD),
    (
        r"\S+ is no (UUID|time with a zone|whole number)|has an? \S+ that 0.6 does not know"
        "|tags are no list of texts|has text that is no valid Unicode|has bytes .*",
        "has a value that cannot be converted",
        _RECORD,
    ),
    ("ERR its fields have .*", "has fields with times to live", "remove them (HPERSIST)"),
    ("OOM .*", "the server is full", "free memory or raise maxmemory"),
    ("the connection to .* lost each time.*", "too large for a reply", "raise these limits there"),
    (".*internal error.*", "internal error", "report it as a bug of tt-migrate"),
    (".*(permission|can't access).*", "not permitted", "permit the user these keys (ACL SETUSER)"),
    (".*", "the server refuses", "correct what the server names"),
)
"""What a reason looks like, the kind's name where it is not the reason itself, what to do.

A kind that has one name has details, such as a position: a list shows each key with its reason.
"""
_WRITES = {"hash": "SET KEY JSON KEEPTTL", "json": "HSET KEY FIELD VALUE"}


class Kind(NamedTuple):
    """A kind of reasons: its name, and what to do about it."""

    name: str
    cure: str

    def what_to_do(self, plan: Plan) -> str:
        """What to do before the plan is carried out again."""
        return self.cure.format(write=_WRITES.get(plan.convert or "", ""))


@lru_cache(maxsize=1024)
def kind_of(reason: str) -> Kind:
    """The kind of a reason."""
    return next(
        Kind(name or reason, cure)
        for pattern, name, cure in KINDS
        if re.fullmatch(pattern, reason, re.DOTALL)
    )


def ambiguous_reason(plan: Plan, town: str, key: bytes) -> str:
    """Return why a key like `tt:task:backlog` is never renamed, or never created."""
    if plan.from_town is not None:
        return "name and type do not tell whose key it is: never touched"
    old_name = key if plan.rename != "reverse" else plan.destination(town, key)
    _, family, name = shown(old_name).split(":")
    return f"may be the {name} of a town named '{family}': never {words_for(plan).touched}"
