"""Creation of a stream: its main connector is created stopped, with the record; the others follow, and all start last.

The stopped connector claims what the stream reads and writes, so only one of two concurrent creations wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replicator.backends.kafka_connect.cluster import ConnectCluster, Initial
from replicator.backends.kafka_connect.connector_states import SEEN_WITHIN
from replicator.backends.kafka_connect.deployed import DeployedStream, Parts
from replicator.backends.kafka_connect.recipe import Facts, Recipe
from replicator.backends.kafka_connect.record import PART_OF, StreamRecord
from replicator.backends.kafka_connect.stream_store import StreamStore
from replicator.errors import (
    DestinationInUse,
    DestinationSetup,
    EngineRefused,
    InvalidStream,
    ReplayNotRetained,
    ReplicatorError,
    SourceLimit,
    SourceSetup,
)
from replicator.model import DesiredState

_FINAL = (DestinationInUse, DestinationSetup, InvalidStream, ReplayNotRetained, SourceSetup, SourceLimit)
"""Errors that the same attempt would meet again: the creation is undone."""


class Creating:
    """Creates streams in one Connect cluster. The caller holds the stream's slot."""

    def __init__(self, cluster: ConnectCluster, streams: StreamStore, recipe: Recipe[Any, Any, Any]) -> None:
        self._cluster = cluster
        self._streams = streams
        self._recipe = recipe

    async def create(self, record: StreamRecord, facts: Facts, deployed: DeployedStream | None) -> bool:
        """Create the connectors of a stream, and start them.

        :param facts: the result of the check before the creation.
        :param deployed: the unfinished stream of an earlier call.
        :returns: False if it is `None` and a connector of the name exists.
        """
        start = await self._recipe.find_start(record.stream)
        try:
            if deployed is None and not await self._create_first(record, facts):
                return False
            if deployed is not None:
                await self._cluster.stop(deployed.name, SEEN_WITHIN)
            try:
                prepared = await self._recipe.prepare(record, start)
            except _FINAL:  # Connect keeps the retained offsets
                await self._recipe.dispose(record, undone=True)
                await self._cluster.remove(record.stream.name, SEEN_WITHIN)
                raise
            parts = self._recipe.parts(prepared.record)
            if not prepared.listed.isdisjoint(self._recipe.part_names(record.stream.name)):
                await self._remove_parts(record.stream.name, parts)
            await self._put_together(prepared.record, parts)
        except ReplicatorError as error:
            error.unfinished = True
            raise
        return True

    async def create_part(self, name: str, config: Mapping[str, str]) -> bool:
        """Create an auxiliary connector, stopped; return False if it exists."""
        part_of = config.get(PART_OF)
        return await self._cluster.create(
            name, config, Initial.STOPPED, is_ours=lambda found: found.get(PART_OF) == part_of
        )

    async def _create_first(self, record: StreamRecord, facts: Facts) -> bool:
        """Create the connector that holds the record; return False if one may exist, whose record then decides."""
        config = self._recipe.parts(record.model_copy(update={"creating": True})).main
        try:
            return await self._cluster.create(record.stream.name, config, Initial.STOPPED, is_ours=lambda found: True)
        except EngineRefused:
            await self._recipe.validate(record.stream, facts, None)  # names the property
            raise

    async def _remove_parts(self, stream: str, parts: Parts) -> None:
        """Remove connectors of an earlier declaration, which remain if the main connector is deleted by hand."""
        for part in await self._streams.parts(stream):
            if part.name not in parts.others:
                await self._cluster.delete(part.name, SEEN_WITHIN)

    async def _put_together(self, record: StreamRecord, parts: Parts) -> None:
        """Create the other connectors, record that the creation is complete, and start all."""
        stream = record.stream
        for name, config in parts.others.items():
            if not await self.create_part(name, config):
                await self._cluster.put_config(name, config, SEEN_WITHIN)
        await self._cluster.put_config(stream.name, parts.main, SEEN_WITHIN)
        if stream.desired_state is DesiredState.RUNNING:
            await self._recipe.ready(record)
            await self._cluster.resume(stream.name, SEEN_WITHIN, may_idle=self._recipe.starts_idle(record))
            for name in parts.others:
                await self._cluster.resume(name, SEEN_WITHIN, may_idle=True)
