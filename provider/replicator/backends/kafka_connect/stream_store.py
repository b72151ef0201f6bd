"""The streams of one backend in a Connect cluster, found by their records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from replicator.backends.kafka_connect.cluster import ConnectCluster, Connector
from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts, not_found, read_record, sort
from replicator.backends.kafka_connect.record import PART_OF, StreamRecord


class StreamStore:
    """Finds streams. Changes nothing.

    :param backend: the backend whose streams these are.
    :param part_names: as in `Recipe`.
    :param parts: as in `Recipe`.
    """

    def __init__(
        self,
        cluster: ConnectCluster,
        backend: str,
        part_names: Callable[[str], Sequence[str]],
        parts: Callable[[StreamRecord], Parts],
    ) -> None:
        self._cluster = cluster
        self.backend = backend
        self._part_names = part_names
        self._parts = parts

    async def listing(self) -> Listed:
        """Return all streams, in one call."""
        return sort((await self._cluster.listing()).values(), self.backend)

    async def get(self, name: str) -> DeployedStream | None:
        """Return the stream; raise `NotOurs` if a connector of the name has no record, or `RecordUnreadable`."""
        connector = await self._cluster.look(name)
        if connector is None:
            return None
        record = read_record(connector, self.backend)
        return DeployedStream(connector, record, await self._beside(name, self._parts(record).others))

    async def found(self, name: str) -> DeployedStream:
        """Return the stream as `get` does; raise `StreamNotFound` if it does not exist."""
        deployed = await self.get(name)
        if deployed is None:
            raise not_found(name)
        return deployed

    async def parts(self, name: str) -> tuple[Connector, ...]:
        """Return the stream's auxiliary connectors."""
        return await self._beside(name, self._part_names(name))

    async def _beside(self, stream: str, names: Iterable[str]) -> tuple[Connector, ...]:
        found = await asyncio.gather(*map(self._cluster.look, names))
        return tuple(part for part in found if part is not None and part.config.get(PART_OF) == stream)
