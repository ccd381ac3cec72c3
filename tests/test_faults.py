"""A short round of the faults that `make faults` makes in full."""

from __future__ import annotations

import pytest

from tests.faults import one_fault
from tests.servers import newest_kind


@pytest.mark.parametrize("name", ["kills", "failovers"])
def test_no_message_is_lost_or_doubled(name: str) -> None:
    """Each message is pushed once, and found once in the end."""
    one_fault(newest_kind(), name, seed=1, is_full=False)
