"""Clients of the shared Connect workers, and the configuration of a mirror with work to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.rest import Access, ConnectRest

from tests.backends.kafka_connect.proxy import Proxy, proxy_to
from tests.kafka import make_topic, mirror_config, plain, unique
from tools.kafka.pair import Pair

MARKER = "replicator.stream"
Config = Mapping[str, str]


class OpenRest(Protocol):
    """Opens the REST interface of one or several workers; it is closed when the test ends."""

    def __call__(self, *urls: str, redact: Callable[[str], str] = ..., **access: Any) -> ConnectRest: ...


class OpenCluster(Protocol):
    """Opens a cluster by the URLs of its workers; it is closed when the test ends."""

    def __call__(self, *urls: str, patience: float = ..., **access: Any) -> ConnectCluster: ...


@pytest.fixture
async def open_rest() -> AsyncIterator[OpenRest]:
    opened: list[ConnectRest] = []

    def open_(*urls: str, redact: Callable[[str], str] = str, **access: Any) -> ConnectRest:
        opened.append(ConnectRest(Access(urls, **access), redact=redact))
        return opened[-1]

    yield open_
    for rest in opened:
        await rest.aclose()


@pytest.fixture
async def open_cluster() -> AsyncIterator[OpenCluster]:
    opened: list[ConnectCluster] = []

    def open_(*urls: str, patience: float = 20.0, **access: Any) -> ConnectCluster:
        opened.append(ConnectCluster(ConnectRest(Access(urls, **access), redact=str), patience=patience))
        return opened[-1]

    yield open_
    for cluster in opened:
        await cluster.aclose()


@pytest.fixture
async def proxy(kafka: Pair) -> AsyncIterator[Proxy]:
    """A way to the worker of the west on which calls can be lost."""
    async with proxy_to(kafka.west.connect) as way:
        yield way


@pytest.fixture
def cluster(kafka: Pair, open_cluster: OpenCluster) -> ConnectCluster:
    """The Connect cluster of the west, reached without a proxy."""
    return open_cluster(kafka.west.connect)


@pytest.fixture
async def name(cluster: ConnectCluster) -> AsyncIterator[str]:
    """The name of a connector, which is removed when the test ends."""
    made = unique("connect")
    yield made
    await cluster.delete(made, 30)


@pytest.fixture
def mirror(kafka: Pair, name: str) -> dict[str, str]:
    """The configuration of a mirror from east to west with our marker; its topic has no records."""
    topic = make_topic(plain(kafka.east.bootstrap), unique("connect"))
    return {**mirror_config(kafka.east.bootstrap, kafka.west.bootstrap, topic), MARKER: name}


@pytest.fixture
def is_ours(name: str) -> Callable[[Config], bool]:
    """Whether a configuration has the marker of the test's mirror."""
    return lambda config: config.get(MARKER) == name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that a connector of the shared workers may read and write, as they run as the test does."""
    return tmp_path
