"""In what two records differ that stay apart because both have a claim to one name."""

from __future__ import annotations

from collections.abc import Mapping

from tt_migrate.keyspace import RECORDS, family_and_id, shown, town_key_start
from tt_migrate.plan import Plan
from tt_migrate.records import RecordError, comparable_fields, differing
from tt_migrate.session import Session

_KEYS_A_CALL = 100


def named_differences(
    session: Session, plan: Plan, conflicts: Mapping[bytes, str]
) -> dict[bytes, str]:
    """Why the agents and tasks among conflicts stay: with the names of the fields that differ.

    `conflicts`: keys and reasons, as a plan's passes have them. Leaves out records that cannot be
    compared. Raises redis.exceptions.RedisError.
    """
    start = plan.name_start(session.town)
    records = [key for key in conflicts if family_and_id(key, start)[0] in RECORDS]
    script = session.script("fetch")
    reasons = {}
    for first in range(0, len(records), _KEYS_A_CALL // 2):
        keys = records[first : first + _KEYS_A_CALL // 2]
        names = [plan.destination(session.town, key) for key in keys]
        values = session.call(script, keys=keys + names)
        for key, name, value, other in zip(
            keys, names, values[: len(keys)], values[len(keys) :], strict=True
        ):
            record = family_and_id(name, town_key_start(session.town))
            try:
                fields = comparable_fields(*record, value)
                reasons[key] = _reason(differing(fields, comparable_fields(*record, other)))
            except RecordError:
                continue
    return reasons


def _reason(fields: list[bytes]) -> str:
    if not fields:
        return "destination exists with the same fields, one a JSON string and one a hash"
    return f"destination exists and differs in {', '.join(map(shown, fields))}"
