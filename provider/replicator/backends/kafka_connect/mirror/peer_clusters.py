"""The mirrors of a Connect cluster, and of the other ones that the configuration names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.deployed import Listed, sort
from replicator.backends.kafka_connect.mirror.adoption import as_configured
from replicator.backends.kafka_connect.mirror.connector_configs import BACKEND
from replicator.backends.kafka_connect.mirror.foreign_mirrors import ForeignMirrorReader, ForeignMirrors, is_mirror
from replicator.backends.kafka_connect.mirror.routes import Route
from replicator.backends.shared.poller import Poller
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import ReplicatorError

PATIENCE = 2.0
"""Seconds for which a request to a peer is retried: an outage of one region must not block changes in the others."""
HOLDS = 30.0
"""Seconds for which a peer's answer, or its silence, is cached."""

_TOGETHER = 0.02  # seconds in which requests are combined into one


class Look(NamedTuple):
    """One listing of a Connect cluster.

    :param connectors: the names of all connectors.
    :param routes: the routes of its streams.
    """

    connectors: frozenset[str]
    listed: Listed
    routes: tuple[Route, ...]
    foreign: ForeignMirrors


class Mirrors:
    """The mirrors of one Connect cluster, with one listing shared by concurrent callers.

    :param max_age: seconds for which a listing is recent.
    """

    def __init__(self, cluster: ConnectCluster, max_age: float) -> None:
        self._cluster = cluster
        self._reader = ForeignMirrorReader()
        self._recent = SingleFlight(self._look, max_age)
        self._next = Poller(self._look, _TOGETHER)

    async def recent(self) -> Look:
        """Return a recent listing."""
        return await self._recent.get()

    def forget_error(self) -> None:
        """Discard the last listing if it failed, so that the next caller retries."""
        self._recent.forget_error()

    async def next(self) -> Look:
        """Return a listing that starts after this call."""
        return await self._next.next()

    async def aclose(self) -> None:
        """Cancel listings in progress, and close the connections."""
        await self._next.aclose()
        await self._cluster.aclose()

    async def _look(self) -> Look:
        connectors = await self._cluster.listing()
        listed = sort(connectors.values(), BACKEND)
        others = [item for item in connectors.values() if is_mirror(item) and item.name not in listed.streams]
        foreign = ForeignMirrors((), {})
        if others:
            foreign = await self._reader.read(others, (await self._cluster.identity()).kafka_cluster_id)
        routes = tuple(as_configured(item.record, item.connector.config) for item in listed.streams.values())
        return Look(frozenset(connectors), listed, routes, foreign)


class PeerClusters:
    """Other Connect clusters, read-only, closed together with this object."""

    def __init__(self, clusters: Sequence[ConnectCluster] = ()) -> None:
        self._mirrors = tuple(Mirrors(cluster, HOLDS) for cluster in clusters)

    async def look(self) -> tuple[list[Look], list[ReplicatorError]]:
        """Return their recent listings, and why some clusters are unreachable."""
        answers = await asyncio.gather(*(_or_error(mirrors.recent) for mirrors in self._mirrors))
        seen = [answer for answer in answers if isinstance(answer, Look)]
        return seen, [answer for answer in answers if isinstance(answer, ReplicatorError)]

    async def look_again(self) -> list[Look]:
        """Return new listings of the clusters that were reachable recently."""
        answers = await asyncio.gather(*map(_again, self._mirrors))
        return [answer for answer in answers if isinstance(answer, Look)]

    async def aclose(self) -> None:
        """Close the connections."""
        for mirrors in self._mirrors:
            await mirrors.aclose()


async def _again(mirrors: Mirrors) -> Look | ReplicatorError:
    lately = await _or_error(mirrors.recent)
    return lately if isinstance(lately, ReplicatorError) else await _or_error(mirrors.next)


async def _or_error(ask: Callable[[], Awaitable[Look]]) -> Look | ReplicatorError:
    try:
        return await ask()
    except ReplicatorError as error:
        return error
