"""A short round of the faults that `make faults` makes in full."""

from __future__ import annotations

import random

import pytest

from tests.clusters import Cluster
from tests.faults import FAULTS
from tests.servers import Pool, newest_kind


@pytest.mark.parametrize(("name", "names"), [("kills", 500), ("failovers", 1500)])
def test_no_message_is_lost_or_doubled(
    clusters: Pool[Cluster], replicated_clusters: Pool[Cluster], name: str, names: int
) -> None:
    """Each message is pushed once, and found once in the end."""
    fault = FAULTS[name]
    pool = replicated_clusters if fault.replicas else clusters
    for cluster in pool.lend(newest_kind()):
        fault.make(cluster, random.Random(1), 1, names)
