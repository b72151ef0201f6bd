"""The mirrors of the other Connect clusters that the configuration names: they may bring back what one copies here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from replicator.backends.connect.cluster import ConnectCluster
from replicator.backends.connect.marker import Marker
from replicator.backends.connect.mirror.streams import sort
from replicator.backends.connect.recent import Recent
from replicator.errors import ReplicatorError

PATIENCE = 2.0
"""Seconds in which a neighbour is asked again: where a region is down, the others must still be changed."""
HOLDS = 30.0
"""Seconds for which its answer, or its silence, holds."""


class Neighbours:
    """Connect clusters that are only looked at, and closed with this."""

    def __init__(self, clusters: Sequence[ConnectCluster] = ()) -> None:
        self._clusters = tuple(clusters)
        self._asked = [Recent(partial(_markers, cluster), HOLDS) for cluster in clusters]

    async def look(self) -> tuple[list[Marker], list[ReplicatorError]]:
        """Their mirrors, and why some of them cannot be seen."""
        answers = await asyncio.gather(*(_or_error(asked) for asked in self._asked))
        seen = [marker for answer in answers if not isinstance(answer, ReplicatorError) for marker in answer]
        return seen, [answer for answer in answers if isinstance(answer, ReplicatorError)]

    async def aclose(self) -> None:
        """Close the connections."""
        for cluster in self._clusters:
            await cluster.aclose()


async def _markers(cluster: ConnectCluster) -> list[Marker]:
    return [held.marker for held in sort((await cluster.listing()).values()).streams.values()]


async def _or_error(asked: Recent[list[Marker]]) -> list[Marker] | ReplicatorError:
    try:
        return await asked.get()
    except ReplicatorError as error:
        return error
