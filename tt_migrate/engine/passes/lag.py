"""Waits while replicas are behind."""

from __future__ import annotations

import time

PATIENCE_SECONDS = 120.0
"""How long a run waits for replicas that do not catch up.

A server drops a replica that does not answer after a minute (redis.conf, `repl-timeout`), so this
is for one that answers and gets nothing done.
"""

_POLL_SECONDS = 0.05


class Lag:
    """What is known of replicas that are behind.

    `waited`: seconds, in all. `most`: the most bytes that one was behind. `is_hopeless`: whether
    the run does not wait any more.
    """

    def __init__(self) -> None:
        self.waited = 0.0
        self.most = 0
        self.is_hopeless = False
        self._since = self._seen = 0.0
        self._least = 0

    @property
    def rest(self) -> float:
        """Seconds until the next call, if a replica was behind at the last one, else 0."""
        return _POLL_SECONDS if self._since else 0.0

    def note(self, behind: int) -> None:
        """Note by how many bytes a replica was behind at a call, 0 if the call worked."""
        now = time.monotonic()
        if self._since:
            self.waited += now - self._seen
        if not behind:
            self._since = 0.0
            return
        if not self._since or behind < self._least:
            self._since, self._least = now, behind
        self._seen, self.most = now, max(self.most, behind)
        self.is_hopeless = now - self._since > PATIENCE_SECONDS
