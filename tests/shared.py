"""Fixtures for clusters of several shards, which the tests of a worker share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters import Cluster, Clusters
from tests.servers import Kind, newest_kind


@pytest.fixture(scope="session")
def clusters() -> Iterator[Clusters]:
    clusters = Clusters()
    yield clusters
    clusters.stop()


@pytest.fixture
def cluster(clusters: Clusters, kind: Kind) -> Iterator[Cluster]:
    """A cluster of each kind with three masters, empty and with its default settings."""
    yield from clusters.lend(kind)


@pytest.fixture
def newest_cluster(clusters: Clusters) -> Iterator[Cluster]:
    """The same of the newest kind, for tests where the kind does not matter."""
    yield from clusters.lend(newest_kind())


@pytest.fixture
def replicated(clusters: Clusters) -> Iterator[Cluster]:
    """The same with a replica for each master."""
    yield from clusters.lend(newest_kind(), replicas=1)
