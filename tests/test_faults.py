"""A short round of the faults that `make faults` makes in full."""

from __future__ import annotations

import random

import pytest

from tests.clusters import Clusters
from tests.faults import FAULTS
from tests.servers import newest_kind


@pytest.mark.parametrize(("name", "names"), [("kills", 500), ("failovers", 1500)])
def test_no_message_is_lost_or_doubled(clusters: Clusters, name: str, names: int) -> None:
    """Each message is pushed once, and found once in the end."""
    fault = FAULTS[name]
    for cluster in clusters.lend(newest_kind(), fault.replicas):
        fault.make(cluster, random.Random(1), 1, names)
