"""Finds the master by its Sentinels, and says why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError, Sentinel

from tt_migrate.engine.calls.announced import Announced, about, is_unreachable
from tt_migrate.engine.calls.replies import malformed_as_invalid
from tt_migrate.settings.url import is_host

_REFUSALS = (redis_errors.AuthenticationError, redis_errors.NoPermissionError)


class SentinelError(MasterNotFoundError):
    """The Sentinels name no master. The message is one line that says why and what to do."""


class MasterAwayError(SentinelError):
    """The master that the Sentinels name does not answer there."""


class Sentinels(Sentinel):
    """redis-py's Sentinel, with one client for each Sentinel process."""

    def __init__(self, clients: Sequence[Redis]) -> None:
        super().__init__([])  # type: ignore[no-untyped-call]
        self.sentinels = [*clients]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the master's host and port.

        Raises SentinelError if no Sentinel names one.
        """
        known: set[str] = set()
        errors: list[redis_errors.RedisError] = []
        for n, sentinel in enumerate(self.sentinels):
            try:
                with malformed_as_invalid():
                    masters: Any = sentinel.sentinel_masters()
                    known.update(map(str, masters))
                    address = self._address_of(masters.get(service_name))
            except redis_errors.RedisError as error:
                # Another one may be right: redis-py's own loop ends at some of these errors.
                errors.append(error)
            else:
                if address:
                    # The next connection asks this one first.
                    self.sentinels[0], self.sentinels[n] = sentinel, self.sentinels[0]
                    return address
        raise SentinelError(self._why_no_master(service_name, known, errors))

    def _address_of(self, state: Any) -> tuple[str, int] | None:
        """The address of a master that is up. Raises ValueError or LookupError if malformed."""
        if not state or not self.check_master_state(state, ""):  # type: ignore[no-untyped-call]
            return None
        host, port = state["ip"], int(state["port"])
        if not is_host(host):
            raise ValueError
        return host, port

    def _why_no_master(
        self, name: str, known: set[str], errors: Sequence[redis_errors.RedisError]
    ) -> str:
        if name in known:
            return (
                f"the Sentinels know no master '{name}' that is up: a failover may be under way, so"
                " try again later"
            )
        if len(errors) < len(self.sentinels):
            names = ", ".join(f"'{one}'" for one in sorted(known)) or "none"
            return f"the Sentinels know no master '{name}': use one of those they know ({names})"
        refused = [one for one in errors if isinstance(one, _REFUSALS)]
        if refused:
            return (
                f"the Sentinels refuse the login ({refused[0]}): give the one for them, which can"
                " differ from the master's, as sentinel_username and sentinel_password in the URL"
            )
        others = [
            one
            for one in errors
            if isinstance(one, redis_errors.InvalidResponse)
            or "unknown command" in str(one).lower()
        ]
        if others:
            return f"these are no Sentinels ({others[0]}): a server's own URL begins with redis://"
        return f"no Sentinel answers ({errors[0]}): check their hosts and ports, and that they run"


class MasterConnection:
    """Says in errors that the master is the one that the Sentinels name."""

    def connect_to(self, address: tuple[str, int]) -> None:
        """Connect to the master. Raises redis.exceptions.RedisError."""
        place = f"{address[0]}:{address[1]}"
        try:
            with about(Announced(place, "Sentinels")):
                super().connect_to(address)  # type: ignore[misc]
        except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
            if not is_unreachable(error) and not isinstance(error, redis_errors.TimeoutError):
                raise
            raise MasterAwayError(
                f"the master that the Sentinels name, {place}, does not answer: a failover may be"
                " about to begin, so try again later"
            ) from None
