"""Creating a mirror: its connector is created stopped, with the record; then all is put together, and started last.

The stopped connector claims the topics that it names, so that of two processes that create the same one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from replicator.backends.kafka.positions import Offsets
from replicator.backends.kafka_connect.cluster import ConnectCluster, Initial
from replicator.backends.kafka_connect.mirror import preflight
from replicator.backends.kafka_connect.mirror.connector_states import SEEN_WITHIN
from replicator.backends.kafka_connect.mirror.connectors import Parts, Side, build, part_names
from replicator.backends.kafka_connect.mirror.start_positions import StartPositions, recorded_starts
from replicator.backends.kafka_connect.mirror.status import DeployedStream
from replicator.backends.kafka_connect.mirror.stream_reader import StreamReader
from replicator.backends.kafka_connect.mirror.surroundings import Surroundings
from replicator.backends.kafka_connect.record import PART_OF, StreamRecord
from replicator.errors import DestinationInUse, EngineRefused, InvalidStream, ReplayNotRetained, ReplicatorError
from replicator.model import DesiredState, Stream


class Creating:
    """Creates mirrors in one Connect cluster. The caller has the turn to change the stream.

    :param aliases: names of the worker's ConfigProviders, by scheme of reference.
    """

    def __init__(
        self,
        cluster: ConnectCluster,
        streams: StreamReader,
        starts: StartPositions,
        surroundings: Surroundings,
        aliases: Mapping[str, str],
    ) -> None:
        self._cluster = cluster
        self._streams = streams
        self._surroundings = surroundings
        self._starts = starts
        self._aliases = aliases

    async def create(self, record: StreamRecord, side: Side, deployed: DeployedStream | None) -> bool:
        """Create the connectors of a stream, and let them run.

        :param deployed: what a call before made of it.
        :returns: False where it is `None`, and there is a connector of the name.
        """
        start = await self._starts.find(record.stream)
        with self._streams.busy(record.stream.name, "it is being created: its connectors are not started yet"):
            return await self._create(record, side, deployed, start)

    async def _create(
        self, record: StreamRecord, side: Side, deployed: DeployedStream | None, start: Offsets | None
    ) -> bool:
        try:
            if deployed is None and not await self._create_first(record, side):
                return False
            if deployed is not None:
                await self._cluster.stop(deployed.name, SEEN_WITHIN)
            try:
                listed, kept, earliest = await asyncio.gather(
                    self._surroundings.win(record),
                    self._starts.kept(record.stream),
                    self._earliest(record.stream, start),
                )
                first = await self._starts.set(record, start, kept)
            except (DestinationInUse, InvalidStream, ReplayNotRetained):  # offsets that Connect kept stay
                await self._cluster.remove(record.stream.name, SEEN_WITHIN)
                raise
            record = record.model_copy(update={"starts": recorded_starts(earliest, first)})
            parts = build(record, side, self._aliases)
            if not listed.isdisjoint(part_names(record.stream.name)):
                await self._remove_parts(record.stream.name, parts)
            await self._put_together(record, parts)
        except ReplicatorError as error:
            error.unfinished = True
            raise
        return True

    async def _earliest(self, stream: Stream, start: Offsets | None) -> Offsets | None:
        """Where it begins but for what is set."""
        return await self._starts.earliest(stream) if start is None else start

    async def create_part(self, name: str, config: Mapping[str, str]) -> bool:
        """Create a connector beside the one with the record, stopped; False where it is there."""
        part_of = config.get(PART_OF)
        return await self._cluster.create(
            name, config, Initial.STOPPED, is_ours=lambda found: found.get(PART_OF) == part_of
        )

    async def _create_first(self, record: StreamRecord, side: Side) -> bool:
        """Create the connector that holds the record; False where there may be one, whose record decides then."""
        config = build(record.model_copy(update={"creating": True}), side, self._aliases).source
        try:
            return await self._cluster.create(record.stream.name, config, Initial.STOPPED, is_ours=lambda found: True)
        except EngineRefused:
            await preflight.refuse_invalid(self._cluster, config, record.stream)  # names the property
            raise

    async def _remove_parts(self, stream: str, parts: Parts) -> None:
        """Remove connectors of an earlier declaration, which stay when the main connector is deleted by hand."""
        for part in await self._streams.parts(stream):
            if part.name not in parts.others:
                await self._cluster.delete(part.name, SEEN_WITHIN)

    async def _put_together(self, record: StreamRecord, parts: Parts) -> None:
        """Make what stands beside the connector with the record, write that all is there, and let it run."""
        stream = record.stream
        for name, config in parts.others.items():
            if not await self.create_part(name, config):
                await self._cluster.put_config(name, config, SEEN_WITHIN)
        await self._cluster.put_config(stream.name, parts.source, SEEN_WITHIN)
        if stream.desired_state is DesiredState.RUNNING:
            copies_nothing = record.source_cluster is not None and not record.topics
            await self._cluster.resume(stream.name, SEEN_WITHIN, may_idle=copies_nothing)
            for name in parts.others:
                await self._cluster.resume(name, SEEN_WITHIN, may_idle=True)
